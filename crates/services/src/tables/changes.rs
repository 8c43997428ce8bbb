//! What to write, and in which order.

use tombolo_abi::{Backend, BackendState, Frontend, FrontendKey, SlabRow, SourceRangeKey};

use crate::{Owner, Place, ServiceName};

/// What to write so that the kernel holds what the tables say, **in the order of the fields**. Stopped anywhere, each
/// Service has the frontends and backends that it had before or those that it is to have: nothing is named that is not
/// written, and nothing is taken away that is named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Rows of [`BACKENDS`](tombolo_abi::Backend), by id: new ones, and those that serve again.
    pub backends_up: Vec<(u32, Backend)>,
    /// Rows of [`SLABS`](tombolo_abi::SlabRow), by index. No frontend names them yet.
    pub slab_rows: Vec<(u32, SlabRow)>,
    /// New rows of [`SOURCE_RANGES`](tombolo_abi::SourceRangeKey), of value 1.
    pub source_ranges: Vec<SourceRangeKey>,
    /// New and changed rows of [`FRONTENDS`](tombolo_abi::Frontend).
    pub frontends: Vec<(FrontendKey, Frontend)>,
    /// Rows of [`FRONTENDS`](tombolo_abi::Frontend) to remove.
    pub frontends_gone: Vec<FrontendKey>,
    /// Rows of [`SOURCE_RANGES`](tombolo_abi::SourceRangeKey) to remove.
    pub source_ranges_gone: Vec<SourceRangeKey>,
    /// Rows of [`BACKENDS`](tombolo_abi::Backend), by id, of those that serve no longer or are gone. One that is gone
    /// keeps its address in its row, so that a later agent knows that the id was used.
    pub backends_down: Vec<(u32, Backend)>,
    /// Claims that were lost: worth an event.
    pub conflicts: Vec<Conflict>,
}

impl Changes {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.writes() == 0
    }

    /// How many rows are written or removed.
    pub fn writes(&self) -> usize {
        self.backends_up.len()
            + self.slab_rows.len()
            + self.source_ranges.len()
            + self.frontends.len()
            + self.frontends_gone.len()
            + self.source_ranges_gone.len()
            + self.backends_down.len()
    }

    /// Backends that are gone: whatever still talks to them ends.
    pub fn backends_gone(&self) -> impl Iterator<Item = &(u32, Backend)> {
        let down = self.backends_down.iter();
        down.filter(|(_, b)| b.state == BackendState::Gone as u8)
    }
}

/// A Service that does not get what an older one has, or a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    /// Who does not get it.
    pub service: ServiceName,
    /// Who has it.
    pub winner: Owner,
    /// What it is.
    pub place: Place,
}

impl std::fmt::Display for Conflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            service,
            winner,
            place,
        } = self;
        match winner {
            Owner::Service(winner) => write!(
                f,
                "{place} is Service {winner}'s, which is older, or as old and first by name; remove it there, or give Service {service} another"
            ),
            Owner::Pod(pod) => write!(
                f,
                "{place} is a host port of {pod} on this node, which goes before Services; take it from the pod, or give Service {service} another"
            ),
        }
    }
}
