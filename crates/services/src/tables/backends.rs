//! The backends that all Services share: one id for each address, port and protocol.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Instant;

use tombolo_abi::{Addr, Backend, BackendState};

use super::ids::Ids;

/// A backend by what it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    address: Addr,
    port: u16,
    protocol: u8,
}

impl Key {
    pub fn of(row: &Backend) -> Self {
        Self {
            address: row.address,
            port: row.port,
            protocol: row.protocol,
        }
    }

    pub fn row(self, state: BackendState) -> Backend {
        Backend {
            address: self.address,
            port: self.port,
            protocol: self.protocol,
            state: state as u8,
        }
    }
}

/// Who names a backend, and what of.
struct Held {
    id: u32,
    /// How many ports of Services name it.
    named: u32,
    /// How many of them as one that serves.
    serving: u32,
    /// What an agent before this one wrote, as long as not all Services are known. Gone: nothing.
    inherited: BackendState,
}

impl Held {
    /// It serves if any Service says so: they look at the same pod, and may know it for different whiles.
    fn state(&self) -> BackendState {
        if self.serving > 0 || self.inherited == BackendState::Serving {
            BackendState::Serving
        } else if self.named > 0 {
            BackendState::NotServing
        } else {
            self.inherited
        }
    }
}

/// All backends.
pub(super) struct Backends {
    held: HashMap<Key, Held>,
    ids: Ids,
    capacity: usize,
    /// What the kernel holds of those that may have changed since.
    touched: BTreeMap<u32, (Key, BackendState)>,
    /// Inherited under a second id, or in no state that there is: nobody will name these.
    surplus: Vec<(u32, Key)>,
    /// Those of them that go with the next changes.
    going: Vec<(u32, Key)>,
}

/// Changed rows of backends.
#[derive(Default)]
pub(super) struct Written {
    /// New ones, and those that serve again.
    pub up: Vec<(u32, Backend)>,
    /// Those that serve no longer, or are gone.
    pub down: Vec<(u32, Backend)>,
}

impl Backends {
    /// What the kernel holds. Rows of backends that are gone still have their address, which tells that the id was used.
    pub fn adopt(capacity: usize, rows: Vec<(u32, Backend)>, now: Instant) -> Self {
        let (mut used, mut freed) = (BTreeSet::new(), Vec::new());
        let (mut held, mut surplus) = (HashMap::new(), Vec::new());
        for (id, row) in rows {
            if id == 0 || id as usize >= capacity || row == Backend::default() {
                continue;
            }
            if row.state == BackendState::Gone as u8 {
                freed.push(id);
                continue;
            }
            used.insert(id);
            let key = Key::of(&row);
            let inherited = match row.state {
                s if s == BackendState::Serving as u8 => BackendState::Serving,
                s if s == BackendState::NotServing as u8 => BackendState::NotServing,
                _ => {
                    surplus.push((id, key));
                    continue;
                }
            };
            let (named, serving) = (0, 0);
            match held.entry(key) {
                Entry::Vacant(place) => {
                    place.insert(Held {
                        id,
                        named,
                        serving,
                        inherited,
                    });
                }
                Entry::Occupied(_) => surplus.push((id, key)),
            }
        }
        Self {
            held,
            ids: Ids::new(capacity, &used, freed.into_iter(), now),
            capacity,
            touched: BTreeMap::new(),
            surplus,
            going: Vec::new(),
        }
    }

    /// Changes until now are in the kernel.
    pub fn begin(&mut self, now: Instant) {
        self.ids.begin(now);
    }

    /// The id of a backend that has one.
    pub fn id(&self, key: &Key) -> Option<u32> {
        self.held.get(key).map(|h| h.id)
    }

    /// How many new backends there is room for now.
    pub fn available(&self, now: Instant) -> usize {
        self.ids.available(now)
    }

    /// How many ids are free, those that rest among them.
    pub fn free(&self) -> usize {
        self.ids.free()
    }

    /// How many ids there are.
    pub fn capacity(&self) -> usize {
        // Id 0 is nobody's.
        self.capacity - 1
    }

    /// Has one more port name a backend, and returns its id; none if it is new and no id is available.
    pub fn name(&mut self, key: Key, serves: bool, now: Instant) -> Option<u32> {
        if !self.held.contains_key(&key) {
            let id = self.ids.take(now)?;
            let new = Held {
                id,
                named: 0,
                serving: 0,
                inherited: BackendState::Gone,
            };
            self.held.insert(key, new);
        }
        self.change(key, |h| {
            h.named += 1;
            h.serving += u32::from(serves);
        })
    }

    /// Has one port less name a backend. It goes when the changes are taken, unless another port names it till then.
    pub fn forget(&mut self, key: Key, serves: bool) {
        self.change(key, |h| {
            h.named -= 1;
            h.serving -= u32::from(serves);
        });
    }

    /// Has a backend go that an agent before this one wrote, unless somebody names it.
    pub fn disinherit(&mut self, key: Key) {
        self.change(key, |h| h.inherited = BackendState::Gone);
    }

    /// The same, by its id.
    pub fn disinherit_id(&mut self, id: u32) {
        let key = self.held.iter().find(|(_, h)| h.id == id).map(|(key, _)| *key);
        if let Some(key) = key {
            self.disinherit(key);
        }
    }

    /// All Services are known: what none of them named goes, but these.
    pub fn settle(&mut self, kept: &HashSet<u32>) {
        let inherited = self
            .held
            .iter()
            .filter(|(_, h)| h.inherited != BackendState::Gone && !kept.contains(&h.id));
        for key in inherited.map(|(k, _)| *k).collect::<Vec<_>>() {
            self.change(key, |h| h.inherited = BackendState::Gone);
        }
        let going = self.surplus.extract_if(.., |(id, _)| !kept.contains(id));
        self.going.extend(going);
    }

    /// The rows that changed since the last call.
    pub fn take_changes(&mut self) -> Written {
        let mut written = Written::default();
        for (id, (key, before)) in std::mem::take(&mut self.touched) {
            let after = self.held.get(&key).map_or(BackendState::Gone, Held::state);
            if after == BackendState::Gone {
                self.held.remove(&key);
                self.ids.give_back(id);
            }
            match (before, after) {
                _ if before == after => {}
                (BackendState::Gone, _) | (_, BackendState::Serving) => written.up.push((id, key.row(after))),
                _ => written.down.push((id, key.row(after))),
            }
        }
        for (id, key) in self.going.drain(..) {
            self.ids.give_back(id);
            written.down.push((id, key.row(BackendState::Gone)));
        }
        written
    }

    fn change(&mut self, key: Key, change: impl FnOnce(&mut Held)) -> Option<u32> {
        let held = self.held.get_mut(&key)?;
        self.touched.entry(held.id).or_insert((key, held.state()));
        change(held);
        Some(held.id)
    }
}
