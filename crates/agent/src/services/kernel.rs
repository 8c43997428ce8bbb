//! The tables of Services in the kernel.

use std::collections::BTreeSet;

use tombolo_abi::capacity;
use tombolo_datapath::{Result, Tables};
use tombolo_services::{Capacity, Changes, KernelRows};

/// How much they hold.
pub const CAPACITY: Capacity = Capacity {
    frontends: capacity::FRONTENDS,
    slab_rows: capacity::SLAB_ROWS,
    backends: capacity::BACKENDS,
    source_ranges: capacity::SOURCE_RANGES,
};

/// Reads all that an agent before this one has written.
///
/// # Errors
/// The kernel refuses.
pub fn read(kernel: &Tables) -> Result<KernelRows> {
    let clients = kernel.affinity().entries()?;
    let affinities: BTreeSet<u32> = clients.keys().map(|key| key.affinity).collect();
    Ok(KernelRows {
        frontends: kernel.frontends().entries()?.into_iter().collect(),
        slab_rows: kernel.slabs().used()?.into_iter().collect(),
        backends: kernel.backends().used()?.into_iter().collect(),
        source_ranges: kernel.source_ranges().entries()?.into_keys().collect(),
        affinities: affinities.into_iter().collect(),
    })
}

/// Writes changes, in the one order in which nothing is ever half made. Writing the same once more does no harm.
///
/// # Errors
/// The kernel refuses; what came before is written.
pub fn write(kernel: &Tables, changes: &Changes) -> Result<()> {
    let ranges: Vec<_> = changes.source_ranges.iter().map(|key| (*key, 1)).collect();
    kernel.backends().write(&changes.backends_up)?;
    kernel.slabs().write(&changes.slab_rows)?;
    kernel.source_ranges().insert_all(&ranges)?;
    kernel.frontends().insert_all(&changes.frontends)?;
    kernel.frontends().remove_all(&changes.frontends_gone)?;
    kernel.source_ranges().remove_all(&changes.source_ranges_gone)?;
    kernel.backends().write(&changes.backends_down)
}
