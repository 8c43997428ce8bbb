//! Which endpoints take the slow path: those at the host side of whose link somebody else has put a queueing
//! discipline or a filter, as the reference plugin `bandwidth` does after our ADD has returned.
//!
//! The short way passes by the link: into the pod without its root qdisc, and out of it before the filters of
//! others. On the slow path a direction's packets meet them, and are checked by our programs all the same. It
//! is chosen for each direction by itself, in the endpoint's row, within a moment of the kernel's notification.

use tombolo_abi::{Addr, Endpoint};
use tombolo_cni::{HOST_LINK_PREFIX, host_link_name};
use tombolo_datapath::{FILTER_HANDLE, FILTER_PRIORITY};
use tombolo_ipam::Attachment;
use tombolo_netlink::{Direction, Error as NetlinkError, Event, Filter, Netlink, Qdisc};

use crate::endpoints::{Endpoints, PodSettings, pod_link};
use crate::error::Error;

/// What others have put at the host side of a pod's link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Others {
    /// The directions that take the slow path, as in [`Endpoint::flags`].
    pub slow: u32,
    /// The link's ingress qdisc is theirs, or will be.
    pub ingress_qdisc: bool,
}

impl Others {
    /// Of a link that is new: nobody has done anything yet.
    pub fn of_new(ingress_qdisc: bool) -> Self {
        Self {
            slow: 0,
            ingress_qdisc,
        }
    }
}

/// The links whose state is to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concern {
    /// The one with this interface index, if it is a pod's.
    Link(u32),
    /// Those of all pods.
    AllLinks,
}

/// What an event makes necessary. Our own attachments, which come with every pod, do not.
pub fn concern(event: &Event) -> Option<Concern> {
    match event {
        Event::Qdisc(qdisc) if is_clsact(qdisc) => None,
        // Our programs went with it, or with the filter.
        Event::Qdisc(qdisc) | Event::QdiscRemoved(qdisc) => Some(Concern::Link(qdisc.ifindex)),
        Event::Filter(filter) if is_ours(filter) => None,
        Event::Filter(filter) | Event::FilterRemoved(filter) => Some(Concern::Link(filter.ifindex)),
        Event::Overrun => Some(Concern::AllLinks),
        _ => None,
    }
}

/// Looks at a link, of the node whose qdiscs these are.
///
/// # Errors
/// The kernel refuses.
pub fn look(host: &mut Netlink, qdiscs: &[Qdisc], ifindex: u32) -> Result<Others, NetlinkError> {
    let mut others = Others::default();
    for qdisc in qdiscs.iter().filter(|qdisc| qdisc.ifindex == ifindex) {
        // Our links have no queue of their own.
        if qdisc.root && qdisc.kind != "noqueue" {
            others.slow |= Endpoint::SLOW_INGRESS;
        }
        let clsact = is_clsact(qdisc);
        if (clsact || qdisc.kind == "ingress") && has_foreign_filters(host, ifindex, Direction::Ingress)? {
            others.slow |= Endpoint::SLOW_EGRESS;
        }
        if clsact && has_foreign_filters(host, ifindex, Direction::Egress)? {
            others.slow |= Endpoint::SLOW_INGRESS;
        }
        others.ingress_qdisc |= qdisc.kind == "ingress";
    }
    Ok(others)
}

/// Brings rows and programs of endpoints in line with their links.
pub fn refresh(endpoints: &Endpoints, concern: Concern) {
    if let Err(error) = try_refresh(endpoints, concern) {
        tracing::error!(%error, ?concern, "cannot tell whether others shape or filter this traffic; what they have set up may not hold");
    }
}

fn try_refresh(endpoints: &Endpoints, concern: Concern) -> Result<(), Error> {
    let mut host = Netlink::open()?;
    let name = match concern {
        Concern::AllLinks => None,
        Concern::Link(ifindex) => match host.link_by_index(ifindex)? {
            Some(link) if link.name.starts_with(HOST_LINK_PREFIX) => Some(link.name),
            _ => return Ok(()),
        },
    };
    // What changes while this goes on comes as an event afterwards.
    let qdiscs = host.qdiscs()?;
    let mut result = Ok(());
    for attachment in endpoints.store.attachments()? {
        let host_name = host_link_name(&attachment.owner.container_id, &attachment.owner.ifname);
        if name.as_ref().is_none_or(|name| *name == host_name) {
            let refreshed = refresh_one(endpoints, &mut host, &qdiscs, &attachment, &host_name);
            result = result.and(refreshed);
        }
    }
    result
}

fn refresh_one(
    endpoints: &Endpoints,
    host: &mut Netlink,
    qdiscs: &[Qdisc],
    attachment: &Attachment,
    host_name: &str,
) -> Result<(), Error> {
    let _turn = endpoints.turns.take(&attachment.owner);
    // It may have gone while its turn was waited for.
    let Some(attachment) = endpoints.store.get(&attachment.owner)? else {
        return Ok(());
    };
    let Some(link) = host.link(host_name)? else {
        return Ok(());
    };
    let others = look(host, qdiscs, link.index)?;
    let settings = PodSettings::default();
    let pod = pod_link(&attachment, host_name, &settings);
    pod.attach(&endpoints.datapath, link.index, others)?;
    let wanted = pod.row(link.index, others);
    let rows = endpoints.datapath.endpoints();
    for &address in &attachment.addresses {
        let address = Addr::from(address);
        if rows.get(&address)? != Some(wanted) {
            rows.insert(&address, &wanted)?;
            tracing::info!(owner = %attachment.owner, slow = wanted.flags, "this endpoint changes its path");
        }
    }
    Ok(())
}

fn has_foreign_filters(host: &mut Netlink, ifindex: u32, direction: Direction) -> Result<bool, NetlinkError> {
    match host.filters(ifindex, direction) {
        Ok(filters) => Ok(!filters.iter().all(is_ours)),
        // Ours can be read.
        Err(NetlinkError::Decode { .. }) => Ok(true),
        Err(error) => Err(error),
    }
}

fn is_clsact(qdisc: &Qdisc) -> bool {
    qdisc.kind == "clsact"
}

fn is_ours(filter: &Filter) -> bool {
    filter.kind == "bpf"
        && filter.priority == FILTER_PRIORITY
        // 0 is what holds filters of one priority together.
        && matches!(filter.handle, 0 | FILTER_HANDLE)
}
