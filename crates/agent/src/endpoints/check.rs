//! CHECK: what an attachment is, against what its ADD has made and the runtime believes.
//!
//! The node's side is Tombolo's alone, and compared with the address store. The pod's side belongs to later
//! plugins of the chain too. They amend the result (CNI SPEC, section 5), so of what ADD has made there, only
//! what the result still lists is asked for, as it lists it; what it does not list may be as it likes. The MTU
//! is not compared at all, since `tuning` sets it without a word.

use std::path::Path;

use tombolo_abi::GATEWAY_MAC;
use tombolo_cni::agent::CheckRequest;
use tombolo_cni::error::{Error as CniError, code};
use tombolo_cni::host_link_name;
use tombolo_ipam::{Attachment, Owner};
use tombolo_netlink::{Link, Netlink};

use super::add::pod_routes;
use super::errors::{any, kernel, store};
use super::on_node::OnNode;
use super::{Endpoints, mac_text, owner};
use crate::wiring::gateway;

impl Endpoints {
    /// Compares; blocks. Waits for an ADD of the attachment that is under way.
    ///
    /// # Errors
    /// Code 3: there is no such attachment, and nothing of one. Code 105, with all that differs.
    pub fn check(&self, container_id: &str, if_name: &str, request: &CheckRequest) -> Result<(), CniError> {
        let owner = owner(container_id, if_name)?;
        let pod = self.open_namespace(Path::new(&request.netns))?;
        let _turn = self.turns.take(&owner);
        let on_node = OnNode::read().map_err(any)?;
        let Some(attachment) = self.store.get(&owner).map_err(store)? else {
            return Err(self.not_held(&owner));
        };
        let mut differences = on_node.differences(&self.datapath, &attachment).map_err(any)?;
        differences.extend(self.services.host_port_differences(&attachment).map_err(any)?);
        differences.extend(self.not_listed(&attachment, request)?);
        let inside = pod.run(|| differences_inside(on_node.link(&attachment), &attachment, request));
        differences.extend(inside.and_then(|inside| inside).map_err(kernel)?);
        if differences.is_empty() {
            return Ok(());
        }
        Err(CniError::new(
            code::DIFFERS,
            "the attachment is not what its ADD has made",
            format!("{owner}: {}", differences.join("; ")),
        ))
    }

    fn not_held(&self, owner: &Owner) -> CniError {
        let name = host_link_name(&owner.container_id, &owner.ifname);
        let link = Netlink::open().and_then(|mut netlink| netlink.link(&name));
        // By code 3 a runtime may leave out the DEL.
        if matches!(link, Ok(None)) {
            return CniError::new(
                code::UNKNOWN_CONTAINER,
                "this node has no such attachment",
                format!("{owner} holds no addresses and has no link; it was never added, or is deleted"),
            );
        }
        CniError::new(
            code::DIFFERS,
            "the attachment is not what its ADD has made",
            format!("{owner} holds no addresses, but there is its link {name}"),
        )
    }

    /// What the runtime believes of addresses and is not so.
    fn not_listed(&self, attachment: &Attachment, request: &CheckRequest) -> Result<Vec<String>, CniError> {
        let blocks = self.store.blocks().map_err(store)?;
        let mut differences = Vec::new();
        let listed: Vec<_> = request.addresses.iter().map(|a| a.addr()).collect();
        for address in &listed {
            // Others may have given the interface addresses of their own.
            if !attachment.addresses.contains(address) && blocks.iter().any(|b| b.contains(address)) {
                differences.push(format!(
                    "prevResult lists {address}, which this attachment does not hold"
                ));
            }
        }
        if !listed
            .iter()
            .any(|address| attachment.addresses.contains(address))
        {
            differences.push(format!(
                "prevResult lists none of the addresses that this attachment holds: {:?}",
                attachment.addresses
            ));
        }
        Ok(differences)
    }
}

/// What differs on the pod's side; the calling thread is inside.
fn differences_inside(
    host: Option<&Link>,
    attachment: &Attachment,
    request: &CheckRequest,
) -> tombolo_netlink::Result<Vec<String>> {
    let name = &attachment.owner.ifname;
    let mut netlink = Netlink::open()?;
    let Some(link) = netlink.link(name)? else {
        return Ok(vec![format!("the pod has no interface {name}")]);
    };
    let mut differences = Vec::new();
    if let Some(host) = host
        && (host.peer, link.peer) != (Some(link.index), Some(host.index))
    {
        differences.push(format!(
            "interface {name} of the pod is not the other side of {}",
            host.name
        ));
    }
    if !link.up {
        differences.push(format!("interface {name} of the pod is down"));
    }
    let mac = link.mac.map(mac_text).unwrap_or_default();
    if let Some(listed) = &request.mac
        && !listed.eq_ignore_ascii_case(&mac)
    {
        differences.push(format!(
            "interface {name} of the pod has MAC {mac} instead of {listed}"
        ));
    }
    let addresses = netlink.addresses()?;
    let neighbours = netlink.neighbours()?;
    let listed = |address| request.addresses.iter().any(|a| a.addr() == address);
    for &address in attachment.addresses.iter().filter(|a| listed(**a)) {
        let there = |a: &tombolo_netlink::Address| {
            a.ifindex == link.index && a.address.addr() == address && !a.tentative
        };
        if !addresses.iter().any(there) {
            differences.push(format!("interface {name} of the pod does not have {address}"));
        }
        // Nobody would answer for the gateway.
        let gateway = gateway(address);
        let known = |n: &tombolo_netlink::Neighbour| {
            n.ifindex == link.index && n.address == gateway && n.permanent && n.mac == Some(GATEWAY_MAC)
        };
        if !neighbours.iter().any(known) {
            differences.push(format!("the pod has no permanent neighbour {gateway} at {name}"));
        }
    }
    let routes = netlink.routes(0)?;
    for made in pod_routes(attachment) {
        // By whichever way, as later plugins may have changed that.
        let there = routes.iter().any(|r| r.destination == made.dst);
        if request.routes.contains(&made) && !there {
            differences.push(format!("the pod has no route to {}", made.dst));
        }
    }
    Ok(differences)
}
