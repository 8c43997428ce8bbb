//! All Services together: what they share, who gets what several want, and which rows to write when one changes.

mod adopt;
mod backends;
mod batch;
mod changes;
mod claims;
mod held;
mod ids;
mod numbers;
mod plan;
mod refused;
mod slabs;

use std::collections::HashMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Instant;

use tombolo_abi::{Addr, Frontend, FrontendKey, SLAB_ROW, Slab, SlabRow};

pub use adopt::KernelRows;
pub use changes::{Changes, Conflict};

use crate::compiled::{Compiled, Port};
use crate::{Error, Owner, Place};
use adopt::Inherited;
use backends::{Backends, Key, Kind};
use batch::Batch;
use claims::{Claims, Slot};
use held::{Held, HeldPort, HeldRanges, HeldSlab};
use numbers::Numbers;
use plan::{NumberPlan, Plan, SlabPlan};
use refused::{Known, Refused};
use slabs::{Region, Slabs};

/// How much the kernel's tables hold, in rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// FRONTENDS.
    pub frontends: usize,
    /// SLABS.
    pub slab_rows: usize,
    /// BACKENDS.
    pub backends: usize,
    /// SOURCE_RANGES.
    pub source_ranges: usize,
}

/// The tables of all Services, and of the host ports of this node's pods, as they are to be in the kernel.
///
/// [`apply`](Self::apply) as many as have changed, then [`take_changes`](Self::take_changes) and write them,
/// before anything else is applied: the tables take for written what was taken. If writing fails and cannot be done
/// later, begin anew with [`adopt`](Self::adopt).
///
/// At the start: `adopt` the kernel's rows, apply the host ports of all pods, then
/// [`settle_host_ports`](Self::settle_host_ports). From then on those may come and go. Then apply all Services that there
/// are, the oldest first, then [`settle`](Self::settle). Take changes between these two only then, since until then a
/// younger Service may get what an older one has.
///
/// The cost of a change is that of the Services that change; 20,000 endpoints take less than 20 MiB.
pub struct Tables {
    held: Vec<Option<Held>>,
    by_owner: HashMap<Arc<Owner>, Slot>,
    free_slots: Vec<Slot>,
    claims: Claims,
    backends: Backends,
    slabs: Slabs,
    affinities: Numbers,
    range_numbers: Numbers,
    inherited: Inherited,
    refused: Refused,
    /// Whose rows that are nobody's go.
    known: Known,
    batch: Batch,
    capacity: Capacity,
    /// How many rows of FRONTENDS the kernel holds without the changes that nobody took.
    frontend_rows: usize,
    /// How many rows of SOURCE_RANGES it holds with the new ones of these changes.
    range_rows: usize,
}

impl Tables {
    /// Tables that begin with what the kernel holds; an empty one is none. What cannot be right in there, whatever
    /// wrote it, is overwritten or goes when [settled](Self::settle).
    pub fn adopt(capacity: Capacity, rows: KernelRows, now: Instant) -> Self {
        let (mut slabs, mut affinities, mut range_numbers) = (
            Slabs::new(capacity.slab_rows),
            Numbers::default(),
            Numbers::default(),
        );
        rows.affinities.iter().for_each(|n| affinities.skip(*n));
        let (frontend_rows, range_rows) = (rows.frontends.len(), rows.source_ranges.len());
        let inherited = Inherited::new(
            rows.frontends,
            rows.slab_rows,
            &rows.source_ranges,
            &mut slabs,
            &mut affinities,
            &mut range_numbers,
        );
        let backends = Backends::adopt(capacity.backends, rows.backends, &inherited.named(), now);
        Self {
            held: Vec::new(),
            by_owner: HashMap::new(),
            free_slots: Vec::new(),
            claims: Claims::default(),
            backends,
            slabs,
            affinities,
            range_numbers,
            inherited,
            refused: Refused::default(),
            known: Known::default(),
            batch: Batch::default(),
            capacity,
            frontend_rows,
            range_rows,
        }
    }

    /// Takes in what was compiled of a Service, or of a pod's host ports; none if it is gone, or not to be programmed.
    ///
    /// # Errors
    /// The kernel's tables have no room for it. Then the owner, new or not, is as it was before, be it an agent before this
    /// one that made it so.
    pub fn apply(&mut self, owner: &Owner, compiled: Option<&Compiled>, now: Instant) -> Result<(), Error> {
        self.begin(now);
        let Some(compiled) = compiled else {
            self.remove(owner);
            self.forget_refusal(owner);
            return Ok(());
        };
        let plan = match Plan::make(self, owner, compiled, now) {
            Ok(plan) => plan,
            Err(error) => {
                self.refuse(owner, compiled);
                return Err(error);
            }
        };
        let held = self.carry_out(owner, compiled, plan, now);
        let slot = match self.by_owner.get(owner) {
            Some(slot) => *slot,
            None => self.new_slot(&held.owner),
        };
        self.replace(slot, Some(held));
        self.forget_refusal(owner);
        Ok(())
    }

    /// The host ports of all pods are known: what the kernel holds of others goes with the next changes, and their
    /// backends with it, since these pods are gone. What pods had that there is [no room](Self::apply) for now stays, and
    /// so do rows of Services, also where none of them is known yet.
    pub fn settle_host_ports(&mut self, now: Instant) {
        self.begin(now);
        self.known = Known::HostPorts;
        self.sweep();
    }

    /// All Services are known, too: what the kernel holds of others goes with the next changes.
    pub fn settle(&mut self, now: Instant) {
        self.begin(now);
        self.known = Known::All;
        self.sweep();
    }

    /// What to write to the kernel since the last call.
    pub fn take_changes(&mut self) -> Changes {
        let batch = std::mem::take(&mut self.batch);
        let backends = self.backends.take_changes();
        let mut changes = Changes {
            backends_up: backends.up,
            slab_rows: batch.slab_rows,
            source_ranges: batch.source_ranges,
            source_ranges_gone: batch.source_ranges_gone,
            backends_down: backends.down,
            ..Changes::default()
        };
        for (key, before) in batch.frontends {
            let after = self.row(&key);
            match after {
                Some(row) if before != after => changes.frontends.push((key, row)),
                None if before.is_some() => changes.frontends_gone.push(key),
                _ => {}
            }
            self.frontend_rows += usize::from(after.is_some());
            self.frontend_rows -= usize::from(before.is_some());
            self.inherited.frontends.remove(&key);
        }
        self.range_rows -= changes.source_ranges_gone.len();
        let lost = batch.lost.iter();
        let lost = lost.filter(|(slot, key)| self.claims.waiting(key).contains(slot));
        changes.conflicts = lost
            .filter_map(|(slot, key)| self.conflict(*slot, *key))
            .collect();
        changes
    }

    /// Every Service that does not get what an older one has.
    pub fn conflicts(&self) -> Vec<Conflict> {
        let contested = self.claims.contested();
        let lost = contested.flat_map(|(key, slots)| slots.iter().map(|slot| (*slot, *key)));
        let mut conflicts: Vec<Conflict> = lost.filter_map(|(slot, key)| self.conflict(slot, key)).collect();
        conflicts.sort();
        conflicts
    }

    /// Who has which row of FRONTENDS, in no particular order.
    pub fn owners(&self) -> impl Iterator<Item = (&FrontendKey, &Owner)> {
        let owner = |slot: Slot| self.held[slot as usize].as_ref().map(|held| &*held.owner);
        self.claims
            .owners()
            .filter_map(move |(key, slot)| Some((key, owner(slot)?)))
    }

    /// Changes that were taken before are in the kernel: what they freed begins to rest.
    fn begin(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.batch.open, true) {
            self.backends.begin(now);
            self.slabs.begin(now);
        }
        self.slabs.wake(now);
    }

    fn remove(&mut self, owner: &Owner) {
        if let Some(slot) = self.by_owner.remove(owner) {
            self.replace(slot, None);
            self.free_slots.push(slot);
        }
    }

    /// Gives a Service what was planned.
    fn carry_out(&mut self, owner: &Owner, compiled: &Compiled, plan: Plan, now: Instant) -> Held {
        let ranges = plan.ranges.into_iter().map(|r| self.write_ranges(r)).collect();
        let mut held = Held {
            owner: self
                .by_owner
                .get_key_value(owner)
                .map_or_else(|| Arc::new(owner.clone()), |(o, _)| o.clone()),
            created: compiled.created,
            ports: Vec::with_capacity(compiled.ports.len()),
            ranges,
            rows: Vec::new(),
        };
        let (mut slabs, kind) = (plan.slabs.into_iter(), Kind::of(owner));
        for port in &compiled.ports {
            let ids: Vec<u32> = port
                .backends
                .iter()
                .map(|b| {
                    self.backends
                        .name(Key::of(kind, b), is_serving(b), now)
                        .unwrap_or_default()
                })
                .collect();
            let port_slabs = port.sets.iter().zip(&mut slabs).map(|(set, plan)| HeldSlab {
                slab: self.write_slab(plan, &ids),
                spread: set.spread,
                members: set.members.iter().map(|&m| ids[m as usize]).collect(),
            });
            let port_slabs: Vec<HeldSlab> = port_slabs.collect();
            let affinity = self.affinity(owner, port);
            held.rows
                .extend(rows(port, &port_slabs, affinity, held.ranges(port.family)));
            held.ports.push(HeldPort {
                name: port.name.as_str().into(),
                protocol: port.protocol,
                family: port.family,
                affinity,
                backends: port
                    .backends
                    .iter()
                    .map(|b| (Key::of(kind, b), is_serving(b)))
                    .collect(),
                slabs: port_slabs,
            });
        }
        let whole = compiled
            .addresses
            .iter()
            .map(|a| (whole_address(*a), Frontend::default()));
        held.rows.extend(whole);
        held.rows.sort_by_key(|(key, _)| *key);
        held.rows.dedup_by_key(|(key, _)| *key);
        held.rows.shrink_to_fit();
        held
    }

    fn write_slab(&mut self, plan: SlabPlan, ids: &[u32]) -> Slab {
        match plan {
            SlabPlan::Kept(slab) | SlabPlan::Inherited(slab) => slab,
            SlabPlan::New(slab, entries) => {
                for (at, part) in (slab.base()..).zip(entries.chunks(SLAB_ROW)) {
                    let mut row = SlabRow::default();
                    row.backends
                        .iter_mut()
                        .zip(part)
                        .for_each(|(b, e)| *b = ids[*e as usize]);
                    self.batch.slab_rows.push((at, row));
                }
                slab
            }
        }
    }

    fn write_ranges(&mut self, plan: plan::RangesPlan) -> HeldRanges {
        let number = match plan.number {
            NumberPlan::Kept(number) => number,
            NumberPlan::Inherited(number) => {
                self.inherited.take_ranges(number);
                number
            }
            NumberPlan::New => self.range_numbers.take(),
        };
        let held = HeldRanges {
            family: plan.family,
            number,
            ranges: plan.ranges,
        };
        if plan.number == NumberPlan::New {
            self.range_rows += held.ranges.len();
            self.batch.source_ranges.extend(held.keys());
        }
        held
    }

    /// The number of a port's affinity: the one that it has, or an agent before this one gave it, or a new one.
    fn affinity(&mut self, owner: &Owner, port: &Port) -> u32 {
        if port.affinity_timeout == 0 {
            return 0;
        }
        let held = self
            .by_owner
            .get(owner)
            .and_then(|s| self.held[*s as usize].as_ref());
        if let Some(held) = held.and_then(|h| h.port(port)).filter(|h| h.affinity != 0) {
            return held.affinity;
        }
        let rows = port
            .frontends
            .iter()
            .filter_map(|f| self.inherited.frontends.get(&f.key));
        let numbers: Vec<u32> = rows.map(|row| row.affinity).filter(|n| *n != 0).collect();
        let inherited = numbers.into_iter().find(|n| self.inherited.take_affinity(*n));
        inherited.unwrap_or_else(|| self.affinities.take())
    }

    fn new_slot(&mut self, owner: &Arc<Owner>) -> Slot {
        let slot = self.free_slots.pop().unwrap_or_else(|| {
            self.held.push(None);
            self.held.len() as Slot - 1
        });
        self.by_owner.insert(owner.clone(), slot);
        slot
    }

    /// Puts what a Service is to have in the place of what it has, and gives back what only that needs.
    fn replace(&mut self, slot: Slot, new: Option<Held>) {
        let at = slot as usize;
        let same_age = match (&self.held[at], &new) {
            (Some(old), Some(new)) => old.created == new.created,
            _ => false,
        };
        let keys = |held: &Option<Held>| held.iter().flat_map(|h| &h.rows).copied().collect::<Vec<_>>();
        let (before, after) = (keys(&self.held[at]), keys(&new));
        let kept = |rows: &[(FrontendKey, Frontend)], key: &FrontendKey| {
            same_age && rows.binary_search_by(|(k, _)| k.cmp(key)).is_ok()
        };
        for (key, row) in before.iter().chain(&after) {
            let unchanged = |rows: &[(FrontendKey, Frontend)]| {
                rows.binary_search_by(|(k, _)| k.cmp(key))
                    .is_ok_and(|i| rows[i].1 == *row)
            };
            if !(same_age && unchanged(&before) && unchanged(&after)) {
                self.touch(*key);
            }
        }
        for (key, _) in before.iter().filter(|(k, _)| !kept(&after, k)) {
            let held = &self.held;
            self.claims.remove(key, slot, |a, b| goes_before(held, a, b));
        }
        let old = std::mem::replace(&mut self.held[at], new);
        for (key, _) in after.iter().filter(|(k, _)| !kept(&before, k)) {
            let held = &self.held;
            let lost = self.claims.add(*key, slot, |a, b| goes_before(held, a, b));
            // An address as a whole is refused, whoever's it is: nobody loses by sharing it.
            if let Some(loser) = lost.filter(|_| key.protocol != 0) {
                self.batch.lost.insert((loser, *key));
            }
        }
        if let Some(old) = old {
            self.give_back(old, slot);
        }
    }

    /// Gives back what a Service had and has no longer.
    fn give_back(&mut self, old: Held, slot: Slot) {
        let new = self.held[slot as usize].as_ref();
        let ports = new.map_or(&[][..], |n| &n.ports);
        let (mut slabs, mut affinities): (Vec<Slab>, Vec<u32>) = Default::default();
        for port in ports {
            slabs.extend(port.slabs.iter().map(|s| s.slab));
            affinities.push(port.affinity);
        }
        let ranges: Vec<u32> = new.iter().flat_map(|n| &n.ranges).map(|r| r.number).collect();
        for port in old.ports {
            for (key, serves) in &port.backends {
                self.backends.forget(*key, *serves);
            }
            let gone = port.slabs.iter().filter(|s| !slabs.contains(&s.slab));
            gone.for_each(|s| self.slabs.give_back(Region::of(s.slab)));
            if !affinities.contains(&port.affinity) {
                self.affinities.give_back(port.affinity);
            }
        }
        for held in old.ranges.iter().filter(|r| !ranges.contains(&r.number)) {
            self.range_numbers.give_back(held.number);
            self.batch.source_ranges_gone.extend(held.keys());
        }
    }

    /// Notes what the kernel holds in a row that may change.
    fn touch(&mut self, key: FrontendKey) {
        let before = match self.claims.owner(&key) {
            Some(_) => self.row(&key),
            None => self.inherited.frontends.get(&key).copied(),
        };
        if let Entry::Vacant(place) = self.batch.frontends.entry(key) {
            place.insert(before);
            self.batch.added += usize::from(before.is_none());
        }
    }

    /// What is to be in a row.
    fn row(&self, key: &FrontendKey) -> Option<Frontend> {
        let owner = self.claims.owner(key)?;
        self.held[owner as usize].as_ref()?.row(key)
    }

    /// Whether the kernel, with all changes, has no such row.
    fn is_new_row(&self, key: &FrontendKey) -> bool {
        let known = self.claims.owner(key).is_some() || self.batch.frontends.contains_key(key);
        !known && !self.inherited.frontends.contains_key(key)
    }

    /// How many rows of FRONTENDS there are while the changes are written: what goes, goes last.
    fn frontend_rows(&self) -> usize {
        self.frontend_rows + self.batch.added
    }

    fn conflict(&self, slot: Slot, key: FrontendKey) -> Option<Conflict> {
        let owner = |slot: Slot| self.held[slot as usize].as_ref().map(|h| &*h.owner);
        (key.protocol != 0).then_some(Conflict {
            service: owner(slot)?.service()?.clone(),
            winner: owner(self.claims.owner(&key)?)?.clone(),
            place: Place(key),
        })
    }
}

/// The rows of a port.
fn rows(
    port: &Port,
    slabs: &[HeldSlab],
    affinity: u32,
    ranges: Option<&HeldRanges>,
) -> Vec<(FrontendKey, Frontend)> {
    let slab = |set: Option<usize>| set.map_or(Slab::NONE, |s| slabs[s].slab);
    let row = |f: &crate::compiled::Frontend| Frontend {
        internal: slab(f.internal),
        external: slab(f.external),
        affinity,
        affinity_timeout: port.affinity_timeout,
        source_ranges: ranges.filter(|_| f.limited).map_or(0, |r| r.number),
        flags: f.flags | plan::spread_flag(f.external.map(|s| slabs[s].spread)),
    };
    port.frontends.iter().map(|f| (f.key, row(f))).collect()
}

/// The row of an address as a whole.
fn whole_address(address: Addr) -> FrontendKey {
    FrontendKey {
        address,
        ..FrontendKey::default()
    }
}

fn is_serving(backend: &tombolo_abi::Backend) -> bool {
    backend.state == tombolo_abi::BackendState::Serving as u8
}

fn goes_before(held: &[Option<Held>], a: Slot, b: Slot) -> bool {
    let held = |slot: Slot| held[slot as usize].as_ref();
    match (held(a), held(b)) {
        (Some(a), Some(b)) => a.goes_before(b),
        (a, _) => a.is_some(),
    }
}
