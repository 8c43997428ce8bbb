//! The Network, checked.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv6Net};
use tombolo_kube::{Network, Routing};

use crate::Error;

/// The Network's settings, free of contradictions.
pub(crate) struct Settings {
    pub routing: Routing,
    pub overlay_port: u16,
    pub mtu: Option<u16>,
    pub pools: Vec<IpNet>,
    /// The prefix lengths of the pools' blocks and of the ranges of Services, in bits of the 16 bytes.
    pub prefix_lens: BTreeSet<u8>,
    pub node_cidrs: Vec<IpNet>,
    pub service_cidrs: Vec<IpNet>,
    /// Empty: the primary address of each family.
    pub node_port_addresses: Vec<IpNet>,
}

impl Settings {
    pub fn new(network: &Network) -> Result<Self, Error> {
        let spec = &network.spec;
        let pools: Vec<IpNet> = spec.pools.iter().map(|p| p.cidr.trunc()).collect();
        let node_cidrs: Vec<IpNet> = spec.node_cidrs.iter().map(IpNet::trunc).collect();
        let service_cidrs: Vec<IpNet> = spec.service_cidrs.iter().map(IpNet::trunc).collect();
        let kinds: [(&'static str, &[IpNet]); 4] = [
            ("pool", &pools),
            ("nodeCIDR", &node_cidrs),
            ("serviceCIDR", &service_cidrs),
            ("loadBalancerPool", &spec.load_balancer_pools),
        ];
        let ranges: Vec<(&'static str, IpNet)> = kinds
            .iter()
            .flat_map(|(field, ranges)| ranges.iter().map(|range| (*field, range.trunc())))
            .collect();
        for &(field, range) in &ranges {
            if field != "nodeCIDR" && holds_mapped(range) {
                return Err(Error::MappedRange { range });
            }
        }
        for (i, &(first_field, first)) in ranges.iter().enumerate() {
            // Addresses that a node may claim are the same by whichever nodeCIDR.
            let differs = |field| (first_field, field) != ("nodeCIDR", "nodeCIDR");
            let mut later = ranges[i + 1..].iter().filter(|(field, _)| differs(field));
            if let Some(&(second_field, second)) = later.find(|(_, other)| overlap(first, *other)) {
                return Err(Error::RangesOverlap {
                    first_field,
                    first,
                    second_field,
                    second,
                });
            }
        }
        let block_lens = spec.pools.iter().map(|p| key_len(&p.cidr, p.block_size));
        let service_lens = service_cidrs.iter().map(|c| key_len(c, c.prefix_len()));
        let prefix_lens = block_lens.chain(service_lens).collect();
        Ok(Self {
            routing: spec.routing,
            overlay_port: spec.overlay_port,
            mtu: spec.mtu,
            pools,
            prefix_lens,
            node_cidrs,
            service_cidrs,
            node_port_addresses: spec.node_port_addresses.clone(),
        })
    }

    /// Whether some packets travel in the overlay.
    pub fn overlays(&self) -> bool {
        self.routing != Routing::Direct
    }

    /// Whether `net` lies in a pool.
    pub fn in_pools(&self, net: &IpNet) -> bool {
        self.pools.iter().any(|p| p.contains(net))
    }
}

/// Whether a node may claim this address as its own: it lies within `node_cidrs` and is no loopback,
/// link-local, multicast or unspecified one.
pub fn claimable(node_cidrs: &[IpNet], address: IpAddr) -> bool {
    let usable = match address {
        IpAddr::V4(a) => !a.is_loopback() && !a.is_link_local() && !a.is_multicast() && !a.is_unspecified(),
        IpAddr::V6(a) => {
            !a.is_loopback()
                && !a.is_unicast_link_local()
                && !a.is_multicast()
                && !a.is_unspecified()
                && a.to_ipv4_mapped().is_none()
        }
    };
    usable && node_cidrs.iter().any(|c| c.contains(&address))
}

/// A prefix length in bits of the 16 bytes, as keys have it.
pub(crate) fn key_len(net: &IpNet, prefix_len: u8) -> u8 {
    if net.addr().is_ipv4() {
        prefix_len.saturating_add(96)
    } else {
        prefix_len
    }
}

/// Whether two ranges share an address.
pub(crate) fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

/// Whether this IPv6 range holds addresses that keys have for IPv4 ones.
pub(crate) fn holds_mapped(range: IpNet) -> bool {
    const MAPPED: IpNet = IpNet::V6(Ipv6Net::new_assert(
        std::net::Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0),
        96,
    ));
    overlap(range, MAPPED)
}
