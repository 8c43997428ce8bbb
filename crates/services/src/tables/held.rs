//! What the tables hold of a Service, or of a pod's host ports.

use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::jiff::Timestamp;
use tombolo_abi::{Addr, Frontend, FrontendKey, Slab, SourceRangeKey};

use super::backends::Key;
use crate::Owner;
use crate::compiled::{Family, Port, Spread};

/// A Service, or a pod's host ports.
pub(super) struct Held {
    pub owner: Arc<Owner>,
    pub created: Option<Timestamp>,
    pub ports: Vec<HeldPort>,
    pub ranges: Vec<HeldRanges>,
    /// What it wants in FRONTENDS, by key.
    pub rows: Vec<(FrontendKey, Frontend)>,
}

/// A port in one family.
pub(super) struct HeldPort {
    pub name: Box<str>,
    pub protocol: u8,
    pub family: Family,
    /// 0: none.
    pub affinity: u32,
    /// Each with whether this port says that it serves.
    pub backends: Box<[(Key, bool)]>,
    pub slabs: Vec<HeldSlab>,
}

/// A set of backends, and where it stands.
pub(super) struct HeldSlab {
    pub slab: Slab,
    pub spread: Spread,
    pub members: Box<[u32]>,
}

/// The clients that a family's limited frontends let in.
pub(super) struct HeldRanges {
    pub family: Family,
    pub number: u32,
    pub ranges: Vec<IpNet>,
}

impl Held {
    /// What the owner wants in a row.
    pub fn row(&self, key: &FrontendKey) -> Option<Frontend> {
        let at = self.rows.binary_search_by(|(k, _)| k.cmp(key)).ok()?;
        Some(self.rows[at].1)
    }

    /// Whether this one gets what both claim.
    pub fn goes_before(&self, other: &Self) -> bool {
        let rank = |h: &Self| (h.owner.pod().is_none(), h.created.is_none(), h.created);
        (rank(self), &self.owner) < (rank(other), &other.owner)
    }

    /// The port that is `port`.
    pub fn port(&self, port: &Port) -> Option<&HeldPort> {
        let is_it =
            |p: &&HeldPort| *p.name == *port.name && p.protocol == port.protocol && p.family == port.family;
        self.ports.iter().find(is_it)
    }

    /// The ranges of a family.
    pub fn ranges(&self, family: Family) -> Option<&HeldRanges> {
        self.ranges.iter().find(|r| r.family == family)
    }
}

impl HeldPort {
    /// Where the set stands, if it is among these.
    pub fn slab(&self, spread: Spread, members: &[u32]) -> Option<Slab> {
        let is_it = |s: &&HeldSlab| s.spread == spread && *s.members == *members;
        self.slabs.iter().find(is_it).map(|s| s.slab)
    }
}

impl HeldRanges {
    /// The rows that these ranges are.
    pub fn keys(&self) -> impl Iterator<Item = SourceRangeKey> {
        self.ranges.iter().map(|r| range_key(self.number, r))
    }
}

/// The row of a range.
pub(super) fn range_key(number: u32, range: &IpNet) -> SourceRangeKey {
    let family_bits = if range.addr().is_ipv4() { 96 } else { 0 };
    SourceRangeKey {
        // The bits of the number, those that all addresses of the family share, and those of the range.
        prefix_len: 32 + family_bits + u32::from(range.prefix_len()),
        ranges: number.to_be(),
        address: Addr::from(range.network()),
    }
}
