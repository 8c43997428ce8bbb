//! Making links: each in one request, names, addresses and sizes included.

use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    BridgeStpState, InfoBridge, InfoData, InfoKind, InfoVeth, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage,
};

use super::check_name;
use crate::{Error, LinkChange, Mac, Namespace, Netlink, Result};

/// A pair of Ethernet devices joined back to back (veth(4)). The peer is born in its namespace: moving it there
/// later would wait tens of milliseconds for the kernel's readers.
#[derive(Debug, Clone, Copy)]
pub struct Veth<'a> {
    /// The name of this end.
    pub name: &'a str,
    /// Its address; none: random.
    pub mac: Option<Mac>,
    /// Its MTU in bytes; none: 1500.
    pub mtu: Option<u32>,
    /// The name of the other end.
    pub peer_name: &'a str,
    /// Its address; none: random.
    pub peer_mac: Option<Mac>,
    /// Its MTU in bytes; none: 1500.
    pub peer_mtu: Option<u32>,
    /// Where the other end is to live; none: here, too.
    pub peer_namespace: Option<&'a Namespace>,
    /// Whether this end comes up at once; the other one cannot. It then gets an IPv6 link-local address; to have
    /// none, leave it down and use [`LinkChange::ipv6_link_local`](crate::LinkChange::ipv6_link_local).
    pub up: bool,
    /// Queues of each end and direction. The kernel's own choice is one for each CPU, which costs memory and time
    /// and gains nothing without XDP.
    pub queues: u32,
}

impl Default for Veth<'_> {
    fn default() -> Self {
        Self {
            name: "",
            mac: None,
            mtu: None,
            peer_name: "",
            peer_mac: None,
            peer_mtu: None,
            peer_namespace: None,
            up: false,
            queues: 1,
        }
    }
}

/// A VXLAN device (RFC 7348) in external mode: each packet carries its own tunnel key, and one device serves all
/// peers and network identifiers. It learns nothing and sends no ARP. Over IPv6 it takes and sends packets without
/// a UDP checksum (RFC 6935), as the inner packets have their own.
#[derive(Debug, Clone, Copy)]
pub struct Vxlan<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its address: one of its own on each node, or packets look like loops; none: random.
    pub mac: Option<Mac>,
    /// The largest inner packet, in bytes.
    pub mtu: u32,
    /// The UDP port, in host order.
    pub port: u16,
    /// Whether it comes up at once.
    pub up: bool,
}

/// A bridge without spanning tree.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bridge<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its address; none: that of its lowest port, which changes as ports come and go.
    pub mac: Option<Mac>,
    /// Its MTU in bytes; none: that of its smallest port.
    pub mtu: Option<u32>,
    /// Whether it comes up at once.
    pub up: bool,
}

impl Netlink {
    /// Makes a pair of veth devices and gives the index of this end. Both ends or neither.
    pub fn add_veth(&mut self, veth: &Veth<'_>) -> Result<u32> {
        check_name(veth.peer_name)?;
        let mut peer = new_link(veth.peer_name, veth.peer_mac, veth.peer_mtu, false);
        let queues = [
            LinkAttribute::NumRxQueues(veth.queues),
            LinkAttribute::NumTxQueues(veth.queues),
        ];
        peer.attributes.extend(queues.clone());
        if let Some(namespace) = veth.peer_namespace {
            peer.attributes
                .push(LinkAttribute::NetNsFd(namespace.as_fd().as_raw_fd()));
        }
        let mut link = new_link(veth.name, veth.mac, veth.mtu, veth.up);
        link.attributes.extend(queues);
        self.add_link(
            veth.name,
            link,
            InfoKind::Veth,
            InfoData::Veth(InfoVeth::Peer(peer)),
        )
    }

    /// Makes a VXLAN device and gives its index.
    pub fn add_vxlan(&mut self, vxlan: &Vxlan<'_>) -> Result<u32> {
        let mut link = new_link(vxlan.name, vxlan.mac, Some(vxlan.mtu), vxlan.up);
        link.header.flags |= LinkFlags::Noarp;
        link.header.change_mask |= LinkFlags::Noarp;
        let options = vec![
            InfoVxlan::CollectMetadata(true),
            InfoVxlan::Port(vxlan.port),
            InfoVxlan::Learning(false),
            InfoVxlan::UDPZeroCsumTX(true),
            InfoVxlan::UDPZeroCsumRX(true),
        ];
        self.add_link(vxlan.name, link, InfoKind::Vxlan, InfoData::Vxlan(options))
    }

    /// Makes a bridge and gives its index.
    pub fn add_bridge(&mut self, bridge: &Bridge<'_>) -> Result<u32> {
        let link = new_link(bridge.name, bridge.mac, None, bridge.up);
        let options = vec![InfoBridge::StpState(BridgeStpState::Disabled)];
        let index = self.add_link(bridge.name, link, InfoKind::Bridge, InfoData::Bridge(options))?;
        // An MTU of the first request would give way to that of the first port.
        self.set_link(
            index,
            &LinkChange {
                mtu: bridge.mtu,
                ..LinkChange::default()
            },
        )?;
        Ok(index)
    }

    fn add_link(&mut self, name: &str, mut link: LinkMessage, kind: InfoKind, data: InfoData) -> Result<u32> {
        check_name(name)?;
        let operation = format!("make {kind} {name}");
        link.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(kind),
            LinkInfo::Data(data),
        ]));
        let request = RouteNetlinkMessage::NewLink(link);
        self.socket()
            .request(&operation, request, NLM_F_CREATE | NLM_F_EXCL)?;
        // Only kernels from 6.2 on tell the index in their answer.
        self.link(name)?
            .map(|link| link.index)
            .ok_or_else(|| Error::NoSuchLink(name.into()))
    }
}

fn new_link(name: &str, mac: Option<Mac>, mtu: Option<u32>, up: bool) -> LinkMessage {
    let mut link = LinkMessage::default();
    if up {
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
    }
    link.attributes.push(LinkAttribute::IfName(name.into()));
    link.attributes
        .extend(mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
    link.attributes.extend(mtu.map(LinkAttribute::Mtu));
    link
}
