//! The tables of Services in the kernel.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tombolo_abi::{Config, capacity};
use tombolo_datapath::{Datapath, Result};
use tombolo_services::{Capacity, Changes, KernelRows};

/// How much they hold.
pub const CAPACITY: Capacity = Capacity {
    frontends: capacity::FRONTENDS,
    slab_rows: capacity::SLAB_ROWS,
    backends: capacity::BACKENDS,
    source_ranges: capacity::SOURCE_RANGES,
};

/// The kernel's side of Services.
pub struct Kernel {
    pub datapath: Arc<Datapath>,
    /// Whether the tables hold frontends, or have held some, and the programs are told to look for them.
    known: Mutex<bool>,
}

impl Kernel {
    /// Reads all that an agent before this one has written.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn adopt(datapath: Arc<Datapath>) -> Result<(Self, KernelRows)> {
        let rows = read(&datapath)?;
        let known = datapath.config()?.flags & Config::SERVICES != 0;
        let kernel = Self {
            datapath,
            known: Mutex::new(known),
        };
        if !rows.frontends.is_empty() {
            kernel.turn_on()?;
        }
        Ok((kernel, rows))
    }

    /// Writes changes, in the one order in which nothing is ever half made. Writing the same once more does no harm.
    ///
    /// # Errors
    /// The kernel refuses; what came before is written.
    pub fn write(&self, changes: &Changes) -> Result<()> {
        let kernel = &self.datapath;
        let ranges: Vec<_> = changes.source_ranges.iter().map(|key| (*key, 1)).collect();
        kernel.backends().write(&changes.backends_up)?;
        kernel.slabs().write(&changes.slab_rows)?;
        kernel.source_ranges().insert_all(&ranges)?;
        kernel.frontends().insert_all(&changes.frontends)?;
        if !changes.frontends.is_empty() {
            self.turn_on()?;
        }
        kernel.frontends().remove_all(&changes.frontends_gone)?;
        kernel.source_ranges().remove_all(&changes.source_ranges_gone)?;
        kernel.backends().write(&changes.backends_down)
    }

    /// Whether the programs look for Services.
    pub fn is_on(&self) -> bool {
        *self.known()
    }

    /// Has the programs look for Services, once and for all.
    fn turn_on(&self) -> Result<()> {
        let mut known = self.known();
        if !*known {
            let mut config = self.datapath.config()?;
            config.flags |= Config::SERVICES;
            self.datapath.set_config(&config)?;
            *known = true;
        }
        Ok(())
    }

    /// Tells the programs of the node. Whether they look for Services is not the caller's to say: flows may be there.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set_config(&self, config: &Config) -> Result<()> {
        let known = self.known();
        let mut config = *config;
        if *known {
            config.flags |= Config::SERVICES;
        }
        if self.datapath.config()? != config {
            self.datapath.set_config(&config)?;
        }
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, bool> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(kernel: &Datapath) -> Result<KernelRows> {
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
