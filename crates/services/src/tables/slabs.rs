//! Where slabs stand: the allocator of the rows of SLABS.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use tombolo_abi::{SLAB_ROW, Slab};

/// For how long the rows of a slab that no frontend names are left alone: a program may have read the frontend before,
/// and reads the slab still. Programs run for microseconds.
pub(super) const REST: Duration = Duration::from_secs(5);

/// Rows beside each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Region {
    pub base: u32,
    pub rows: u32,
}

impl Region {
    /// The rows of a slab.
    pub fn of(slab: Slab) -> Self {
        Self {
            base: slab.base(),
            rows: rows(slab.len().into()) as u32,
        }
    }

    /// The row after the last one.
    pub fn end(self) -> u32 {
        self.base.saturating_add(self.rows)
    }
}

/// How many rows a slab of so many entries takes.
pub(super) fn rows(len: usize) -> usize {
    len.div_ceil(SLAB_ROW)
}

/// All rows.
pub(super) struct Slabs {
    capacity: u32,
    /// Free regions, none beside another: by base, and by length.
    free: BTreeMap<u32, u32>,
    by_len: BTreeSet<(u32, u32)>,
    /// Freed by changes that may not be in the kernel yet.
    freed: Vec<Region>,
    resting: VecDeque<(Instant, Region)>,
    /// Of the last slab that began at a row; rows past the end had none.
    generations: Vec<u16>,
}

impl Slabs {
    /// Rows of which all are free.
    pub fn new(capacity: usize) -> Self {
        let mut slabs = Self {
            capacity: capacity as u32,
            free: BTreeMap::new(),
            by_len: BTreeSet::new(),
            freed: Vec::new(),
            resting: VecDeque::new(),
            generations: Vec::new(),
        };
        slabs.insert(Region {
            base: 0,
            rows: capacity as u32,
        });
        slabs
    }

    /// What was freed until now is in the kernel: its rest begins.
    pub fn begin(&mut self, now: Instant) {
        self.resting.extend(self.freed.drain(..).map(|r| (now, r)));
    }

    /// What has rested is free again.
    pub fn wake(&mut self, now: Instant) {
        while let Some((_, region)) = self.resting.pop_front_if(|(since, _)| *since + REST <= now) {
            self.insert(region);
        }
    }

    /// Finds room for a slab of so many entries; none where no free region is long enough.
    pub fn allocate(&mut self, len: u16) -> Option<Slab> {
        let rows = rows(len.into()) as u32;
        let &(found, base) = self.by_len.range((rows, 0)..).next()?;
        self.remove(base, found);
        self.insert(Region {
            base: base + rows,
            rows: found - rows,
        });
        let at = base as usize;
        if self.generations.len() <= at {
            self.generations.resize(at + 1, 0);
        }
        self.generations[at] = self.generations[at].wrapping_add(1);
        Some(Slab::new(base, len, self.generations[at]))
    }

    /// Takes back a slab that nothing was written of.
    pub fn undo(&mut self, slab: Slab) {
        self.insert(Region::of(slab));
    }

    /// Gives back rows that frontends may still name until the changes are written.
    pub fn give_back(&mut self, region: Region) {
        self.freed.push(region);
    }

    /// Takes rows which the kernel holds a slab in; false, and nothing taken, if they are not all free.
    pub fn reserve(&mut self, region: Region) -> bool {
        let Some((&base, &rows)) = self.free.range(..=region.base).next_back() else {
            return false;
        };
        let end = base + rows;
        if region.end() > end {
            return false;
        }
        self.remove(base, rows);
        self.insert(Region {
            base,
            rows: region.base - base,
        });
        self.insert(Region {
            base: region.end(),
            rows: end - region.end(),
        });
        true
    }

    /// Knows a slab's generation.
    pub fn learn_generation(&mut self, slab: Slab) {
        let at = slab.base() as usize;
        if self.generations.len() <= at {
            self.generations.resize(at + 1, 0);
        }
        self.generations[at] = slab.generation();
    }

    /// How many rows there are.
    pub fn capacity(&self) -> usize {
        self.capacity as usize
    }

    /// How many rows are free, and how many of them rest.
    pub fn free(&self) -> (usize, usize) {
        let free: u32 = self.free.values().sum();
        let resting = self.resting.iter().map(|(_, r)| r).chain(&self.freed);
        let resting: u32 = resting.map(|r| r.rows).sum();
        ((free + resting) as usize, resting as usize)
    }

    fn insert(&mut self, mut region: Region) {
        if region.rows == 0 {
            return;
        }
        if let Some((&base, &rows)) = self.free.range(..region.base).next_back()
            && base + rows == region.base
        {
            self.remove(base, rows);
            region = Region {
                base,
                rows: rows + region.rows,
            };
        }
        if let Some(&rows) = self.free.get(&region.end()) {
            self.remove(region.end(), rows);
            region.rows += rows;
        }
        self.free.insert(region.base, region.rows);
        self.by_len.insert((region.rows, region.base));
    }

    fn remove(&mut self, base: u32, rows: u32) {
        self.free.remove(&base);
        self.by_len.remove(&(rows, base));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slab_is_told_from_the_one_before_it_at_the_same_row() {
        let start = Instant::now();
        let mut slabs = Slabs::new(1);
        let first = slabs.allocate(3).unwrap();
        slabs.give_back(Region::of(first));
        slabs.begin(start);
        slabs.wake(start);
        assert_eq!(slabs.allocate(3), None, "it rests");
        slabs.wake(start + REST);
        let second = slabs.allocate(3).unwrap();
        assert_eq!((first.base(), first.len()), (second.base(), second.len()));
        assert_ne!(first, second);
    }

    #[test]
    fn free_rows_beside_each_other_are_one_region() {
        let mut slabs = Slabs::new(64);
        let all: Vec<Slab> = (0..4).map(|_| slabs.allocate(256).unwrap()).collect();
        assert_eq!(slabs.allocate(1), None);
        for index in [0, 2, 1, 3] {
            slabs.undo(all[index]);
        }
        assert_eq!(slabs.allocate(1024).map(Slab::base), Some(0));
    }
}
