//! What is true of the node's kernel, as the layout's compiler wants to know it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use tombolo_cni::HOST_LINK_PREFIX;
use tombolo_kube::NodeNetwork;
use tombolo_layout::{Local, LocalUplink, Reach, claimable, reach_targets};
use tombolo_netlink::{Address, AddressScope, Link, Netlink, Route, RouteKind};

use crate::error::Error;
use crate::overlay;

/// What to look for.
pub struct Question<'a> {
    /// This node's name.
    pub node: &'a str,
    /// Every NodeNetwork.
    pub nodes: &'a [NodeNetwork],
    /// The Network's ranges of node addresses.
    pub node_cidrs: &'a [IpNet],
    /// The names of the uplinks, where somebody has set them.
    pub devices: &'a [String],
    /// Whether the datapath's tables know Services, or have known some.
    pub services: bool,
}

/// Looks at the kernel.
///
/// # Errors
/// The kernel does not answer.
pub fn gather(netlink: &mut Netlink, question: &Question<'_>) -> Result<Local, Error> {
    let links = netlink.links()?;
    let overlay_ifindex = links.iter().find(|l| l.name == overlay::NAME).map(|l| l.index);
    let links: BTreeMap<u32, Link> = links
        .into_iter()
        .filter(|l| l.name != overlay::NAME && !l.name.starts_with(HOST_LINK_PREFIX))
        .map(|l| (l.index, l))
        .collect();
    let mut addresses = netlink.addresses()?;
    addresses.retain(|a| links.contains_key(&a.ifindex) && a.scope == AddressScope::Global && !a.tentative);
    let mut defaults = netlink.routes(0)?;
    defaults.retain(|r| r.destination.prefix_len() == 0 && r.kind == RouteKind::Unicast);

    let mut reach = BTreeMap::new();
    let mut sources = Vec::new();
    for target in reach_targets(question.node, question.nodes) {
        // An address that this node has, too, is not reached anywhere else.
        if let Some(way) = netlink.route_to(target)?.filter(|way| !way.local) {
            reach.insert(
                target,
                Reach {
                    ifindex: way.ifindex,
                    gateway: way.gateway,
                },
            );
            sources.extend(way.source);
        }
    }
    let uplinks = uplinks(question, &links, &addresses, &defaults);
    Ok(Local {
        uplinks,
        addresses: by_preference(addresses, &defaults, &sources),
        overlay_ifindex,
        reach,
        services: question.services,
    })
}

/// The node's addresses, those first that others should reach it by: the source of the default route,
/// then the addresses of its device, then the sources towards other nodes, then the rest.
fn by_preference(addresses: Vec<Address>, defaults: &[Route], sources: &[IpAddr]) -> Vec<IpAddr> {
    let rank = |a: &Address| {
        let ip = a.address.addr();
        let family = |r: &&Route| r.destination.addr().is_ipv4() == ip.is_ipv4();
        let mut routes = defaults.iter().filter(family).peekable();
        let has_default = routes.peek().is_some();
        let is_source = routes.clone().any(|r| r.source == Some(ip));
        let on_device = routes.any(|r| r.ifindex == Some(a.ifindex));
        (!is_source, !on_device, has_default || !sources.contains(&ip))
    };
    let mut addresses = addresses;
    addresses.sort_by_cached_key(rank);
    let mut seen = BTreeSet::new();
    addresses
        .iter()
        .map(|a| a.address.addr())
        .filter(|a| seen.insert(*a))
        .collect()
}

fn uplinks(
    question: &Question<'_>,
    links: &BTreeMap<u32, Link>,
    addresses: &[Address],
    defaults: &[Route],
) -> Vec<LocalUplink> {
    let holds_address = |link: &Link| {
        let mut own = addresses.iter().filter(|a| a.ifindex == link.index);
        own.any(|a| claimable(question.node_cidrs, a.address.addr()))
    };
    let has_default = |link: &Link| defaults.iter().any(|r| r.ifindex == Some(link.index));
    let chosen = |link: &&Link| match question.devices {
        [] => link.up && (holds_address(link) || has_default(link)),
        names => names.contains(&link.name),
    };
    // What has no Ethernet address (a tunnel, for one) is nothing that the programs can be attached to;
    // loopback's is all zeros.
    let uplink = |link: &Link| {
        let mac = link.mac.filter(|mac| *mac != [0; 6])?;
        Some(LocalUplink {
            name: link.name.clone(),
            ifindex: link.index,
            mtu: link.mtu,
            mac,
        })
    };
    links.values().filter(chosen).filter_map(uplink).collect()
}
