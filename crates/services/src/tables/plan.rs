//! What taking in a Service needs, found out before anything changes: it is all there, or nothing happens.

use std::collections::HashSet;
use std::time::Instant;

use ipnet::IpNet;
use tombolo_abi::{Frontend, Slab};

use super::backends::{Key, Kind};
use super::claims::Slot;
use super::held::range_key;
use super::{Tables, ids, slabs, whole_address};
use crate::compiled::{Compiled, Family, Port, Set, Spread};
use crate::error::{Error, Resource};
use crate::{Owner, maglev};

/// Where everything of a Service is to be.
#[derive(Default)]
pub(super) struct Plan {
    /// One for each set of each port, in that order.
    pub slabs: Vec<SlabPlan>,
    /// One for each family that has limited frontends.
    pub ranges: Vec<RangesPlan>,
}

/// Where a set is to stand.
pub(super) enum SlabPlan {
    /// Where it stands already.
    Kept(Slab),
    /// Where an agent before this one put it.
    Inherited(Slab),
    /// In rows that are still to be written: at each place the index of a backend in its port.
    New(Slab, Vec<u32>),
}

/// The clients that a family's limited frontends let in.
pub(super) struct RangesPlan {
    pub family: Family,
    pub ranges: Vec<IpNet>,
    pub number: NumberPlan,
}

/// A number that rows are to have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum NumberPlan {
    /// That which they have.
    Kept(u32),
    /// That which an agent before this one gave them.
    Inherited(u32),
    /// A new one.
    New,
}

impl Plan {
    /// Makes sure that all is there which a Service needs. What it allocates is the plan's.
    pub fn make(
        tables: &mut Tables,
        owner: &Owner,
        compiled: &Compiled,
        now: Instant,
    ) -> Result<Self, Error> {
        let mut plan = Self::default();
        match plan.fill(tables, owner, compiled, now) {
            Ok(()) => Ok(plan),
            Err(error) => {
                plan.undo(tables);
                Err(error)
            }
        }
    }

    fn fill(
        &mut self,
        tables: &mut Tables,
        owner: &Owner,
        compiled: &Compiled,
        now: Instant,
    ) -> Result<(), Error> {
        let slot = tables.by_owner.get(owner).copied();
        tables.check_backends(owner, compiled, now)?;
        tables.check_frontends(owner, compiled)?;
        self.ranges = tables.plan_ranges(slot, compiled);
        tables.check_ranges(owner, &self.ranges)?;
        for port in &compiled.ports {
            for index in 0..port.sets.len() {
                let slab = tables.plan_slab(Kind::of(owner), slot, port, index);
                self.slabs.push(slab.map_err(|rows| tables.no_slab(owner, rows))?);
            }
        }
        Ok(())
    }

    fn undo(self, tables: &mut Tables) {
        for slab in self.slabs {
            match slab {
                SlabPlan::Kept(_) => {}
                SlabPlan::Inherited(slab) => tables.inherited.undo_slab(slab),
                SlabPlan::New(slab, _) => tables.slabs.undo(slab),
            }
        }
    }
}

impl Tables {
    /// Finds a set's place; otherwise how many rows it needs.
    fn plan_slab(
        &mut self,
        kind: Kind,
        slot: Option<Slot>,
        port: &Port,
        index: usize,
    ) -> Result<SlabPlan, usize> {
        let set = &port.sets[index];
        if let Some(members) = self.members(kind, port, set) {
            let held = slot.and_then(|s| self.held[s as usize].as_ref()?.port(port));
            if let Some(slab) = held.and_then(|h| h.slab(set.spread, &members)) {
                return Ok(SlabPlan::Kept(slab));
            }
            if let Some(slab) = self.inherited_slab(port, index, &members) {
                return Ok(SlabPlan::Inherited(slab));
            }
        }
        let entries = entries(port, set);
        let rows = slabs::rows(entries.len());
        let slab = u16::try_from(entries.len())
            .ok()
            .and_then(|len| self.slabs.allocate(len));
        slab.map(|slab| SlabPlan::New(slab, entries)).ok_or(rows)
    }

    /// A set's backends, if all of them have their ids.
    fn members(&self, kind: Kind, port: &Port, set: &Set) -> Option<Box<[u32]>> {
        let id = |&m: &u32| self.backends.id(&Key::of(kind, &port.backends[m as usize]));
        set.members.iter().map(id).collect()
    }

    /// The slab that the kernel's rows of a set's frontends name, if it is what the set is to have.
    fn inherited_slab(&mut self, port: &Port, index: usize, members: &[u32]) -> Option<Slab> {
        let set = Some(index);
        let rows = port
            .frontends
            .iter()
            .filter_map(|f| Some((f, self.inherited.frontends.get(&f.key)?)));
        let named = rows.flat_map(|(f, row)| {
            let internal = (f.internal == set).then_some(row.internal);
            let external = (f.external == set).then_some(row.external);
            internal.into_iter().chain(external)
        });
        let mut named: Vec<Slab> = named.filter(|s| !s.is_empty()).collect();
        named.sort();
        named.dedup();
        if named.is_empty() {
            return None;
        }
        let set = &port.sets[index];
        let place = |m: &u32| {
            set.members
                .binary_search(m)
                .ok()
                .and_then(|at| members.get(at).copied())
        };
        let ids: Option<Vec<u32>> = entries(port, set).iter().map(place).collect();
        let ids = ids?;
        named
            .into_iter()
            .find(|slab| self.inherited.take_slab(*slab, &ids))
    }

    fn plan_ranges(&mut self, slot: Option<Slot>, compiled: &Compiled) -> Vec<RangesPlan> {
        let mut plans = Vec::new();
        for family in [Family::V4, Family::V6] {
            let limited = compiled.ports.iter().filter(|p| p.family == family);
            let mut limited = limited
                .flat_map(|p| &p.frontends)
                .filter(|f| f.limited)
                .peekable();
            if limited.peek().is_none() {
                continue;
            }
            let ranges = compiled.source_ranges.iter();
            let ranges: Vec<IpNet> = ranges
                .filter(|r| Family::of(r.addr()) == family)
                .copied()
                .collect();
            let held = slot.and_then(|s| self.held[s as usize].as_ref()?.ranges(family));
            let number = match held.filter(|h| h.ranges == ranges) {
                Some(held) => NumberPlan::Kept(held.number),
                None => {
                    let named = limited.filter_map(|f| self.inherited.frontends.get(&f.key));
                    let mut numbers = named.map(|row| row.source_ranges).filter(|n| *n != 0);
                    let same = |n: &u32| {
                        self.inherited
                            .has_ranges(*n, ranges.iter().map(|r| range_key(*n, r)))
                    };
                    numbers.find(same).map_or(NumberPlan::New, NumberPlan::Inherited)
                }
            };
            plans.push(RangesPlan {
                family,
                ranges,
                number,
            });
        }
        plans
    }

    fn check_backends(&self, owner: &Owner, compiled: &Compiled, now: Instant) -> Result<(), Error> {
        let all = compiled.ports.iter().flat_map(|p| &p.backends);
        let all = all.map(|b| Key::of(Kind::of(owner), b));
        let new: HashSet<Key> = all.filter(|k| self.backends.id(k).is_none()).collect();
        let (needed, free) = (new.len(), self.backends.free());
        if needed <= self.backends.available(now) {
            return Ok(());
        }
        Err(lack(
            owner,
            Resource::Backends,
            needed,
            free,
            self.backends.capacity(),
            ids::REST,
        ))
    }

    fn check_frontends(&self, owner: &Owner, compiled: &Compiled) -> Result<(), Error> {
        let ports = compiled.ports.iter().flat_map(|p| &p.frontends).map(|f| f.key);
        let all = ports.chain(compiled.addresses.iter().map(|a| whole_address(*a)));
        let needed = all.filter(|k| self.is_new_row(k)).count();
        let (capacity, taken) = (self.capacity.frontends, self.frontend_rows());
        let free = capacity.saturating_sub(taken);
        if needed <= free {
            return Ok(());
        }
        let (owner, what) = (owner.clone(), Resource::Frontends);
        Err(Error::Full {
            owner,
            what,
            needed,
            free,
            capacity,
        })
    }

    fn check_ranges(&self, owner: &Owner, plans: &[RangesPlan]) -> Result<(), Error> {
        let new = plans.iter().filter(|p| p.number == NumberPlan::New);
        let needed = new.map(|p| p.ranges.len()).sum();
        let capacity = self.capacity.source_ranges;
        let free = capacity.saturating_sub(self.range_rows);
        if needed <= free {
            return Ok(());
        }
        let (owner, what) = (owner.clone(), Resource::SourceRanges);
        Err(Error::Full {
            owner,
            what,
            needed,
            free,
            capacity,
        })
    }

    fn no_slab(&self, owner: &Owner, needed: usize) -> Error {
        let (free, resting) = self.slabs.free();
        // What rests may be all of the room, or what parts it.
        let free = if resting > 0 {
            free
        } else {
            free.min(needed.saturating_sub(1))
        };
        lack(
            owner,
            Resource::SlabRows,
            needed,
            free,
            self.slabs.capacity(),
            slabs::REST,
        )
    }
}

/// Too little is there, now or at all.
fn lack(
    owner: &Owner,
    what: Resource,
    needed: usize,
    free: usize,
    capacity: usize,
    rest: std::time::Duration,
) -> Error {
    let owner = owner.clone();
    if needed <= free {
        return Error::Resting {
            owner,
            what,
            needed,
            rest,
        };
    }
    Error::Full {
        owner,
        what,
        needed,
        free,
        capacity,
    }
}

/// The entries of a set's slab, as indexes of the port's backends.
fn entries(port: &Port, set: &Set) -> Vec<u32> {
    match set.spread {
        Spread::Random => set.members.clone(),
        Spread::Maglev => {
            let backends: Vec<_> = set.members.iter().map(|&m| port.backends[m as usize]).collect();
            let table = maglev::table(&backends);
            table.into_iter().map(|at| set.members[at as usize]).collect()
        }
    }
}

/// The flags of a frontend whose external set is spread like this.
pub(super) fn spread_flag(spread: Option<Spread>) -> u32 {
    match spread {
        Some(Spread::Maglev) => Frontend::MAGLEV_EXTERNAL,
        Some(Spread::Random) | None => 0,
    }
}
