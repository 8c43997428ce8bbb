//! The backends that all Services share, and those of host ports: one id for each address, port and protocol of a kind.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Instant;

use tombolo_abi::{Addr, Backend, BackendState};

use super::ids::Ids;
use crate::Owner;

/// Who sends clients to a backend. What Services say of a pod is not said of its host ports: these lead to it also while
/// it is not ready, and until it is gone, as those of the plugin `portmap` do. One row cannot have both states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    HostPort,
    Service,
}

impl Kind {
    pub fn of(owner: &Owner) -> Self {
        match owner {
            Owner::Pod(_) => Self::HostPort,
            Owner::Service(_) => Self::Service,
        }
    }
}

/// A backend by what it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    kind: Kind,
    address: Addr,
    port: u16,
    protocol: u8,
}

impl Key {
    pub fn of(kind: Kind, row: &Backend) -> Self {
        Self {
            kind,
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
    /// How many ports of its kind name it.
    named: u32,
    /// How many of them as one that serves.
    serving: u32,
    /// What an agent before this one wrote, as long as not all who may name it are known. Gone: nothing.
    inherited: BackendState,
}

impl Held {
    /// It serves if anyone who names it says so: Services look at the same pod, and may know it for different whiles.
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
    /// Inherited under a second id, or in no state that there is: nobody will name these again.
    surplus: Vec<(u32, Key)>,
    /// Those of them that go with the next changes.
    going: Vec<(u32, Key)>,
}

/// The ids that the kernel's frontends name.
#[derive(Default)]
pub(super) struct Named {
    pub by_host_ports: HashSet<u32>,
    pub by_services: HashSet<u32>,
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
    /// Of which kind a backend is, those tell who name it: the rest is taken for Services'.
    pub fn adopt(capacity: usize, mut rows: Vec<(u32, Backend)>, named: &Named, now: Instant) -> Self {
        let (mut used, mut freed) = (BTreeSet::new(), Vec::new());
        let (mut held, mut surplus) = (HashMap::new(), Vec::new());
        // One that serves, and is named by nobody, may be left of a host port: it comes last where there are several.
        let is_doubtful = |id: &u32, row: &Backend| {
            row.state == BackendState::Serving as u8 && !named.by_services.contains(id)
        };
        rows.sort_by_key(|(id, row)| (is_doubtful(id, row), *id));
        for (id, row) in rows {
            if id == 0 || id as usize >= capacity || row == Backend::default() {
                continue;
            }
            if row.state == BackendState::Gone as u8 {
                freed.push(id);
                continue;
            }
            used.insert(id);
            let kind = if named.by_host_ports.contains(&id) {
                Kind::HostPort
            } else {
                Kind::Service
            };
            let key = Key::of(kind, &row);
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

    /// The ids that somebody names.
    pub fn named(&self) -> impl Iterator<Item = u32> {
        self.held.values().filter(|h| h.named > 0).map(|h| h.id)
    }

    /// All host ports are known: what none of them named goes, but these.
    pub fn settle_host_ports(&mut self, kept: &HashSet<u32>) {
        self.disinherit(|key, held| key.kind == Kind::HostPort && !kept.contains(&held.id));
    }

    /// All Services are known, too: what nobody named goes, but these.
    pub fn settle(&mut self, kept: &HashSet<u32>) {
        self.disinherit(|_, held| !kept.contains(&held.id));
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

    /// Has those go that an agent before this one wrote and nobody names.
    fn disinherit(&mut self, goes: impl Fn(&Key, &Held) -> bool) {
        let inherited = self.held.iter();
        let going = inherited.filter(|(key, h)| h.inherited != BackendState::Gone && goes(key, h));
        for key in going.map(|(k, _)| *k).collect::<Vec<_>>() {
            self.change(key, |h| h.inherited = BackendState::Gone);
        }
    }

    fn change(&mut self, key: Key, change: impl FnOnce(&mut Held)) -> Option<u32> {
        let held = self.held.get_mut(&key)?;
        self.touched.entry(held.id).or_insert((key, held.state()));
        change(held);
        Some(held.id)
    }
}
