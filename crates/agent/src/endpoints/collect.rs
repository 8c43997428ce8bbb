//! GC: frees what no valid attachment holds, goes on after errors, and reports them all.
//!
//! It has all turns, so no ADD or DEL runs beside it. An attachment that somebody worked on when the GC came is
//! left alone: its ADD may have ended since, and its runtime could not have listed it.
//!
//! Attachments belong to a network by its name (CNI SPEC, section 3), which is stored with each. A GC frees
//! those of its own network alone. One that was stored without a name is no GC's: its DEL frees it, or the
//! agent's next start after its link has gone. What belongs to no attachment at all is any GC's.

use std::collections::BTreeSet;
use std::net::IpAddr;

use tombolo_abi::Hook;
use tombolo_cni::agent::{AttachmentName, CollectRequest, CollectResponse};
use tombolo_cni::error::{Error as CniError, code};
use tombolo_cni::{host_link_name, released};
use tombolo_ipam::Owner;
use tombolo_netlink::Netlink;

use super::Endpoints;
use super::on_node::pod_links;
use crate::error::Error;

/// A collection under way.
struct Collection<'a> {
    endpoints: &'a Endpoints,
    /// What is left alone.
    kept: &'a dyn Fn(&Owner) -> bool,
    removed: CollectResponse,
    errors: Vec<String>,
}

impl Endpoints {
    /// Collects; blocks until no ADD or DEL is under way.
    ///
    /// # Errors
    /// Code 103, with all that could not be removed and why. The rest is.
    pub fn collect(&self, request: &CollectRequest) -> Result<CollectResponse, CniError> {
        let valid: BTreeSet<Owner> = request.valid.iter().cloned().map(owner).collect();
        let all = self.turns.take_all();
        let mut collection = Collection {
            endpoints: self,
            kept: &|owner| valid.contains(owner) || all.was_busy(owner),
            removed: CollectResponse::default(),
            errors: Vec::new(),
        };
        collection.attachments(&request.network);
        collection.unfinished();
        collection.strays();
        if collection.errors.is_empty() {
            return Ok(collection.removed);
        }
        Err(CniError::new(
            code::KERNEL,
            "not all that no valid attachment holds could be removed",
            collection.errors.join("; "),
        ))
    }
}

impl Collection<'_> {
    fn attachments(&mut self, network: &str) {
        let held = self.keep("read the attachments", self.endpoints.store.attachments());
        for attachment in held.unwrap_or_default() {
            if attachment.network.as_deref() == Some(network) && self.remove(&attachment.owner) {
                self.removed.attachments.push(name(attachment.owner));
            }
        }
    }

    /// ADDs that could not be undone, and DELs whose plugin was killed.
    fn unfinished(&mut self) {
        let journal = &self.endpoints.journal;
        let begun = self.keep("read the journal", journal.unfinished());
        for owner in begun.unwrap_or_default() {
            if self.remove(&owner) {
                self.removed.strays.push(format!("the rest of an ADD of {owner}"));
            }
        }
        let records = self.keep(
            "read the records of DELs",
            released::list(&self.endpoints.state_dir),
        );
        for record in records.unwrap_or_default() {
            let owner = Owner {
                container_id: record.container_id,
                ifname: record.if_name,
            };
            if self.remove(&owner) {
                self.removed.strays.push(format!("the rest of a DEL of {owner}"));
            }
        }
    }

    /// What the kernel has and no attachment does.
    fn strays(&mut self) {
        let Some(held) = self.keep("read the attachments", self.endpoints.store.attachments()) else {
            return;
        };
        let host_ports = self.endpoints.services.collect_host_ports(&held);
        let host_ports = self.keep("look at the host ports", host_ports);
        self.removed.strays.extend(host_ports.unwrap_or_default());
        let links: BTreeSet<String> = held
            .iter()
            .map(|a| host_link_name(&a.owner.container_id, &a.owner.ifname))
            .collect();
        let addresses: BTreeSet<IpAddr> = held.into_iter().flat_map(|a| a.addresses).collect();
        let (rows, there, pins) = (self.rows(&addresses), self.links(&links), self.pins(&links));
        self.keep("look at the rows of ENDPOINTS", rows);
        self.keep("look at the links to pods", there);
        self.keep("look at what is attached", pins);
    }

    fn rows(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<(), Error> {
        let table = self.endpoints.datapath.endpoints();
        for key in table.entries()?.into_keys() {
            let address = IpAddr::from(key);
            if !addresses.contains(&address)
                && self
                    .keep(&format!("remove the row of {address}"), table.remove(&key))
                    .is_some()
            {
                self.removed.strays.push(format!("the row of {address}"));
            }
        }
        Ok(())
    }

    fn links(&mut self, wanted: &BTreeSet<String>) -> Result<(), Error> {
        let mut netlink = Netlink::open()?;
        for name in pod_links(&mut netlink)?.into_keys() {
            if !wanted.contains(&name)
                && self
                    .keep(&format!("delete link {name}"), netlink.delete_link(&name))
                    .is_some()
            {
                self.removed.strays.push(format!("link {name}"));
            }
        }
        Ok(())
    }

    fn pins(&mut self, wanted: &BTreeSet<String>) -> Result<(), Error> {
        let pinned = self.endpoints.datapath.attachments()?.into_iter();
        let of_pods = pinned.filter(|(_, hook)| matches!(hook, Hook::FromPod | Hook::ToPod));
        let devices: BTreeSet<String> = of_pods.map(|(device, _)| device).collect();
        for device in devices.difference(wanted) {
            if self
                .keep(
                    &format!("detach from {device}"),
                    self.endpoints.datapath.detach(device),
                )
                .is_some()
            {
                self.removed.strays.push(format!("what was attached to {device}"));
            }
        }
        Ok(())
    }

    /// Removes an attachment that is not kept; whether it did.
    fn remove(&mut self, owner: &Owner) -> bool {
        !(self.kept)(owner)
            && self
                .keep(&format!("remove {owner}"), self.endpoints.remove(owner))
                .is_some()
    }

    /// The value of what worked. An error does not end the collection.
    fn keep<T, E: std::fmt::Display>(&mut self, what: &str, result: Result<T, E>) -> Option<T> {
        result
            .map_err(|error| self.errors.push(format!("cannot {what}: {error}")))
            .ok()
    }
}

fn owner(name: AttachmentName) -> Owner {
    Owner {
        container_id: name.container_id,
        ifname: name.ifname,
    }
}

fn name(owner: Owner) -> AttachmentName {
    AttachmentName {
        container_id: owner.container_id,
        ifname: owner.ifname,
    }
}
