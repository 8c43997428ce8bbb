//! Routes of the main table, and where the kernel would send a packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteScope, RouteType,
    RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;

use crate::address::family;
use crate::{Error, Netlink, Result};

/// The protocol number (rtnetlink(7), `rtm_protocol`) that tells Tombolo's routes from everybody else's: `t`.
pub const ROUTE_PROTOCOL: u8 = 0x74;

/// A route of the main table. Its scope follows from the rest: link without a gateway, global with one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Where to; host bits are zero.
    pub destination: IpNet,
    /// What happens to the packets.
    pub kind: RouteKind,
    /// The link that they leave by. None: the kernel finds the gateway's; always none when unreachable.
    pub ifindex: Option<u32>,
    /// The next hop. That of an IPv4 route may be an IPv6 address (RFC 5549), not the other way around.
    pub gateway: Option<IpAddr>,
    /// The source address of what this node sends there.
    pub source: Option<IpAddr>,
    /// Take the gateway to be on the link even when no route says so.
    pub onlink: bool,
    /// The path's MTU in bytes, where it is less than the link's.
    pub mtu: Option<u32>,
    /// Who made the route: [`ROUTE_PROTOCOL`] for Tombolo.
    pub protocol: u8,
}

/// What happens to packets that a route takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteKind {
    /// They are sent on.
    Unicast,
    /// They are answered with ICMP host unreachable, or ICMPv6 no route.
    Unreachable,
    /// Anything else, by the kernel's number (linux/rtnetlink.h, `RTN_*`).
    Other(u8),
}

/// Where the kernel would send a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// The link that it would leave by.
    pub ifindex: u32,
    /// The next hop; none when the destination itself is on the link.
    pub gateway: Option<IpAddr>,
    /// The source address that it would have.
    pub source: Option<IpAddr>,
    /// Whether it would go to this namespace itself.
    pub local: bool,
}

impl Route {
    /// A unicast route of Tombolo's; the rest is for the caller to fill in.
    pub fn new(destination: IpNet) -> Self {
        Self {
            destination: destination.trunc(),
            kind: RouteKind::Unicast,
            ifindex: None,
            gateway: None,
            source: None,
            onlink: false,
            mtu: None,
            protocol: ROUTE_PROTOCOL,
        }
    }

    /// A route of Tombolo's that refuses what no longer prefix takes.
    pub fn unreachable(destination: IpNet) -> Self {
        Self {
            kind: RouteKind::Unreachable,
            ..Self::new(destination)
        }
    }
}

impl Netlink {
    /// The routes of both families in the main table that a protocol has made; 0 for all.
    pub fn routes(&mut self, protocol: u8) -> Result<Vec<Route>> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            // With strict checks on, the kernel lists this protocol's routes only.
            message.header.protocol = protocol.into();
            let request = RouteNetlinkMessage::GetRoute(message);
            routes.extend(
                self.socket()
                    .dump(&"list routes", request, |answer| match answer {
                        RouteNetlinkMessage::NewRoute(message) => Route::from_message(&message),
                        _ => None,
                    })?,
            );
        }
        // A kernel that does not know the filter lists everything.
        routes.retain(|route| protocol == 0 || route.protocol == protocol);
        Ok(routes)
    }

    /// Makes a route, in place of the one to the same destination.
    pub fn replace_route(&mut self, route: &Route) -> Result<()> {
        let operation = format_args!("set route to {}", route.destination);
        let message = route.to_message().map_err(|reason| Error::Invalid {
            operation: operation.to_string(),
            reason,
        })?;
        let request = RouteNetlinkMessage::NewRoute(message);
        self.socket()
            .request(&operation, request, NLM_F_CREATE | NLM_F_REPLACE)
            .map(drop)
    }

    /// Deletes the route that has all that is given here. False: there was none.
    pub fn delete_route(&mut self, route: &Route) -> Result<bool> {
        let operation = format_args!("delete route to {}", route.destination);
        let mut message = route.to_message().map_err(|reason| Error::Invalid {
            operation: operation.to_string(),
            reason,
        })?;
        // In deletions, this stands for any scope.
        message.header.scope = RouteScope::NoWhere;
        match self
            .socket()
            .request(&operation, RouteNetlinkMessage::DelRoute(message), 0)
        {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Asks the kernel where a packet of this node to `to` would go. None: nowhere, no route takes it.
    pub fn route_to(&mut self, to: IpAddr) -> Result<Option<Reach>> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(to);
        message.header.destination_prefix_length = if to.is_ipv4() { 32 } else { 128 };
        message.attributes.push(RouteAttribute::Destination(to.into()));
        let request = RouteNetlinkMessage::GetRoute(message);
        let answers = match self
            .socket()
            .request(&format_args!("find the route to {to}"), request, 0)
        {
            Ok(answers) => answers,
            // No route, unreachable, prohibit and blackhole.
            Err(error)
                if matches!(
                    error.errno(),
                    Some(Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EACCES | Errno::EINVAL)
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let route = answers.iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewRoute(message) => Route::from_attributes(message),
            _ => None,
        });
        // The kernel answers for the IPv6 unreachable routes too, with their type and the loopback device.
        Ok(route
            .filter(|route| route.kind != RouteKind::Unreachable)
            .and_then(|route| {
                Some(Reach {
                    ifindex: route.ifindex?,
                    gateway: route.gateway,
                    source: route.source,
                    local: route.kind == RouteKind::Other(libc::RTN_LOCAL),
                })
            }))
    }
}

impl Route {
    /// None: a route of another table.
    pub(crate) fn from_message(message: &RouteMessage) -> Option<Self> {
        let in_attribute = message.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Table(table) => Some(*table),
            _ => None,
        });
        let table = in_attribute.unwrap_or(message.header.table.into());
        let cloned = message.header.flags.contains(RouteFlags::Cloned);
        (table == RouteHeader::RT_TABLE_MAIN.into() && !cloned).then(|| Self::from_attributes(message))?
    }

    fn from_attributes(message: &RouteMessage) -> Option<Self> {
        let any: IpAddr = match message.header.address_family {
            AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
            AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
            _ => return None,
        };
        let destination = IpNet::new(any, message.header.destination_prefix_length).ok()?;
        let mut route = Self::new(destination);
        route.kind = message.header.kind.into();
        route.protocol = message.header.protocol.into();
        route.onlink = message.header.flags.contains(RouteFlags::Onlink);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(address) => {
                    route.destination = IpNet::new(ip(address)?, destination.prefix_len()).ok()?;
                }
                RouteAttribute::Oif(index) => route.ifindex = Some(*index),
                RouteAttribute::Gateway(address) => route.gateway = ip(address),
                RouteAttribute::Via(RouteVia::Inet6(address)) => route.gateway = Some((*address).into()),
                RouteAttribute::Via(RouteVia::Inet(address)) => route.gateway = Some((*address).into()),
                RouteAttribute::PrefSource(address) => route.source = ip(address),
                RouteAttribute::Metrics(metrics) => {
                    route.mtu = metrics.iter().find_map(|metric| match metric {
                        RouteMetric::Mtu(mtu) => Some(*mtu),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        if route.kind == RouteKind::Unreachable {
            // IPv6 names the loopback device, IPv4 none.
            route.ifindex = None;
        }
        Some(route)
    }

    fn to_message(&self) -> Result<RouteMessage, &'static str> {
        let destination = self.destination.trunc();
        let mut message = RouteMessage::default();
        message.header = RouteHeader {
            address_family: family(destination.addr()),
            destination_prefix_length: destination.prefix_len(),
            table: RouteHeader::RT_TABLE_MAIN,
            protocol: self.protocol.into(),
            scope: match self.kind {
                RouteKind::Unicast if self.gateway.is_none() => RouteScope::Link,
                _ => RouteScope::Universe,
            },
            kind: self.kind.into(),
            flags: if self.onlink {
                RouteFlags::Onlink
            } else {
                RouteFlags::empty()
            },
            ..RouteHeader::default()
        };
        let attributes = &mut message.attributes;
        attributes.push(RouteAttribute::Destination(destination.addr().into()));
        attributes.extend(self.ifindex.map(RouteAttribute::Oif));
        attributes.extend(match (destination.addr(), self.gateway) {
            (IpAddr::V4(_), Some(IpAddr::V6(gateway))) => Some(RouteAttribute::Via(gateway.into())),
            (IpAddr::V6(_), Some(IpAddr::V4(_))) => return Err("an IPv6 route cannot have an IPv4 gateway"),
            (_, gateway) => gateway.map(|gateway| RouteAttribute::Gateway(gateway.into())),
        });
        attributes.extend(
            self.source
                .map(|source| RouteAttribute::PrefSource(source.into())),
        );
        attributes.extend(
            self.mtu
                .map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)])),
        );
        Ok(message)
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

impl From<RouteType> for RouteKind {
    fn from(kind: RouteType) -> Self {
        match kind {
            RouteType::Unicast => Self::Unicast,
            RouteType::Unreachable => Self::Unreachable,
            other => Self::Other(other.into()),
        }
    }
}

impl From<RouteKind> for RouteType {
    fn from(kind: RouteKind) -> Self {
        match kind {
            RouteKind::Unicast => Self::Unicast,
            RouteKind::Unreachable => Self::Unreachable,
            RouteKind::Other(number) => number.into(),
        }
    }
}
