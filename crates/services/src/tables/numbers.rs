//! Numbers that rows of different tables share, and that are not used again: 2^32 last.

use std::collections::HashSet;

/// Numbers from 1 on.
#[derive(Default)]
pub(super) struct Numbers {
    last: u32,
    used: HashSet<u32>,
}

impl Numbers {
    /// Gives out no number that is at most `number` any more.
    pub fn skip(&mut self, number: u32) {
        self.last = self.last.max(number);
    }

    /// Takes a number that was not used before, or at least is not now.
    pub fn take(&mut self) -> u32 {
        loop {
            self.last = self.last.wrapping_add(1);
            if self.last != 0 && self.used.insert(self.last) {
                return self.last;
            }
        }
    }

    /// Knows of a number that is used.
    pub fn adopt(&mut self, number: u32) {
        self.skip(number);
        self.used.insert(number);
    }

    /// Nobody has the number any more.
    pub fn give_back(&mut self, number: u32) {
        self.used.remove(&number);
    }
}
