//! Addresses of links.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope as WireScope,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::{Netlink, Result};

/// An address of a link.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The link.
    pub ifindex: u32,
    /// The address, with the length of the prefix that is on the link.
    pub address: IpNet,
    /// How far it is valid.
    pub scope: AddressScope,
    /// Whether IPv6 duplicate address detection (RFC 4862, 5.4) still runs, or has found a duplicate: not usable.
    pub tentative: bool,
}

/// How far an address is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddressScope {
    /// Everywhere.
    Global,
    /// On its site (RFC 3879 has deprecated those).
    Site,
    /// On its link: fe80::/64 and what was added with that scope.
    Link,
    /// On this machine: loopback.
    Host,
    /// Anything else, by the kernel's number.
    Other(u8),
}

impl Netlink {
    /// All addresses of both families in this namespace.
    pub fn addresses(&mut self) -> Result<Vec<Address>> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        self.socket()
            .dump(&"list addresses", request, |answer| match answer {
                RouteNetlinkMessage::NewAddress(message) => Address::from_message(&message),
                _ => None,
            })
    }

    /// Gives a link an address; it is fine if it has it. An IPv6 address is usable at once: duplicate address
    /// detection is off for it.
    pub fn add_address(&mut self, ifindex: u32, address: IpNet) -> Result<()> {
        let operation = format_args!("add address {address} to link {ifindex}");
        let request = RouteNetlinkMessage::NewAddress(to_message(ifindex, address));
        self.socket()
            .request(&operation, request, NLM_F_CREATE | NLM_F_REPLACE)
            .map(drop)
    }

    /// Takes an address from a link. False: it did not have it.
    pub fn delete_address(&mut self, ifindex: u32, address: IpNet) -> Result<bool> {
        let operation = format_args!("delete address {address} from link {ifindex}");
        let request = RouteNetlinkMessage::DelAddress(to_message(ifindex, address));
        match self.socket().request(&operation, request, 0) {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Address {
    pub(crate) fn from_message(message: &AddressMessage) -> Option<Self> {
        let mut local = None;
        let mut peer = None;
        // The header has room for 8 flags only; the attribute is complete.
        let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(address) => local = Some(*address),
                AddressAttribute::Address(address) => peer = Some(*address),
                AddressAttribute::Flags(all) => flags = *all,
                _ => {}
            }
        }
        Some(Self {
            ifindex: message.header.index,
            address: IpNet::new(local.or(peer)?, message.header.prefix_len).ok()?,
            scope: message.header.scope.into(),
            tentative: flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed),
        })
    }
}

impl From<WireScope> for AddressScope {
    fn from(scope: WireScope) -> Self {
        match scope {
            WireScope::Universe => Self::Global,
            WireScope::Site => Self::Site,
            WireScope::Link => Self::Link,
            WireScope::Host => Self::Host,
            other => Self::Other(other.into()),
        }
    }
}

fn to_message(ifindex: u32, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = ifindex;
    message.header.prefix_len = address.prefix_len();
    message.header.family = family(address.addr());
    message.header.scope = scope(address.addr());
    message.attributes = vec![
        AddressAttribute::Local(address.addr()),
        AddressAttribute::Address(address.addr()),
    ];
    if address.addr().is_ipv6() {
        message.header.flags = AddressHeaderFlags::Nodad;
    }
    message
}

/// The scope that the address itself tells.
fn scope(address: IpAddr) -> WireScope {
    match address {
        address if address.is_loopback() => WireScope::Host,
        IpAddr::V6(address) if address.is_unicast_link_local() => WireScope::Link,
        IpAddr::V4(address) if address.is_link_local() => WireScope::Link,
        _ => WireScope::Universe,
    }
}

pub(crate) fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}
