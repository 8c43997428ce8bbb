use std::fmt;

use serde::{Deserialize, Serialize};

/// An attachment, by the names that the runtime gives it (CNI SPEC, section 3): in a GC's list and in the answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttachmentName {
    /// `CNI_CONTAINERID` of its ADD.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// `CNI_IFNAME` of its ADD.
    pub ifname: String,
}

impl fmt::Display for AttachmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "container {:?} interface {:?}", self.container_id, self.ifname)
    }
}

/// What the plugin asks for on GC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CollectRequest {
    /// The network's name. Attachments to other networks are none of this request's business.
    pub network: String,
    /// Its attachments that go on.
    pub valid: Vec<AttachmentName>,
}

/// What a collection has removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CollectResponse {
    /// Attachments, with all that they held.
    pub attachments: Vec<AttachmentName>,
    /// What belonged to no attachment any more, in words.
    pub strays: Vec<String>,
}
