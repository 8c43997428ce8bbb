//! What an agent before this one wrote: kept as far as it is still right, so that a restart changes nothing.

use std::collections::{BTreeSet, HashMap, HashSet};

use tombolo_abi::{Addr, Backend, Frontend, FrontendKey, SLAB_ROW, Slab, SlabRow, SourceRangeKey};

use super::backends::Named;
use super::numbers::Numbers;
use super::slabs::{Region, Slabs};

/// The rows that the kernel holds.
#[derive(Clone, Debug, Default)]
pub struct KernelRows {
    /// All of FRONTENDS.
    pub frontends: Vec<(FrontendKey, Frontend)>,
    /// Of SLABS those that are not all zero, by index.
    pub slab_rows: Vec<(u32, SlabRow)>,
    /// Of BACKENDS those that are not all zero, by id.
    pub backends: Vec<(u32, Backend)>,
    /// All of SOURCE_RANGES.
    pub source_ranges: Vec<SourceRangeKey>,
    /// The numbers in the keys of AFFINITY (the largest will do).
    pub affinities: Vec<u32>,
}

/// What was written before, and nobody of those who are known has taken over.
#[derive(Default)]
pub(super) struct Inherited {
    pub frontends: HashMap<FrontendKey, Frontend>,
    slab_rows: HashMap<u32, SlabRow>,
    /// Slabs that may be taken over.
    slabs: HashSet<Slab>,
    /// Rows of slabs that overlap another, which nobody takes over.
    odd: Vec<Region>,
    ranges: HashMap<u32, BTreeSet<(u32, Addr)>>,
    affinities: HashSet<u32>,
}

/// What is left when all Services are known.
pub(super) struct Leftover {
    pub regions: Vec<Region>,
    pub ranges: Vec<SourceRangeKey>,
    pub range_numbers: Vec<u32>,
    pub affinities: Vec<u32>,
}

impl Inherited {
    /// Marks what the rows take as taken.
    pub fn new(
        frontends: Vec<(FrontendKey, Frontend)>,
        slab_rows: Vec<(u32, SlabRow)>,
        source_ranges: &[SourceRangeKey],
        slabs: &mut Slabs,
        affinities: &mut Numbers,
        range_numbers: &mut Numbers,
    ) -> Self {
        let mut inherited = Self::default();
        let words: BTreeSet<(u32, Slab)> = frontends
            .iter()
            .flat_map(|(_, f)| [f.internal, f.external])
            .filter(|s| !s.is_empty())
            .map(|s| (s.base(), s))
            .collect();
        let mut end = 0;
        for (_, slab) in words {
            let region = Region::of(slab);
            if region.end() as usize > slabs.capacity() {
                continue;
            }
            if region.base >= end {
                slabs.reserve(region);
                slabs.learn_generation(slab);
                inherited.slabs.insert(slab);
            } else if region.end() > end {
                let rest = Region {
                    base: end,
                    rows: region.end() - end,
                };
                slabs.reserve(rest);
                inherited.odd.push(rest);
            }
            end = end.max(region.end());
        }
        // Rows that are written and not named were freed lately, for all that is known.
        for (row, _) in &slab_rows {
            let region = Region { base: *row, rows: 1 };
            if slabs.reserve(region) {
                slabs.give_back(region);
            }
        }
        for key in source_ranges {
            let rows = inherited.ranges.entry(u32::from_be(key.ranges)).or_default();
            rows.insert((key.prefix_len, key.address));
        }
        for (_, row) in &frontends {
            if row.affinity != 0 {
                inherited.affinities.insert(row.affinity);
            }
            // Ranges may let in nobody, and then have no rows.
            if row.source_ranges != 0 {
                inherited.ranges.entry(row.source_ranges).or_default();
            }
        }
        inherited.affinities.iter().for_each(|n| affinities.adopt(*n));
        inherited.ranges.keys().for_each(|n| range_numbers.adopt(*n));
        inherited.slab_rows = slab_rows.into_iter().collect();
        inherited.frontends = frontends.into_iter().collect();
        inherited
    }

    /// The host ports among the frontends.
    pub fn host_ports(&self) -> impl Iterator<Item = FrontendKey> {
        let of_pods = self.frontends.iter().filter(|(_, row)| is_host_port(row));
        of_pods.map(|(key, _)| *key)
    }

    /// The backends that frontends name.
    pub fn named(&self) -> Named {
        let mut named = Named::default();
        for row in self.frontends.values() {
            let by = if is_host_port(row) {
                &mut named.by_host_ports
            } else {
                &mut named.by_services
            };
            by.extend(self.backends_of(row));
        }
        named
    }

    /// The backends that a frontend names, by id.
    pub fn backends_of(&self, row: &Frontend) -> HashSet<u32> {
        let slabs = [row.internal, row.external].into_iter();
        // Where a slab overlaps another, its entries are not its own.
        let slabs = slabs.filter(|slab| self.slabs.contains(slab));
        slabs.flat_map(|slab| self.entries(slab)).collect()
    }

    fn entries(&self, slab: Slab) -> impl Iterator<Item = u32> {
        let region = Region::of(slab);
        let rows = (region.base..region.end()).filter_map(|at| self.slab_rows.get(&at));
        rows.flat_map(|row| row.backends).filter(|id| *id != 0)
    }

    /// Takes over a slab that a frontend names, if it is free to be taken and has just these entries.
    pub fn take_slab(&mut self, slab: Slab, entries: &[u32]) -> bool {
        if usize::from(slab.len()) != entries.len() || !self.slabs.contains(&slab) {
            return false;
        }
        let rows = (slab.base()..).zip(entries.chunks(SLAB_ROW));
        let mut same = rows.map(|(at, part)| {
            let row = self.slab_rows.get(&at);
            row.is_some_and(|r| r.backends[..part.len()] == *part)
        });
        same.all(|s| s) && self.slabs.remove(&slab)
    }

    /// Puts back a slab which was taken over in vain.
    pub fn undo_slab(&mut self, slab: Slab) {
        self.slabs.insert(slab);
    }

    /// Takes over a number of affinity.
    pub fn take_affinity(&mut self, number: u32) -> bool {
        self.affinities.remove(&number)
    }

    /// Whether a number of source ranges may be taken over, and has just these rows.
    pub fn has_ranges(&self, number: u32, keys: impl Iterator<Item = SourceRangeKey>) -> bool {
        let wanted: BTreeSet<(u32, Addr)> = keys.map(|k| (k.prefix_len, k.address)).collect();
        self.ranges.get(&number) == Some(&wanted)
    }

    /// Takes over a number of source ranges with its rows.
    pub fn take_ranges(&mut self, number: u32) {
        self.ranges.remove(&number);
    }

    /// Whether what a row names is all there still.
    pub fn is_whole(&self, row: &Frontend) -> bool {
        let has = |slab: &Slab| slab.is_empty() || self.slabs.contains(slab);
        let numbered = |number: u32, all: bool| number == 0 || all;
        has(&row.internal)
            && has(&row.external)
            && numbered(row.affinity, self.affinities.contains(&row.affinity))
            && numbered(row.source_ranges, self.ranges.contains_key(&row.source_ranges))
    }

    /// Ends the inheritance, but for these frontends and all that they name.
    pub fn take_leftover(&mut self, kept: &HashSet<FrontendKey>) -> Leftover {
        self.frontends.retain(|key, _| kept.contains(key));
        let (mut slabs, mut affinities, mut numbers) = (HashSet::new(), HashSet::new(), HashSet::new());
        for row in self.frontends.values() {
            slabs.extend([row.internal, row.external]);
            affinities.insert(row.affinity);
            numbers.insert(row.source_ranges);
        }
        let regions = self
            .slabs
            .extract_if(|slab| !slabs.contains(slab))
            .map(Region::of);
        let regions = regions.chain(self.odd.drain(..)).collect();
        let affinities = self.affinities.extract_if(|n| !affinities.contains(n)).collect();
        let ranges: Vec<_> = self.ranges.extract_if(|n, _| !numbers.contains(n)).collect();
        if self.slabs.is_empty() {
            self.slab_rows = HashMap::new();
        }
        let keys = |(number, rows): &(u32, BTreeSet<(u32, Addr)>)| {
            let ranges = number.to_be();
            let key = move |&(prefix_len, address): &(u32, Addr)| SourceRangeKey {
                prefix_len,
                ranges,
                address,
            };
            rows.iter().map(key).collect::<Vec<_>>()
        };
        Leftover {
            regions,
            ranges: ranges.iter().flat_map(keys).collect(),
            range_numbers: ranges.iter().map(|(number, _)| *number).collect(),
            affinities,
        }
    }
}

fn is_host_port(row: &Frontend) -> bool {
    row.flags & Frontend::HOST_PORT != 0
}
