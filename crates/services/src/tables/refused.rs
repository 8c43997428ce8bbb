//! Services and host ports that there was no room for, of which an agent before this one may have written something:
//! that stays until they are taken in, or go.

use std::collections::{HashMap, HashSet};

use tombolo_abi::{Frontend, FrontendKey};

use super::backends::{Key, Kind};
use super::{Tables, whole_address};
use crate::Owner;
use crate::compiled::Compiled;

/// What they want.
pub(super) type Refused = HashMap<Owner, Vec<Wanted>>;

/// A port of one that was refused, or its addresses as a whole.
pub(super) struct Wanted {
    frontends: Vec<FrontendKey>,
    backends: Vec<Key>,
}

/// Who is known since an agent before this one has ended.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Known {
    /// Not all of anything.
    #[default]
    Some,
    /// All host ports.
    HostPorts,
    /// All Services, too.
    All,
}

/// What of the inheritance stays.
#[derive(Default)]
struct Kept {
    frontends: HashSet<FrontendKey>,
    /// Ids.
    backends: HashSet<u32>,
}

impl Tables {
    /// Notes that there was no room for an owner.
    pub(super) fn refuse(&mut self, owner: &Owner, compiled: &Compiled) {
        // One that is here already keeps all that it has.
        if self.by_owner.contains_key(owner) || self.inherited.frontends.is_empty() {
            return;
        }
        let kind = Kind::of(owner);
        let ports = compiled.ports.iter().map(|port| Wanted {
            frontends: port.frontends.iter().map(|f| f.key).collect(),
            backends: port.backends.iter().map(|b| Key::of(kind, b)).collect(),
        });
        let whole = Wanted {
            frontends: compiled.addresses.iter().map(|a| whole_address(*a)).collect(),
            backends: Vec::new(),
        };
        self.refused.insert(owner.clone(), ports.chain([whole]).collect());
        self.sweep();
    }

    /// An owner has been taken in, or is gone.
    pub(super) fn forget_refusal(&mut self, owner: &Owner) {
        if self.refused.remove(owner).is_some() {
            self.sweep();
        }
    }

    /// Has what was inherited go, as far as all are known whose it may be, but what an owner has of it that there is no
    /// room for.
    pub(super) fn sweep(&mut self) {
        match self.known {
            Known::Some => {}
            Known::HostPorts => self.sweep_host_ports(),
            Known::All => self.sweep_all(),
        }
    }

    fn sweep_host_ports(&mut self) {
        let kept = self.kept();
        let going = self.inherited.host_ports();
        for key in going.filter(|k| !kept.frontends.contains(k)).collect::<Vec<_>>() {
            if self.claims.owner(&key).is_none() {
                self.touch(key);
            }
        }
        self.backends.settle_host_ports(&kept.backends);
    }

    fn sweep_all(&mut self) {
        let kept = self.kept();
        let going = self.inherited.frontends.keys();
        for key in going
            .filter(|k| !kept.frontends.contains(k))
            .copied()
            .collect::<Vec<_>>()
        {
            self.touch(key);
        }
        let left = self.inherited.take_leftover(&kept.frontends);
        left.regions.into_iter().for_each(|r| self.slabs.give_back(r));
        left.affinities
            .into_iter()
            .for_each(|n| self.affinities.give_back(n));
        left.range_numbers
            .into_iter()
            .for_each(|n| self.range_numbers.give_back(n));
        self.batch.source_ranges_gone.extend(left.ranges);
        self.backends.settle(&kept.backends);
    }

    /// What the refused have of the inheritance.
    fn kept(&self) -> Kept {
        let mut kept = Kept::default();
        if self.refused.is_empty() {
            return kept;
        }
        let mut others: HashSet<u32> = self.backends.named().collect();
        others.extend(self.refused.values().flatten().flat_map(|w| self.ids(w)));
        for wanted in self.refused.values().flatten() {
            let own = self.ids(wanted);
            for key in &wanted.frontends {
                let Some(row) = self.inherited.frontends.get(key) else {
                    continue;
                };
                if self.claims.owner(key).is_none() && self.is_of(row, &own, &others) {
                    kept.frontends.insert(*key);
                    let named = self.inherited.backends_of(row);
                    kept.backends.extend(named.intersection(&own));
                }
            }
        }
        kept
    }

    /// Whether a row is what one who has these backends had there. It does not say whose it is, and the address may have
    /// been another's: then it has none of these, or some that are others'. Those that are nobody's have gone meanwhile.
    fn is_of(&self, row: &Frontend, own: &HashSet<u32>, others: &HashSet<u32>) -> bool {
        let named = self.inherited.backends_of(row);
        let is_own = named.is_empty() || !named.is_disjoint(own);
        is_own && named.difference(own).all(|id| !others.contains(id)) && self.inherited.is_whole(row)
    }

    fn ids(&self, wanted: &Wanted) -> HashSet<u32> {
        let keys = wanted.backends.iter();
        keys.filter_map(|key| self.backends.id(key)).collect()
    }
}
