//! The life of endpoints: made by ADD, removed by DEL, compared by CHECK, collected by GC.
//!
//! Everything here blocks, and several calls run at once; those about the same attachment take turns, and GC
//! takes all of them.
//!
//! | file | job |
//! | --- | --- |
//! | `add.rs` | ADD, everything or nothing |
//! | `remove.rs` | DEL |
//! | `check.rs` | CHECK: what differs, in the pod and on its node |
//! | `on_node.rs` | what of an endpoint there is on the node's side |
//! | `collect.rs` | GC |
//! | `readiness.rs` | STATUS: whether an ADD could be served |
//! | `errors.rs` | what the runtime hears of a failure |

mod add;
mod check;
mod collect;
mod errors;
mod on_node;
mod readiness;
mod remove;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;
use tombolo_cni::error::Error as CniError;
use tombolo_cni::{ContainerId, InterfaceName, invalid};
use tombolo_datapath::Datapath;
use tombolo_ipam::{AddressStore, Attachment, Owner};
use tombolo_netlink::{Mac, Namespace};

pub use on_node::pod_links;

use crate::journal::Journal;
use crate::network_namespaces::NetworkNamespaces;
use crate::services::Services;
use crate::socket::Lock;
use crate::turns::Turns;
use crate::wiring::PodLink;

/// What pods are given besides their addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodSettings {
    /// The MTU of new pods, in bytes of the IP packet.
    pub mtu: u16,
    /// Sources of what the node itself sends to its pods, at most one of each family.
    pub node_addresses: Vec<IpAddr>,
}

/// All endpoints of the node.
pub struct Endpoints {
    pub store: Arc<AddressStore>,
    pub datapath: Arc<Datapath>,
    pub namespaces: Arc<NetworkNamespaces>,
    /// For the pods' host ports.
    pub services: Arc<Services>,
    pub journal: Journal,
    /// Where plugins leave records of DELs that found no agent.
    pub state_dir: PathBuf,
    pub settings: watch::Receiver<Option<PodSettings>>,
    pub turns: Turns<Owner>,
    pub own_namespace: Namespace,
    /// Ends with the process, as the store does.
    pub _lock: Lock,
}

impl Endpoints {
    fn open_namespace(&self, path: &Path) -> Result<Namespace, CniError> {
        let text = path.to_string_lossy();
        let unusable =
            |e: tombolo_netlink::Error| invalid("CNI_NETNS", &text, &format!("is not usable: {e}"));
        if !path.is_absolute() {
            return Err(invalid("CNI_NETNS", &text, "must be an absolute path"));
        }
        let pod = Namespace::open(path).map_err(unusable)?;
        if pod.same_as(&self.own_namespace).map_err(unusable)? {
            return Err(invalid(
                "CNI_NETNS",
                &text,
                "is the node's own namespace, not a pod's",
            ));
        }
        Ok(pod)
    }
}

/// An attachment's link.
pub fn pod_link<'a>(
    attachment: &'a Attachment,
    host_name: &'a str,
    settings: &'a PodSettings,
) -> PodLink<'a> {
    PodLink {
        host_name,
        pod_name: &attachment.owner.ifname,
        mac: attachment.mac,
        mtu: attachment.mtu,
        addresses: &attachment.addresses,
        node_addresses: &settings.node_addresses,
    }
}

/// Six hexadecimal pairs joined by colons.
pub fn mac_text(mac: Mac) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

fn owner(container_id: &str, if_name: &str) -> Result<Owner, CniError> {
    ContainerId::parse(container_id).map_err(|rule| invalid("CNI_CONTAINERID", container_id, rule))?;
    InterfaceName::parse(if_name).map_err(|rule| invalid("CNI_IFNAME", if_name, rule))?;
    Ok(Owner {
        container_id: container_id.into(),
        ifname: if_name.into(),
    })
}
