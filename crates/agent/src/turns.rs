//! One at a time for each key: a DEL waits for the ADD of the same attachment. And all keys at once, for what
//! must not run beside any of them.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Gives turns.
#[derive(Debug)]
pub struct Turns<K> {
    state: Mutex<State<K>>,
    freed: Condvar,
}

#[derive(Debug)]
struct State<K> {
    taken: HashSet<K>,
    /// Somebody has all turns, or waits for those that are taken to end.
    all: bool,
}

impl<K: Clone + Eq + Hash> Turns<K> {
    /// All keys are free.
    pub fn new() -> Self {
        Self {
            state: Mutex::new(State {
                taken: HashSet::new(),
                all: false,
            }),
            freed: Condvar::new(),
        }
    }

    /// Waits until nobody else has the key's turn, and takes it until the guard is dropped.
    pub fn take(&self, key: &K) -> Turn<'_, K> {
        let mut state = self.wait_while(|state| state.all || state.taken.contains(key));
        state.taken.insert(key.clone());
        Turn {
            turns: self,
            key: key.clone(),
        }
    }

    /// Takes all turns until the guard is dropped: lets those that are taken end, and nobody begin.
    pub fn take_all(&self) -> AllTurns<'_, K> {
        let mut state = self.wait_while(|state| state.all);
        state.all = true;
        let busy = state.taken.clone();
        // From here on the guard gives them back, whatever happens.
        let all = AllTurns { turns: self, busy };
        drop(state);
        drop(self.wait_while(|state| !state.taken.is_empty()));
        all
    }

    fn wait_while(&self, mut busy: impl FnMut(&State<K>) -> bool) -> MutexGuard<'_, State<K>> {
        let waited = self.freed.wait_while(self.lock(), |state| busy(state));
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
        self.turns.lock().taken.remove(&self.key);
        self.turns.freed.notify_all();
    }
}

/// All turns.
#[derive(Debug)]
pub struct AllTurns<'a, K: Clone + Eq + Hash> {
    turns: &'a Turns<K>,
    busy: HashSet<K>,
}

impl<K: Clone + Eq + Hash> AllTurns<'_, K> {
    /// Whether somebody had the key's turn when all were asked for. He has ended since.
    pub fn was_busy(&self, key: &K) -> bool {
        self.busy.contains(key)
    }
}

impl<K: Clone + Eq + Hash> Drop for AllTurns<'_, K> {
    fn drop(&mut self) {
        self.turns.lock().all = false;
        self.turns.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn all_turns_exclude_each_and_know_who_was_busy() {
        let turns = Turns::new();
        let held = turns.take(&1);
        let inside = AtomicU32::new(0);
        thread::scope(|scope| {
            let all = scope.spawn(|| {
                let all = turns.take_all();
                inside.store(1, Ordering::SeqCst);
                (all.was_busy(&1), all.was_busy(&2))
            });
            // Once all are asked for, nobody begins.
            while !turns.lock().all {
                thread::yield_now();
            }
            let late = scope.spawn(|| {
                let _turn = turns.take(&2);
                inside.load(Ordering::SeqCst)
            });
            assert_eq!(inside.load(Ordering::SeqCst), 0, "a turn is still taken");
            assert!(!late.is_finished());
            drop(held);
            assert_eq!(all.join().unwrap(), (true, false));
            assert_eq!(
                late.join().unwrap(),
                1,
                "it had to wait for all turns to be given back"
            );
        });
        drop(turns.take(&1));
        drop(turns.take_all());
    }

    #[test]
    fn turns_of_other_keys_go_on() {
        let turns = Turns::new();
        let _one = turns.take(&1);
        let _two = turns.take(&2);
    }
}
