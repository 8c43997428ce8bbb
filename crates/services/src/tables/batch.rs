//! What changed since the changes were taken last.

use std::collections::{BTreeMap, BTreeSet};

use tombolo_abi::{Frontend, FrontendKey, SlabRow, SourceRangeKey};

use super::claims::Slot;

/// Changes that nobody has taken yet.
#[derive(Default)]
pub(super) struct Batch {
    /// Whether there may be any.
    pub open: bool,
    /// What the kernel holds of the frontends that may have changed.
    pub frontends: BTreeMap<FrontendKey, Option<Frontend>>,
    /// How many of them it does not hold.
    pub added: usize,
    pub slab_rows: Vec<(u32, SlabRow)>,
    pub source_ranges: Vec<SourceRangeKey>,
    pub source_ranges_gone: Vec<SourceRangeKey>,
    /// Who may have lost which frontend.
    pub lost: BTreeSet<(Slot, FrontendKey)>,
}
