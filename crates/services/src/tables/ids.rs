//! Backend ids: given out so that none is used again soon, since flows name them.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::time::{Duration, Instant};

/// For how long an id is nobody's before it is another backend's: programs void a flow of a backend that is gone when
/// its next packet comes. Mostly it is far longer, since the least recently freed id goes first, after all that were
/// never used.
pub(super) const REST: Duration = Duration::from_secs(60);

/// Ids from 1 up to a capacity.
pub(super) struct Ids {
    /// Never used. The last range is drawn from.
    fresh: Vec<Range<u32>>,
    /// Freed by changes that may not be in the kernel yet.
    freed: Vec<u32>,
    /// Freed, the longest ago first.
    resting: VecDeque<(Instant, u32)>,
}

impl Ids {
    /// All ids below `capacity` but those in use. `freed` ones rest from now on.
    pub fn new(
        capacity: usize,
        used: &BTreeSet<u32>,
        freed: impl Iterator<Item = u32>,
        now: Instant,
    ) -> Self {
        let resting: VecDeque<(Instant, u32)> = freed.map(|id| (now, id)).collect();
        let mut known: BTreeSet<u32> = resting.iter().map(|(_, id)| *id).collect();
        known.extend(used);
        let mut fresh = Vec::new();
        let mut begin = 1;
        for id in known.into_iter().chain([capacity as u32]) {
            if begin < id {
                fresh.push(begin..id);
            }
            begin = id + 1;
        }
        fresh.reverse();
        Self {
            fresh,
            freed: Vec::new(),
            resting,
        }
    }

    /// What was freed until now is in the kernel: its rest begins.
    pub fn begin(&mut self, now: Instant) {
        self.resting.extend(self.freed.drain(..).map(|id| (now, id)));
    }

    /// How many ids may be taken.
    pub fn available(&self, now: Instant) -> usize {
        let fresh: usize = self.fresh.iter().map(|r| r.len()).sum();
        fresh + self.resting.partition_point(|(since, _)| *since + REST <= now)
    }

    /// How many ids are nobody's, those that rest among them.
    pub fn free(&self) -> usize {
        self.fresh.iter().map(|r| r.len()).sum::<usize>() + self.resting.len() + self.freed.len()
    }

    /// Takes an id; none if none is [available](Self::available).
    pub fn take(&mut self, now: Instant) -> Option<u32> {
        while let Some(range) = self.fresh.last_mut() {
            if let Some(id) = range.next() {
                return Some(id);
            }
            self.fresh.pop();
        }
        let (since, id) = *self.resting.front()?;
        (since + REST <= now).then(|| {
            self.resting.pop_front();
            id
        })
    }

    /// Gives an id back.
    pub fn give_back(&mut self, id: u32) {
        self.freed.push(id);
    }
}
