use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::family::Family;

/// Who holds addresses: one CNI attachment, which is an interface of a pod's sandbox.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// The runtime's id of the sandbox (`CNI_CONTAINERID`).
    pub container_id: String,
    /// The interface inside it (`CNI_IFNAME`).
    pub ifname: String,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "container {:?} interface {:?}", self.container_id, self.ifname)
    }
}

/// The pod that an attachment belongs to, as the runtime named it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid, which tells it from an earlier pod of the same name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

/// What is stored of an attachment, in one commit with its addresses: enough to restore the
/// endpoint without asking anybody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// Who holds the addresses.
    pub owner: Owner,
    /// The path of the pod's network namespace.
    pub netns: PathBuf,
    /// The name of the network that it is an attachment to, where the runtime told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// The pod, where the runtime told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodRef>,
    /// The pod's MAC address.
    pub mac: [u8; 6],
    /// The MTU of the pod's link, in bytes of the IP packet.
    pub mtu: u16,
    /// The addresses, IPv4 before IPv6; never empty.
    pub addresses: Vec<IpAddr>,
}

/// A wish for addresses, with what is to be stored beside them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who is to hold the addresses.
    pub owner: Owner,
    /// The path of the pod's network namespace.
    pub netns: PathBuf,
    /// The name of the network that it is to be an attachment to, where the runtime told it.
    pub network: Option<String>,
    /// The pod, where the runtime told it.
    pub pod: Option<PodRef>,
    /// The pod's MAC address.
    pub mac: [u8; 6],
    /// The MTU of the pod's link, in bytes of the IP packet.
    pub mtu: u16,
    /// The families of which the attachment needs an address each.
    pub families: Vec<Family>,
    /// Addresses that it must have. A family that is among them gets no other.
    pub addresses: Vec<IpAddr>,
}
