use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;
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
    /// Ports of the node that lead to the pod, which no other attachment has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_ports: Vec<HostPort>,
}

/// A port of the node that leads to a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostPort {
    /// IP protocol number.
    pub protocol: u8,
    /// At which address of the node; none: at all of them, and an unspecified one: at all of its family.
    #[serde(default, rename = "hostIP", skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
    /// The node's port.
    pub host_port: NonZeroU16,
    /// The pod's port.
    pub container_port: NonZeroU16,
}

impl HostPort {
    /// Whether some packet could be for both: as sockets' ports, those at all addresses and at one are in each other's way.
    pub fn overlaps(&self, other: &Self) -> bool {
        let addresses = match (self.host_ip, other.host_ip) {
            (Some(a), Some(b)) => {
                a == b || (a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified()))
            }
            _ => true,
        };
        addresses && (self.protocol, self.host_port) == (other.protocol, other.host_port)
    }
}

/// `8080/TCP`, `192.0.2.1:8080/TCP`, `[2001:db8::1]:53/UDP`.
impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_ip {
            None => {}
            Some(IpAddr::V4(ip)) => write!(f, "{ip}:")?,
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:")?,
        }
        let port = self.host_port;
        match self.protocol {
            6 => write!(f, "{port}/TCP"),
            17 => write!(f, "{port}/UDP"),
            132 => write!(f, "{port}/SCTP"),
            other => write!(f, "{port}/{other}"),
        }
    }
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
    /// Ports of the node that are to lead to the pod.
    pub host_ports: Vec<HostPort>,
}
