//! How packets get to another node.

use std::net::IpAddr;

use tombolo_abi::{Addr, Route, RouteKind, Way};
use tombolo_kube::Routing;

use crate::members::Member;
use crate::mtu::{clamp, overhead};
use crate::settings::Settings;
use crate::{KernelRoute, Local, Reach};

/// How packets of one family get to another node.
#[derive(Clone, Copy)]
pub(crate) enum Path {
    Direct {
        ifindex: u32,
        next_hop: IpAddr,
        mtu: u16,
    },
    Overlay {
        ifindex: u32,
        endpoint: IpAddr,
        /// The way to the endpoint, where the kernel has one.
        underlay: Option<Reach>,
        mtu: u16,
    },
}

/// Why there is no path to another node.
pub(crate) enum NoPath {
    /// It comes about by itself: the node has said nothing yet, or the overlay device is being made.
    NotYet,
    /// A person has to do something.
    Broken(String),
}

/// Finds paths from this node to others.
pub(crate) struct Paths<'a> {
    pub settings: &'a Settings,
    pub local: &'a Local,
    pub own: &'a Member<'a>,
    pub pod_mtu: u16,
}

impl Paths<'_> {
    /// The path of packets of one family to `other`.
    ///
    /// Both nodes of a pair decide alike: by the addresses that both publish, and by whether these
    /// are on-link, which is the same seen from either side.
    pub fn find(&self, other: &Member<'_>, v4: bool) -> Result<Path, NoPath> {
        if other.addresses.is_empty() {
            return Err(NoPath::NotYet);
        }
        // The kernel resolves next hops of the packet's own family for both, so it comes first.
        let target = self.shared(other, [v4, !v4])?;
        let reach = self.local.reach.get(&target);
        let direct = match self.settings.routing {
            Routing::Direct => true,
            Routing::Vxlan => false,
            Routing::Auto => reach.is_some_and(|r| r.gateway.is_none()),
        };
        if !direct {
            return self.overlay(other);
        }
        let reach = reach.ok_or_else(|| {
            NoPath::Broken(format!(
                "this node has no route to its address {target}; add one, or use routing auto"
            ))
        })?;
        let mtu = self.link_mtu(reach.ifindex).unwrap_or(u32::MAX);
        let next_hop = reach.gateway.unwrap_or(target);
        Ok(Path::Direct {
            ifindex: reach.ifindex,
            next_hop,
            mtu: self.mtu_to(other, mtu),
        })
    }

    /// The router on the direct way to `other`. Whether it knows where pods are, this node cannot tell.
    pub fn direct_past_router(&self, other: &Member<'_>) -> Option<IpAddr> {
        if self.settings.routing != Routing::Direct {
            return None;
        }
        let ways = [true, false].map(|v4| self.shared(other, [v4, !v4]).ok());
        let mut gateways = ways
            .iter()
            .flatten()
            .filter_map(|target| self.local.reach.get(target)?.gateway);
        gateways.next()
    }

    fn overlay(&self, other: &Member<'_>) -> Result<Path, NoPath> {
        let endpoint = self.shared(other, [true, false])?;
        let ifindex = self.local.overlay_ifindex.ok_or(NoPath::NotYet)?;
        let underlay = self.local.reach.get(&endpoint).copied();
        let link = underlay.and_then(|r| self.link_mtu(r.ifindex));
        let mtu = link.map_or(u32::MAX, |mtu| mtu.saturating_sub(overhead(endpoint.is_ipv4())));
        Ok(Path::Overlay {
            ifindex,
            endpoint,
            underlay,
            mtu: self.mtu_to(other, mtu),
        })
    }

    /// The other node's primary address of the first family in which both nodes have one.
    fn shared(&self, other: &Member<'_>, families: [bool; 2]) -> Result<IpAddr, NoPath> {
        let mut usable = families.into_iter().filter(|&v4| self.own.primary(v4).is_some());
        usable.find_map(|v4| other.primary(v4)).ok_or_else(|| {
            NoPath::Broken(
                "it and this node have no address of the same family within the Network's nodeCIDRs".into(),
            )
        })
    }

    fn link_mtu(&self, ifindex: u32) -> Option<u32> {
        self.local
            .uplinks
            .iter()
            .find(|u| u.ifindex == ifindex)
            .map(|u| u.mtu)
    }

    /// The largest packet up to and including the other node's pods.
    fn mtu_to(&self, other: &Member<'_>, path: u32) -> u16 {
        let theirs = if other.pod_mtu == 0 {
            u16::MAX
        } else {
            other.pod_mtu
        };
        self.pod_mtu.min(theirs).min(clamp(path))
    }
}

impl Path {
    /// The row for a prefix of node `node` at the end of this path.
    pub fn row(&self, node: u32, kind: RouteKind) -> Route {
        let row = Route {
            node,
            kind: kind as u8,
            ..Route::default()
        };
        match *self {
            Self::Direct {
                ifindex,
                next_hop,
                mtu,
            } => Route {
                way: Way::Direct as u8,
                mtu,
                ifindex,
                next_hop: next_hop.into(),
                ..row
            },
            Self::Overlay {
                ifindex,
                endpoint,
                underlay,
                mtu,
            } => Route {
                way: Way::Overlay as u8,
                mtu,
                ifindex,
                next_hop: endpoint.into(),
                underlay_ifindex: underlay.map_or(0, |u| u.ifindex),
                underlay_next_hop: underlay
                    .map_or(Addr::UNSPECIFIED, |u| u.gateway.unwrap_or(endpoint).into()),
                ..row
            },
        }
    }

    /// Whether the overlay device's own route and MTU do for this path.
    pub fn is_plain_overlay(&self, device_mtu: u16) -> bool {
        matches!(*self, Self::Overlay { mtu, .. } if mtu == device_mtu)
    }

    /// The kernel's route for a block of a family at the end of this path; none where the kernel
    /// cannot express it (an IPv6 destination by an IPv4 next hop).
    pub fn kernel_route(&self, v4: bool, source: Option<IpAddr>) -> Option<KernelRoute> {
        match *self {
            Self::Direct {
                ifindex,
                next_hop,
                mtu,
            } if v4 || next_hop.is_ipv6() => Some(KernelRoute::Direct {
                ifindex,
                next_hop,
                source,
                mtu,
            }),
            Self::Direct { .. } => None,
            Self::Overlay { mtu, .. } => Some(KernelRoute::Overlay { source, mtu }),
        }
    }
}
