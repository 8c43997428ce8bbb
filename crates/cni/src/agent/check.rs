use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::PodRoute;

/// What the plugin asks on CHECK: what the runtime's `prevResult` lists of the pod's interface. It is the
/// result of the whole chain, so that what later plugins changed is in it as they left it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckRequest {
    /// The path of the pod's network namespace (`CNI_NETNS`).
    pub netns: String,
    /// The interface's MAC address, where it is listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Its addresses.
    #[serde(default)]
    pub addresses: Vec<IpNet>,
    /// The routes of the whole result, which does not say whose they are.
    #[serde(default)]
    pub routes: Vec<PodRoute>,
}
