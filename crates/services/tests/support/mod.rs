//! A kernel's tables for tests: rows in memory, written one by one, and read as the programs read them.
//!
//! In memory, since what is tested is what the rows are and in which order they are written; that the kernel's maps hold
//! them is tested where they are written.

#![allow(dead_code, reason = "every test binary uses another part")]

use std::collections::{BTreeMap, BTreeSet};

use tombolo_abi::{Addr, Backend, Frontend, FrontendKey, SLAB_ROW, Slab, SlabRow, SourceRangeKey};
use tombolo_services::{Capacity, Changes, KernelRows};

/// Room for more than any test asks for.
pub const ROOMY: Capacity = Capacity {
    frontends: 262_144,
    slab_rows: 262_144,
    backends: 131_072,
    source_ranges: 16_384,
};

/// How many cases a property is tried with: twenty times as many where there is time (`TOMBOLO_LONG=1`).
pub fn cases(short: u32) -> proptest::test_runner::Config {
    let long = std::env::var_os("TOMBOLO_LONG").is_some_and(|v| v == "1");
    proptest::test_runner::Config {
        cases: if long { 20 * short } else { short },
        failure_persistence: None,
        ..proptest::test_runner::Config::default()
    }
}

/// One write to the kernel.
#[derive(Clone, Debug)]
pub enum Write {
    Backend(u32, Backend),
    SlabRow(u32, SlabRow),
    SourceRange(SourceRangeKey),
    Frontend(FrontendKey, Frontend),
    NoFrontend(FrontendKey),
    NoSourceRange(SourceRangeKey),
}

/// All writes in their order.
pub fn writes(changes: &Changes) -> Vec<Write> {
    let mut all = Vec::new();
    all.extend(
        changes
            .backends_up
            .iter()
            .map(|(id, row)| Write::Backend(*id, *row)),
    );
    all.extend(
        changes
            .slab_rows
            .iter()
            .map(|(at, row)| Write::SlabRow(*at, *row)),
    );
    all.extend(changes.source_ranges.iter().map(|key| Write::SourceRange(*key)));
    all.extend(
        changes
            .frontends
            .iter()
            .map(|(key, row)| Write::Frontend(*key, *row)),
    );
    all.extend(changes.frontends_gone.iter().map(|key| Write::NoFrontend(*key)));
    all.extend(
        changes
            .source_ranges_gone
            .iter()
            .map(|key| Write::NoSourceRange(*key)),
    );
    all.extend(
        changes
            .backends_down
            .iter()
            .map(|(id, row)| Write::Backend(*id, *row)),
    );
    all
}

/// The tables.
#[derive(Clone, Debug, Default)]
pub struct Kernel {
    pub frontends: BTreeMap<FrontendKey, Frontend>,
    pub slab_rows: BTreeMap<u32, SlabRow>,
    pub backends: BTreeMap<u32, Backend>,
    pub source_ranges: BTreeSet<SourceRangeKey>,
}

impl Kernel {
    pub fn write(&mut self, write: &Write) {
        match write {
            Write::Backend(id, row) => drop(self.backends.insert(*id, *row)),
            Write::SlabRow(at, row) => drop(self.slab_rows.insert(*at, *row)),
            Write::SourceRange(key) => assert!(self.source_ranges.insert(*key), "{key:?} is written twice"),
            Write::Frontend(key, row) => drop(self.frontends.insert(*key, *row)),
            Write::NoFrontend(key) => assert!(self.frontends.remove(key).is_some(), "{key:?} is not there"),
            Write::NoSourceRange(key) => assert!(self.source_ranges.remove(key), "{key:?} is not there"),
        }
    }

    pub fn write_all(&mut self, changes: &Changes) {
        writes(changes).iter().for_each(|w| self.write(w));
    }

    /// What a starting agent reads.
    pub fn rows(&self) -> KernelRows {
        KernelRows {
            frontends: self.frontends.clone().into_iter().collect(),
            slab_rows: self.slab_rows.clone().into_iter().collect(),
            backends: self.backends.clone().into_iter().collect(),
            source_ranges: self.source_ranges.iter().copied().collect(),
            affinities: Vec::new(),
        }
    }

    /// A slab's entries, each with the backend that it names.
    pub fn slab(&self, slab: Slab) -> Vec<Backend> {
        let entry = |at: u32| {
            let row = slab.base() + at / SLAB_ROW as u32;
            let row = self
                .slab_rows
                .get(&row)
                .unwrap_or_else(|| panic!("{slab:?}: row {row} was never written"));
            let id = row.backends[at as usize % SLAB_ROW];
            *self
                .backends
                .get(&id)
                .unwrap_or_else(|| panic!("{slab:?}: backend {id} was never written"))
        };
        (0..u32::from(slab.len())).map(entry).collect()
    }

    /// The clients of a number of source ranges.
    pub fn clients(&self, number: u32) -> Option<BTreeSet<(u32, Addr)>> {
        let of = self
            .source_ranges
            .iter()
            .filter(|k| u32::from_be(k.ranges) == number);
        (number != 0).then(|| of.map(|k| (k.prefix_len - 32, k.address)).collect())
    }
}

/// The rows that a slab takes.
pub fn slab_rows(slab: Slab) -> std::ops::Range<u32> {
    slab.base()..slab.base() + u32::from(slab.len()).div_ceil(SLAB_ROW as u32)
}
