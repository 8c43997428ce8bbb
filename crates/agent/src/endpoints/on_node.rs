//! What of an endpoint there is on the node's side, and what of it is not as it should be.

use std::collections::BTreeMap;

use tombolo_abi::{Addr, Hook};
use tombolo_cni::{HOST_LINK_PREFIX, host_link_name};
use tombolo_datapath::Datapath;
use tombolo_ipam::Attachment;
use tombolo_netlink::{Link, Neighbour, Netlink, ROUTE_PROTOCOL, Route};

use super::mac_text;
use crate::error::Error;

/// Links to pods, and the node's own ways to them, at one moment.
pub struct OnNode {
    links: BTreeMap<String, Link>,
    routes: Vec<Route>,
    neighbours: Vec<Neighbour>,
}

impl OnNode {
    /// Asks the kernel.
    ///
    /// # Errors
    /// It does not answer.
    pub fn read() -> Result<Self, Error> {
        let mut netlink = Netlink::open()?;
        Ok(Self {
            links: pod_links(&mut netlink)?,
            routes: netlink.routes(ROUTE_PROTOCOL)?,
            neighbours: netlink.neighbours()?,
        })
    }

    /// The host's side of an attachment's link.
    pub fn link(&self, attachment: &Attachment) -> Option<&Link> {
        let owner = &attachment.owner;
        self.links
            .get(&host_link_name(&owner.container_id, &owner.ifname))
    }

    /// What differs from what an ADD makes, in words; all but the pod's own side.
    ///
    /// # Errors
    /// The tables or what is attached cannot be read.
    pub fn differences(&self, datapath: &Datapath, attachment: &Attachment) -> Result<Vec<String>, Error> {
        let Some(link) = self.link(attachment) else {
            let owner = &attachment.owner;
            let name = host_link_name(&owner.container_id, &owner.ifname);
            return Ok(vec![format!("the node has no link {name}")]);
        };
        let name = &link.name;
        let mut differences = Vec::new();
        if !link.up {
            differences.push(format!("link {name} is down"));
        }
        for hook in [Hook::FromPod, Hook::ToPod] {
            if !datapath.is_attached(hook, name, link.index)? {
                differences.push(format!("link {name} has no program {}", hook.word()));
            }
        }
        for &address in &attachment.addresses {
            match datapath.endpoints().get(&Addr::from(address))? {
                None => differences.push(format!("ENDPOINTS has no row of {address}")),
                Some(row) => {
                    let (found, made) = ((row.ifindex, row.mac), (link.index, attachment.mac));
                    if found != made {
                        differences.push(format!(
                            "the row of {address} in ENDPOINTS names link {} with {} instead of {} with {}",
                            found.0,
                            mac_text(found.1),
                            made.0,
                            mac_text(made.1)
                        ));
                    }
                }
            }
            let routed = |r: &&Route| r.destination.addr() == address && r.ifindex == Some(link.index);
            if self
                .routes
                .iter()
                .filter(|r| r.destination.prefix_len() == r.destination.max_prefix_len())
                .find(routed)
                .is_none()
            {
                differences.push(format!("the node has no route to {address} by {name}"));
            }
            let known = |n: &Neighbour| {
                n.address == address
                    && n.ifindex == link.index
                    && n.permanent
                    && n.mac == Some(attachment.mac)
            };
            if !self.neighbours.iter().any(known) {
                differences.push(format!("the node has no permanent neighbour {address} at {name}"));
            }
        }
        Ok(differences)
    }
}

/// The host's sides of all links to pods, by name.
///
/// # Errors
/// The kernel does not answer.
pub fn pod_links(netlink: &mut Netlink) -> Result<BTreeMap<String, Link>, Error> {
    let links = netlink.links()?.into_iter();
    let of_pods = links.filter(|l| l.name.starts_with(HOST_LINK_PREFIX) && l.kind.as_deref() == Some("veth"));
    Ok(of_pods.map(|l| (l.name.clone(), l)).collect())
}
