//! Brings store and kernel together at the agent's start, before it serves. Pods that run notice nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use tombolo_abi::{Addr, Hook};
use tombolo_cni::{host_link_name, released};
use tombolo_ipam::{Attachment, Owner};
use tombolo_netlink::{Mac, Netlink};

use crate::endpoints::{Endpoints, PodSettings, pod_link, pod_links};
use crate::error::Error;
use crate::pod_routes;
use crate::slow_path::{self, Others};

/// Brings them together:
///
/// 1. ADDs that were cut short, and DELs that found no agent, are done with.
/// 2. Attachments without a link are over (the node was rebooted, or the pod is gone): their addresses
///    are released. Links without an attachment were never finished: they are deleted.
/// 3. What is left is made whole: rows, programs, routes, neighbours.
///
/// # Errors
/// The store, the disk or the kernel refuses. It can be tried again.
pub fn restore(endpoints: &Endpoints, state_dir: &Path, settings: &PodSettings) -> Result<(), Error> {
    settle(endpoints, state_dir)?;
    let mut host = Netlink::open()?;
    let links = pod_links(&mut host)?;
    let mut live: BTreeMap<String, Attachment> = BTreeMap::new();
    for attachment in endpoints.store.attachments()? {
        let name = host_link_name(&attachment.owner.container_id, &attachment.owner.ifname);
        if links.contains_key(&name) {
            live.insert(name, attachment);
        } else {
            tracing::info!(owner = %attachment.owner, "the link of this attachment is gone; releasing its addresses");
            endpoints.store.release(&attachment.owner)?;
        }
    }
    for name in links.keys().filter(|name| !live.contains_key(*name)) {
        tracing::info!(link = name, "no attachment has this link; deleting it");
        host.delete_link(name)?;
    }
    let qdiscs = host.qdiscs()?;
    let mut others: BTreeMap<&str, Others> = BTreeMap::new();
    for link in live.keys().filter_map(|name| links.get(name)) {
        others.insert(&link.name, slow_path::look(&mut host, &qdiscs, link.index)?);
    }
    let others = |name: &str| others.get(name).copied().unwrap_or_default();
    let mut rows = BTreeMap::new();
    for (name, attachment) in &live {
        let Some(link) = links.get(name) else { continue };
        let row = pod_link(attachment, name, settings).row(link.index, others(name));
        rows.extend(attachment.addresses.iter().map(|&a| (Addr::from(a), row)));
    }
    endpoints.datapath.endpoints().reconcile(&rows)?;
    endpoints.services.adopt_host_ports(live.values())?;
    endpoints.namespaces.adopt(live.values())?;
    let neighbours: BTreeSet<(u32, IpAddr, Mac)> = host
        .neighbours()?
        .into_iter()
        .filter(|n| n.permanent)
        .filter_map(|n| Some((n.ifindex, n.address, n.mac?)))
        .collect();
    for (name, attachment) in &live {
        let Some(link) = links.get(name) else { continue };
        let pod = pod_link(attachment, name, settings);
        if let Err(error) = pod.mend(&mut host, &endpoints.datapath, link, others(name), &neighbours) {
            // One pod that cannot be helped must not cost the others theirs; its row is there already.
            tracing::error!(owner = %attachment.owner, %error, "cannot make this endpoint whole");
        }
    }
    if let Err(error) = pod_routes::reconcile(endpoints, settings) {
        // The control loop tries again.
        tracing::error!(%error, "cannot set all routes to pods");
    }
    unpin(endpoints, &live)?;
    tracing::info!(endpoints = live.len(), "took up what is there");
    Ok(())
}

fn settle(endpoints: &Endpoints, state_dir: &Path) -> Result<(), Error> {
    for owner in endpoints
        .journal
        .unfinished()
        .map_err(Error::file("read the journal in", state_dir))?
    {
        tracing::info!(%owner, "an ADD was cut short; undoing it");
        endpoints.remove(&owner)?;
    }
    for record in released::list(state_dir).map_err(Error::file("read", released::folder(state_dir)))? {
        let owner = Owner {
            container_id: record.container_id,
            ifname: record.if_name,
        };
        tracing::info!(%owner, "a DEL found no agent; completing it");
        endpoints.remove(&owner)?;
    }
    Ok(())
}

/// Removes the pins of programs at pod links that are gone.
fn unpin(endpoints: &Endpoints, live: &BTreeMap<String, Attachment>) -> Result<(), Error> {
    let pinned = endpoints.datapath.attachments()?;
    let pods = pinned
        .into_iter()
        .filter(|(_, hook)| matches!(hook, Hook::FromPod | Hook::ToPod));
    let gone: BTreeSet<String> = pods
        .map(|(name, _)| name)
        .filter(|name| !live.contains_key(name))
        .collect();
    for name in gone {
        endpoints.datapath.detach(&name)?;
    }
    Ok(())
}
