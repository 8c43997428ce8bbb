//! The node's own routes to its pods. The kernel takes them away without being asked: with the address that
//! they name as their source, should it go, and it does not matter that the address comes back.

use std::collections::BTreeMap;

use ipnet::IpNet;
use tombolo_cni::host_link_name;
use tombolo_netlink::{Link, Netlink, ROUTE_PROTOCOL, Route};

use crate::endpoints::{Endpoints, PodSettings, pod_link};
use crate::error::Error;

/// Sets those that are missing, and those that name another source than the node's address of now.
///
/// # Errors
/// The kernel or the store refuses.
pub fn reconcile(endpoints: &Endpoints, settings: &PodSettings) -> Result<(), Error> {
    let mut host = Netlink::open()?;
    let links: BTreeMap<String, Link> = host.links()?.into_iter().map(|l| (l.name.clone(), l)).collect();
    let found: BTreeMap<IpNet, Route> = host
        .routes(ROUTE_PROTOCOL)?
        .into_iter()
        .map(|route| (route.destination, route))
        .collect();
    for attachment in endpoints.store.attachments()? {
        let name = host_link_name(&attachment.owner.container_id, &attachment.owner.ifname);
        let Some(link) = links.get(&name) else { continue };
        let pod = pod_link(&attachment, &name, settings);
        if pod
            .routes(link.index)
            .all(|route| found.get(&route.destination) == Some(&route))
        {
            continue;
        }
        let _turn = endpoints.turns.take(&attachment.owner);
        // It may have gone while its turn was waited for.
        if endpoints.store.get(&attachment.owner)?.is_some()
            && let Some(link) = host.link(&name)?
        {
            pod.route(&mut host, link.index)?;
        }
    }
    Ok(())
}
