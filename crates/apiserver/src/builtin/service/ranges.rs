//! What a cluster gives to its Services.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::spec::{IPV4, IPV6};
use crate::random;

/// Of a range of addresses, so many are given out at most: what is searched when it is full.
const MOST_ADDRESSES: u128 = 1 << 20;

/// Where the addresses and node ports of Services come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRanges {
    /// A range of addresses for each IP family that Services can be of; the first is that of Services that do not
    /// say. Of two of one family, only the first is used.
    pub cidrs: Vec<IpNet>,
    /// The ports that nodes keep free for Services.
    pub node_ports: RangeInclusive<u16>,
}

impl Default for ServiceRanges {
    /// Both families, IPv4 first, and the node ports of Kubernetes.
    fn default() -> Self {
        Self {
            cidrs: vec![
                IpNet::new_assert(Ipv4Addr::new(10, 96, 0, 0).into(), 16),
                IpNet::new_assert(Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0).into(), 112),
            ],
            node_ports: 30_000..=32_767,
        }
    }
}

impl ServiceRanges {
    /// The families, the one for Services that do not say first.
    pub(super) fn families(&self) -> Vec<&'static str> {
        let mut families: Vec<&str> = Vec::new();
        for cidr in &self.cidrs {
            let family = if cidr.addr().is_ipv4() { IPV4 } else { IPV6 };
            if !families.contains(&family) {
                families.push(family);
            }
        }
        families
    }

    /// The range of a family.
    pub(super) fn of(&self, family: &str) -> Option<IpNet> {
        let is_of = |cidr: &&IpNet| cidr.addr().is_ipv4() == (family == IPV4);
        self.cidrs
            .iter()
            .find(is_of)
            .filter(|_| family == IPV4 || family == IPV6)
            .copied()
    }

    /// A free address of a range, by chance. The lower addresses, which people like to choose, come last
    /// (KEP-3070).
    pub(super) fn free_address(cidr: IpNet, is_free: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        let size = usable(cidr).min(MOST_ADDRESSES) as u32;
        let reserved = if size < 16 { 0 } else { (size / 16).clamp(16, 256) };
        pick(size, reserved.min(size), |i| is_free(address(cidr, i))).map(|i| address(cidr, i))
    }

    /// Whether an address is one that the range gives out.
    pub(super) fn holds(cidr: IpNet, ip: IpAddr) -> bool {
        let edge = |edge: IpAddr| edge == ip;
        cidr.contains(&ip) && !edge(cidr.network()) && !(ip.is_ipv4() && edge(cidr.broadcast()))
    }

    /// A free node port, by chance; the lower ones last (KEP-3668).
    pub(super) fn free_node_port(&self, is_free: impl Fn(u16) -> bool) -> Option<u16> {
        let size = u32::from(self.node_ports.end().checked_sub(*self.node_ports.start())?) + 1;
        let reserved = if size < 16 { 0 } else { (size / 32).clamp(16, 128) };
        let port = |i: u32| *self.node_ports.start() + i as u16;
        pick(size, reserved.min(size), |i| is_free(port(i))).map(port)
    }
}

/// How many addresses a range gives out: all but the first, and of IPv4 the last.
fn usable(cidr: IpNet) -> u128 {
    let bits = u32::from(cidr.max_prefix_len() - cidr.prefix_len());
    let all = 1u128.checked_shl(bits).unwrap_or(u128::MAX);
    all.saturating_sub(if cidr.addr().is_ipv4() { 2 } else { 1 })
}

/// The address number `index` that a range gives out.
fn address(cidr: IpNet, index: u32) -> IpAddr {
    match cidr.network() {
        IpAddr::V4(first) => Ipv4Addr::from_bits(first.to_bits().wrapping_add(index + 1)).into(),
        IpAddr::V6(first) => Ipv6Addr::from_bits(first.to_bits().wrapping_add(u128::from(index) + 1)).into(),
    }
}

/// A free one of the numbers below `size`: from a random one of those above `reserved` on, then the reserved.
fn pick(size: u32, reserved: u32, is_free: impl Fn(u32) -> bool) -> Option<u32> {
    let open = size - reserved;
    let start = if open == 0 { 0 } else { random::below(open) };
    let above = (0..open).map(|i| reserved + (start.wrapping_add(i)) % open);
    above.chain(0..reserved).find(|i| is_free(*i))
}
