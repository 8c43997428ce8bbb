//! Services and host ports that there was no room for, of which an agent before this one may have written something: that stays until
//! they are taken in, or go.

use std::collections::{HashMap, HashSet};

use tombolo_abi::FrontendKey;

use super::{Tables, whole_address};
use crate::Owner;
use crate::compiled::Compiled;

/// The rows that they want.
pub(super) type Refused = HashMap<Owner, Vec<FrontendKey>>;

impl Tables {
    /// Notes that there was no room for an owner.
    pub(super) fn refuse(&mut self, owner: &Owner, compiled: &Compiled) {
        // One that is here already keeps all that it has.
        if self.by_owner.contains_key(owner) || self.inherited.frontends.is_empty() {
            return;
        }
        let ports = compiled.ports.iter().flat_map(|p| &p.frontends).map(|f| f.key);
        let all = ports.chain(compiled.addresses.iter().map(|a| whole_address(*a)));
        self.refused.insert(owner.clone(), all.collect());
        self.sweep();
    }

    /// An owner has been taken in, or is gone.
    pub(super) fn forget_refusal(&mut self, owner: &Owner) {
        if self.refused.remove(owner).is_some() {
            self.sweep();
        }
    }

    /// Once all Services are known: has what was inherited go, but what an owner has of it that there is no room for.
    pub(super) fn sweep(&mut self) {
        if !self.settled {
            return;
        }
        let wanted: HashSet<FrontendKey> = self.refused.values().flatten().copied().collect();
        let (claims, inherited) = (&self.claims, &self.inherited);
        let rows = inherited.frontends.iter().filter(|(key, row)| {
            wanted.contains(key) && claims.owner(key).is_none() && inherited.is_whole(row)
        });
        let kept: HashSet<FrontendKey> = rows.map(|(key, _)| *key).collect();
        let going = inherited.frontends.keys().filter(|key| !kept.contains(key));
        for key in going.copied().collect::<Vec<_>>() {
            self.touch(key);
        }
        let left = self.inherited.take_leftover(&kept);
        left.regions.into_iter().for_each(|r| self.slabs.give_back(r));
        left.affinities
            .into_iter()
            .for_each(|n| self.affinities.give_back(n));
        left.range_numbers
            .into_iter()
            .for_each(|n| self.range_numbers.give_back(n));
        self.batch.source_ranges_gone.extend(left.ranges);
        self.backends.settle(&self.inherited.backends());
    }
}
