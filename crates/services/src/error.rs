use std::time::Duration;

use crate::Owner;

/// Why a Service, or what a pod has of host ports, could not be taken in. What was before stays: it keeps the rows that
/// it has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A table of the kernel has no room for it.
    #[error(
        "{owner} stays as it is on this node: it needs {needed} more {what}, and {free} of {capacity} are free; remove Services or endpoints that nobody needs"
    )]
    Full {
        /// Whose frontends these are.
        owner: Owner,
        /// What there is too little of.
        what: Resource,
        /// How many more it needs (of slab rows: in a row).
        needed: usize,
        /// How many are free.
        free: usize,
        /// How many there are.
        capacity: usize,
    },
    /// There is room, but it was given back so lately that packets on their way may still refer to it.
    #[error(
        "{owner} stays as it is on this node for now: it needs {needed} more {what}, and those that are free rest {} s before reuse; many changes at once do this, and another try will do",
        rest.as_secs()
    )]
    Resting {
        /// Whose frontends these are.
        owner: Owner,
        /// What there is too little of.
        what: Resource,
        /// How many more it needs.
        needed: usize,
        /// For how long they rest.
        rest: Duration,
    },
}

/// What a Service takes of the kernel's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Rows of [`FRONTENDS`](tombolo_abi::FrontendKey).
    Frontends,
    /// Rows of [`SLABS`](tombolo_abi::SlabRow).
    SlabRows,
    /// Ids of [`BACKENDS`](tombolo_abi::Backend).
    Backends,
    /// Rows of [`SOURCE_RANGES`](tombolo_abi::SourceRangeKey).
    SourceRanges,
}

impl std::fmt::Display for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Frontends => "rows of frontends (addresses and ports)",
            Self::SlabRows => "rows of slabs (sets of backends)",
            Self::Backends => "backend ids",
            Self::SourceRanges => "rows of source ranges",
        })
    }
}
