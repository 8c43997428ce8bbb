//! One at a time for each key: a DEL waits for the ADD of the same attachment.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Gives turns.
#[derive(Debug)]
pub struct Turns<K> {
    taken: Mutex<HashSet<K>>,
    freed: Condvar,
}

impl<K: Clone + Eq + Hash> Turns<K> {
    /// All keys are free.
    pub fn new() -> Self {
        Self {
            taken: Mutex::new(HashSet::new()),
            freed: Condvar::new(),
        }
    }

    /// Waits until nobody else has the key's turn, and takes it until the guard is dropped.
    pub fn take(&self, key: &K) -> Turn<'_, K> {
        let mut taken = self.lock();
        while taken.contains(key) {
            taken = self.freed.wait(taken).unwrap_or_else(PoisonError::into_inner);
        }
        taken.insert(key.clone());
        Turn {
            turns: self,
            key: key.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<K>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A key's turn.
#[derive(Debug)]
pub struct Turn<'a, K: Clone + Eq + Hash> {
    turns: &'a Turns<K>,
    key: K,
}

impl<K: Clone + Eq + Hash> Drop for Turn<'_, K> {
    fn drop(&mut self) {
        self.turns.lock().remove(&self.key);
        self.turns.freed.notify_all();
    }
}
