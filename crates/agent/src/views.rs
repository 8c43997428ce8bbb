//! What the agent tells the command line, from the store and the kernel as they are.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use tombolo_abi::{RouteKind, Way};
use tombolo_cni::agent::{self, Addresses, Allocation, BlockUsage, Drop, Endpoint, Protocol, Route, Status};
use tombolo_cni::host_link_name;
use tombolo_ipam::{Attachment, HostPort};
use tombolo_netlink::{Link, Netlink};

use crate::control::Outcome;
use crate::endpoints::{Endpoints, mac_text};
use crate::error::Error;

/// All endpoints.
pub fn endpoints(node: &Endpoints) -> Result<Vec<Endpoint>, Error> {
    let links = Netlink::open()?.links()?;
    let links: BTreeMap<&str, &Link> = links.iter().map(|l| (l.name.as_str(), l)).collect();
    let endpoint = |attachment: Attachment| {
        let host_interface = host_link_name(&attachment.owner.container_id, &attachment.owner.ifname);
        let link = links.get(host_interface.as_str());
        let pod = attachment.pod;
        Endpoint {
            container_id: attachment.owner.container_id,
            if_name: attachment.owner.ifname,
            pod_namespace: pod.as_ref().map(|p| p.namespace.clone()),
            pod_name: pod.as_ref().map(|p| p.name.clone()),
            pod_uid: pod.and_then(|p| p.uid),
            netns: attachment.netns.to_string_lossy().into_owned(),
            host_ifindex: link.map_or(0, |l| l.index),
            mac: link.map_or_else(String::new, |_| mac_text(attachment.mac)),
            mtu: attachment.mtu.into(),
            addresses: attachment.addresses,
            host_ports: attachment.host_ports.iter().filter_map(host_port).collect(),
            host_interface,
        }
    };
    Ok(node.store.attachments()?.into_iter().map(endpoint).collect())
}

/// As the command line has it; none of a protocol that no ADD takes.
fn host_port(held: &HostPort) -> Option<agent::HostPort> {
    let mut protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter();
    Some(agent::HostPort {
        protocol: protocols.find(|protocol| protocol.number() == held.protocol)?,
        host_ip: held.host_ip,
        host_port: held.host_port,
        container_port: held.container_port,
    })
}

/// The blocks, and who holds what of them.
pub fn addresses(node: &Endpoints) -> Result<Addresses, Error> {
    let usage = node.store.usage()?.into_iter();
    let blocks = usage.map(|u| BlockUsage {
        block: u.block,
        used: u.used,
        resting: u.resting,
        free: u.free,
    });
    let mut pods: BTreeMap<_, _> = node
        .store
        .attachments()?
        .into_iter()
        .map(|a| (a.owner, a.pod))
        .collect();
    let allocation = |(address, owner): (IpAddr, _)| {
        let pod = pods.get_mut(&owner).and_then(|p| p.as_ref());
        Allocation {
            address,
            pod: pod.map(|p| format!("{}/{}", p.namespace, p.name)),
            container_id: owner.container_id,
            if_name: owner.ifname,
        }
    };
    let allocations = node.store.addresses()?.into_iter().map(allocation).collect();
    Ok(Addresses {
        blocks: blocks.collect(),
        allocations,
    })
}

/// The table that decides where packets go.
pub fn routes(node: &Endpoints, names: &BTreeMap<u32, String>) -> Result<Vec<Route>, Error> {
    let links = Netlink::open()?.links()?;
    let links: BTreeMap<u32, String> = links.into_iter().map(|l| (l.index, l.name)).collect();
    let rows = node.datapath.routes().entries()?;
    let route = |(key, row): (tombolo_abi::RouteKey, tombolo_abi::Route)| {
        let address = IpAddr::from(key.addr);
        let prefix_len = if address.is_ipv4() {
            key.prefix_len.saturating_sub(96)
        } else {
            key.prefix_len
        };
        let local = row.way == Way::Local as u8;
        let leaves_by = match row.underlay_ifindex {
            0 => row.ifindex,
            underlay => underlay,
        };
        Some(Route {
            destination: IpNet::new(address, u8::try_from(prefix_len).ok()?).ok()?,
            kind: kind_word(row.kind).into(),
            way: way_word(row.way).into(),
            node: names.get(&row.node).cloned(),
            next_hop: (!local).then(|| row.next_hop.into()),
            interface: links.get(&leaves_by).cloned(),
            mtu: row.mtu.into(),
        })
    };
    Ok(rows.into_iter().filter_map(route).collect())
}

/// What was dropped, where and why.
pub fn drops(node: &Endpoints) -> Result<Vec<Drop>, Error> {
    let counters = node
        .datapath
        .counters()?
        .into_iter()
        .filter(|(_, outcome, _)| outcome.is_drop());
    let drop =
        |(hook, outcome, counter): (tombolo_abi::Hook, tombolo_abi::Outcome, tombolo_abi::Counter)| Drop {
            hook: hook.word().into(),
            reason: outcome.word().into(),
            packets: counter.packets,
            bytes: counter.bytes,
        };
    Ok(counters.map(drop).collect())
}

/// The agent's own state.
pub fn status(name: &str, node: &Endpoints, outcome: &Outcome) -> Result<Status, Error> {
    let settings = node.settings.borrow().clone();
    let blocks = node.store.blocks()?;
    Ok(Status {
        version: env!("CARGO_PKG_VERSION").into(),
        node: name.into(),
        ready: settings.is_some() && !blocks.is_empty(),
        messages: outcome.problems.clone(),
        endpoints: node.store.attachments()?.len() as u64,
        blocks,
        pod_mtu: settings.map_or(0, |s| s.mtu.into()),
        shapes: outcome.shapes,
    })
}

const fn kind_word(kind: u8) -> &'static str {
    const PODS: u8 = RouteKind::Pods as u8;
    const SERVICES: u8 = RouteKind::Services as u8;
    match kind {
        PODS => "pods",
        SERVICES => "services",
        _ => "node",
    }
}

const fn way_word(way: u8) -> &'static str {
    const LOCAL: u8 = Way::Local as u8;
    const DIRECT: u8 = Way::Direct as u8;
    match way {
        LOCAL => "local",
        DIRECT => "direct",
        _ => "overlay",
    }
}
