//! Whatever Services come, change and go, and wherever writing stops: what the kernel holds is right.

#![allow(clippy::unwrap_used, reason = "what panics here fails the test")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use support::{Kernel, ROOMY, Write, slab_rows, writes};
use tombolo_abi::{Addr, Backend, BackendState, FrontendKey};
use tombolo_services::{
    Capacity, Compiled, Error, Family, Frontend, KernelRows, Port, Resource, Scope, ServiceName, Set, Spread,
    Tables, maglev_table,
};

const SLAB_REST: Duration = Duration::from_secs(5);
const ID_REST: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
enum Step {
    /// A Service is made or changed.
    Apply(u8, Draft),
    Remove(u8),
    /// The changes are written.
    Write,
    /// They are written up to some point (in 256ths), and another agent begins with what is there.
    Crash(u8),
    /// Seconds pass.
    Wait(u8),
}

/// Enough to make a Service of: drawn from so little that Services meet at addresses and backends.
#[derive(Clone, Debug)]
struct Draft {
    age: Option<i64>,
    ports: Vec<PortDraft>,
    ranges: BTreeSet<u8>,
    whole: BTreeSet<u8>,
}

#[derive(Clone, Debug)]
struct PortDraft {
    places: BTreeSet<(u8, u8)>,
    backends: BTreeMap<u8, bool>,
    /// How many of those that serve are in the external set.
    external: usize,
    affinity: bool,
    limited: bool,
}

fn draft() -> impl Strategy<Value = Draft> {
    let port = (
        prop::collection::btree_set((0u8..4, 80u8..82), 0..3),
        prop::collection::btree_map(0u8..8, prop::bool::weighted(0.7), 0..4),
        0usize..4,
        any::<bool>(),
        any::<bool>(),
    );
    let port = port.prop_map(|(places, backends, external, affinity, limited)| PortDraft {
        places,
        backends,
        external,
        affinity,
        limited,
    });
    let ports = prop::collection::vec(port, 0..3);
    let few = || prop::collection::btree_set(0u8..4, 0..3);
    (prop::option::of(0i64..3), ports, few(), few()).prop_map(|(age, ports, ranges, whole)| Draft {
        age,
        ports,
        ranges,
        whole,
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..6, draft()).prop_map(|(s, d)| Step::Apply(s, d)),
        2 => (0u8..6).prop_map(Step::Remove),
        4 => Just(Step::Write),
        1 => any::<u8>().prop_map(Step::Crash),
        2 => (0u8..80).prop_map(Step::Wait),
    ]
}

fn v4(a: u8, b: u8) -> Addr {
    IpAddr::V4(Ipv4Addr::new(10, a, 0, b)).into()
}

impl Draft {
    fn compiled(&self) -> Compiled {
        let mut taken = BTreeSet::new();
        let ports = self.ports.iter().enumerate();
        let ports = ports.map(|(i, p)| p.port(i, &mut taken)).collect();
        let second = |s: i64| serde_json::from_value(format!("2026-01-01T00:00:0{s}Z").into()).unwrap();
        Compiled {
            created: self.age.map(second),
            ports,
            addresses: self.whole.iter().map(|a| v4(0, *a)).collect(),
            source_ranges: self
                .ranges
                .iter()
                .map(|r| format!("192.168.{r}.0/24").parse().unwrap())
                .collect(),
            ..Compiled::default()
        }
    }
}

impl PortDraft {
    fn port(&self, index: usize, taken: &mut BTreeSet<(u8, u8)>) -> Port {
        let serving: Vec<u32> = (0..)
            .zip(self.backends.values())
            .filter(|(_, s)| **s)
            .map(|(i, _)| i)
            .collect();
        let external = &serving[..self.external.min(serving.len())];
        let wanted = [(Spread::Random, &serving[..]), (Spread::Maglev, external)];
        let sets: Vec<Set> = wanted
            .iter()
            .filter(|(_, m)| !m.is_empty())
            .map(|(spread, m)| Set {
                spread: *spread,
                members: m.to_vec(),
            })
            .collect();
        let set = |spread: Spread| sets.iter().position(|s| s.spread == spread);
        let places = self.places.iter().filter(|p| taken.insert(**p));
        let frontends = places.map(|(address, port)| Frontend {
            key: FrontendKey {
                address: v4(0, *address),
                port: u16::from(*port).to_be(),
                protocol: 6,
                pad: 0,
            },
            scope: Scope::LoadBalancer,
            internal: set(Spread::Random),
            external: set(Spread::Maglev),
            flags: if external.is_empty() {
                tombolo_abi::Frontend::DROP_EXTERNAL
            } else {
                0
            },
            limited: self.limited,
        });
        let state = |serves: bool| {
            if serves {
                BackendState::Serving
            } else {
                BackendState::NotServing
            }
        };
        let backend = |(b, serves): (&u8, &bool)| Backend {
            address: v4(1, *b),
            port: 8080_u16.to_be(),
            protocol: 6,
            state: state(*serves) as u8,
        };
        Port {
            name: format!("p{index}"),
            protocol: 6,
            family: Family::V4,
            affinity_timeout: if self.affinity { 60 } else { 0 },
            backends: self.backends.iter().map(backend).collect(),
            frontends: frontends.collect(),
            sets,
        }
    }
}

/// What a client meets at a frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
struct View {
    internal: Vec<(Addr, u16)>,
    external: Vec<(Addr, u16)>,
    affinity: Option<u32>,
    clients: Option<BTreeSet<(u32, Addr)>>,
    flags: u32,
}

type Views = BTreeMap<FrontendKey, View>;

/// What is asked for, by the slow way: the oldest Service that claims it has it.
fn wanted(services: &BTreeMap<u8, Compiled>) -> Views {
    let mut by_age: Vec<(&u8, &Compiled)> = services.iter().collect();
    by_age.sort_by_key(|(name, c)| (c.created.is_none(), c.created, **name));
    let mut views = Views::new();
    for (_, service) in by_age {
        for port in &service.ports {
            let entries = |set: Option<usize>| {
                let Some(set) = set.map(|s| &port.sets[s]) else {
                    return Vec::new();
                };
                let members: Vec<Backend> = set.members.iter().map(|m| port.backends[*m as usize]).collect();
                match set.spread {
                    Spread::Random => members.iter().map(who).collect(),
                    Spread::Maglev => maglev_table(&members)
                        .iter()
                        .map(|i| who(&members[*i as usize]))
                        .collect(),
                }
            };
            let range = |r: &ipnet::IpNet| (96 + u32::from(r.prefix_len()), Addr::from(r.network()));
            for frontend in &port.frontends {
                let maglev = if frontend.external.is_some() {
                    tombolo_abi::Frontend::MAGLEV_EXTERNAL
                } else {
                    0
                };
                views.entry(frontend.key).or_insert_with(|| View {
                    internal: entries(frontend.internal),
                    external: entries(frontend.external),
                    affinity: (port.affinity_timeout > 0).then_some(port.affinity_timeout),
                    clients: frontend
                        .limited
                        .then(|| service.source_ranges.iter().map(range).collect()),
                    flags: frontend.flags | maglev,
                });
            }
        }
    }
    for address in services.values().flat_map(|s| &s.addresses) {
        let key = FrontendKey {
            address: *address,
            ..FrontendKey::default()
        };
        views.entry(key).or_insert(View {
            internal: Vec::new(),
            external: Vec::new(),
            affinity: None,
            clients: None,
            flags: 0,
        });
    }
    views
}

fn who(backend: &Backend) -> (Addr, u16) {
    (backend.address, backend.port)
}

fn views(kernel: &Kernel) -> Views {
    let view = |row: &tombolo_abi::Frontend| View {
        internal: kernel.slab(row.internal).iter().map(who).collect(),
        external: kernel.slab(row.external).iter().map(who).collect(),
        affinity: (row.affinity != 0).then_some(row.affinity_timeout),
        clients: kernel.clients(row.source_ranges),
        flags: row.flags,
    };
    kernel
        .frontends
        .iter()
        .map(|(key, row)| (*key, view(row)))
        .collect()
}

/// The kernel, the tables, and what they ought to say.
struct World {
    tables: Tables,
    capacity: Capacity,
    kernel: Kernel,
    services: BTreeMap<u8, Compiled>,
    /// What the kernel showed when the changes were taken last.
    written: Views,
    start: Instant,
    now: Instant,
    /// When a frontend named a row of a slab last.
    named: BTreeMap<u32, Instant>,
    /// When a backend went.
    gone: BTreeMap<u32, Instant>,
}

impl World {
    fn new(capacity: Capacity) -> Self {
        let now = Instant::now();
        Self {
            tables: Tables::adopt(capacity, KernelRows::default(), now),
            capacity,
            kernel: Kernel::default(),
            services: BTreeMap::new(),
            written: Views::new(),
            start: now,
            now,
            named: BTreeMap::new(),
            gone: BTreeMap::new(),
        }
    }

    fn name(service: u8) -> ServiceName {
        ServiceName::new("default", format!("s{service}"))
    }

    fn run(&mut self, step: Step) -> Result<(), Error> {
        match step {
            Step::Apply(service, draft) => {
                let compiled = draft.compiled();
                self.tables
                    .apply(&Self::name(service), Some(&compiled), self.now)?;
                self.services.insert(service, compiled);
            }
            Step::Remove(service) => {
                self.tables.apply(&Self::name(service), None, self.now)?;
                self.services.remove(&service);
            }
            Step::Write => self.write(256),
            Step::Wait(seconds) => self.now += Duration::from_secs(seconds.into()),
            Step::Crash(part) => {
                self.write(part.into());
                self.written = views(&self.kernel);
                self.tables = Tables::adopt(self.capacity, self.kernel.rows(), self.now);
                for (service, compiled) in &self.services {
                    self.tables
                        .apply(&Self::name(*service), Some(compiled), self.now)?;
                }
                self.tables.settle(self.now);
                self.write(256);
            }
        }
        Ok(())
    }

    /// Writes a part of the changes, in 256ths, and looks at what the kernel holds after each row.
    fn write(&mut self, part: usize) {
        let changes = self.tables.take_changes();
        let all = writes(&changes);
        let wanted = wanted(&self.services);
        for write in &all[..all.len() * part / 256] {
            self.check_write(write);
            self.kernel.write(write);
            let found = views(&self.kernel);
            for key in self.written.keys().chain(wanted.keys()) {
                let (before, after) = (self.written.get(key), wanted.get(key));
                let found = found.get(key);
                assert!(
                    found == before || found == after,
                    "{key:?} is neither what it was nor what it is to be: {found:?}"
                );
            }
            for row in self.kernel.frontends.values() {
                for backend in [row.internal, row.external]
                    .into_iter()
                    .flat_map(|s| self.kernel.slab(s))
                {
                    assert_eq!(
                        backend.state,
                        BackendState::Serving as u8,
                        "{row:?} leads to {backend:?}"
                    );
                }
            }
        }
        if part == 256 {
            self.check_all(&wanted);
            self.written = wanted;
        }
    }

    /// Nothing is overwritten that somebody may still look at.
    fn check_write(&mut self, write: &Write) {
        match write {
            Write::SlabRow(at, _) => {
                let live = self
                    .kernel
                    .frontends
                    .values()
                    .flat_map(|f| [f.internal, f.external]);
                assert!(
                    !live.into_iter().any(|s| slab_rows(s).contains(at)),
                    "row {at} is named"
                );
                if let Some(since) = self.named.get(at) {
                    assert!(*since + SLAB_REST <= self.now, "row {at} has not rested");
                }
            }
            Write::Backend(id, row) => {
                let before = self.kernel.backends.get(id).copied().unwrap_or_default();
                if before != Backend::default() && who(&before) != who(row) {
                    assert_eq!(before.state, BackendState::Gone as u8, "id {id} is {before:?}'s");
                }
                if before != Backend::default() && before.state == BackendState::Gone as u8 {
                    assert!(self.gone[id] + ID_REST <= self.now, "id {id} has not rested");
                }
                if row.state == BackendState::Gone as u8 {
                    self.gone.insert(*id, self.now);
                }
            }
            Write::Frontend(key, _) | Write::NoFrontend(key) => {
                for slab in self
                    .kernel
                    .frontends
                    .get(key)
                    .into_iter()
                    .flat_map(|f| [f.internal, f.external])
                {
                    self.named.extend(slab_rows(slab).map(|row| (row, self.now)));
                }
            }
            Write::SourceRange(_) | Write::NoSourceRange(_) => {}
        }
    }

    fn check_all(&self, wanted: &Views) {
        assert_eq!(views(&self.kernel), *wanted);
        let mut states: BTreeMap<(Addr, u16), u8> = BTreeMap::new();
        for backend in self
            .services
            .values()
            .flat_map(|s| &s.ports)
            .flat_map(|p| &p.backends)
        {
            let state = states.entry(who(backend)).or_insert(backend.state);
            *state = (*state).min(backend.state);
        }
        let live = self
            .kernel
            .backends
            .values()
            .filter(|b| b.state != BackendState::Gone as u8);
        let live: Vec<((Addr, u16), u8)> = live.map(|b| (who(b), b.state)).collect();
        let count = live.len();
        let live: BTreeMap<(Addr, u16), u8> = live.into_iter().collect();
        assert_eq!(live.len(), count, "a backend has two ids");
        assert_eq!(live, states);
        // Slabs do not overlap, and each is one port's.
        let mut rows = BTreeMap::new();
        let mut numbers = BTreeMap::new();
        for (key, row) in &self.kernel.frontends {
            let Some(port) = self.port_of(key) else { continue };
            for slab in [row.internal, row.external] {
                for at in slab_rows(slab) {
                    assert_eq!(
                        *rows.entry(at).or_insert((slab, port)),
                        (slab, port),
                        "row {at} is in two slabs"
                    );
                }
            }
            if row.affinity != 0 {
                assert_eq!(
                    *numbers.entry(row.affinity).or_insert(port),
                    port,
                    "two ports have one affinity"
                );
            }
        }
        let used: BTreeSet<u32> = self
            .kernel
            .source_ranges
            .iter()
            .map(|k| u32::from_be(k.ranges))
            .collect();
        let limited = self
            .services
            .values()
            .filter(|s| s.ports.iter().any(|p| p.frontends.iter().any(|f| f.limited)));
        assert!(
            used.len() <= limited.count(),
            "source ranges stay that nobody uses"
        );
    }

    /// Which port of which Service has a frontend.
    fn port_of(&self, key: &FrontendKey) -> Option<(u8, usize)> {
        let mut by_age: Vec<(&u8, &Compiled)> = self.services.iter().collect();
        by_age.sort_by_key(|(name, c)| (c.created.is_none(), c.created, **name));
        by_age.into_iter().find_map(|(name, service)| {
            let at = service
                .ports
                .iter()
                .position(|p| p.frontends.iter().any(|f| f.key == *key));
            at.map(|at| (*name, at))
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_kernel_is_right_at_every_moment(steps in prop::collection::vec(step(), 1..40)) {
        let mut world = World::new(ROOMY);
        for step in steps {
            world.run(step).unwrap();
        }
        world.write(256);
    }

    /// With little room Services are refused, and those that were there before stay as they are.
    #[test]
    fn what_does_not_fit_leaves_everything_as_it_was(steps in prop::collection::vec(step(), 1..40)) {
        let mut world = World::new(Capacity { frontends: 8, slab_rows: 40, backends: 9, source_ranges: 3 });
        for step in steps {
            if !matches!(step, Step::Crash(_)) {
                let _refused = world.run(step);
            }
        }
        world.write(256);
        let rows = &world.kernel;
        prop_assert!(rows.frontends.len() <= 8 && rows.source_ranges.len() <= 3);
        prop_assert!(rows.slab_rows.keys().all(|at| *at < 40) && rows.backends.keys().all(|id| (1..9).contains(id)));
        // What went left nothing behind: after the rest there is room for as much as in the beginning.
        for service in 0..6 {
            world.run(Step::Remove(service)).unwrap();
        }
        world.write(256);
        prop_assert!(world.kernel.frontends.is_empty() && world.kernel.source_ranges.is_empty());
        // The rest begins with the first change after.
        world.run(Step::Remove(0)).unwrap();
        world.now += ID_REST;
        let full = (0..8).map(|b| (b, true)).collect();
        let port = PortDraft { places: [(0, 80)].into(), backends: full, external: 8, affinity: false, limited: true };
        let all = Draft { age: None, ports: vec![port], ranges: [0, 1, 2].into(), whole: BTreeSet::new() };
        let fitting = Draft { ports: vec![PortDraft { external: 2, ..all.ports[0].clone() }], ..all };
        prop_assert_eq!(world.run(Step::Apply(0, fitting)), Ok(()));
    }

    /// A restart without a change writes nothing.
    #[test]
    fn a_restart_changes_nothing(drafts in prop::collection::vec(draft(), 1..6)) {
        let mut world = World::new(ROOMY);
        for (service, draft) in (0..).zip(drafts) {
            world.run(Step::Apply(service, draft)).unwrap();
        }
        world.write(256);
        let mut tables = Tables::adopt(ROOMY, world.kernel.rows(), world.start);
        let mut by_age: Vec<(&u8, &Compiled)> = world.services.iter().collect();
        by_age.sort_by_key(|(name, c)| (c.created.is_none(), c.created, **name));
        for (service, compiled) in by_age {
            tables.apply(&World::name(*service), Some(compiled), world.start).unwrap();
        }
        tables.settle(world.start);
        let changes = tables.take_changes();
        let seen = (&changes.frontends, &changes.frontends_gone, &changes.backends_up, &changes.backends_down);
        prop_assert_eq!(seen, (&vec![], &vec![], &vec![], &vec![]));
        // Where the slabs and ranges of a port are that has lost its frontends, nothing tells.
        let mut ports = world.services.values().flat_map(|s| &s.ports);
        if tables.conflicts().is_empty() && ports.all(|p| !p.frontends.is_empty()) {
            prop_assert!(changes.is_empty(), "{changes:?}");
        }
    }
}

fn one_backend(service: u8, backend: u8) -> (ServiceName, Compiled) {
    let port = PortDraft {
        places: [(service, 80)].into(),
        backends: [(backend, true)].into(),
        external: 0,
        affinity: false,
        limited: false,
    };
    let draft = Draft {
        age: Some(0),
        ports: vec![port],
        ranges: BTreeSet::new(),
        whole: BTreeSet::new(),
    };
    (World::name(service), draft.compiled())
}

#[test]
fn a_full_table_says_what_is_missing_and_whether_to_wait() {
    let now = Instant::now();
    let capacity = Capacity { backends: 2, ..ROOMY };
    let mut tables = Tables::adopt(capacity, KernelRows::default(), now);
    let (first, first_compiled) = one_backend(0, 0);
    let (second, second_compiled) = one_backend(1, 1);
    tables.apply(&first, Some(&first_compiled), now).unwrap();
    let full = tables.apply(&second, Some(&second_compiled), now).unwrap_err();
    assert_eq!(
        full.to_string(),
        "Service default/s1 stays as it is on this node: it needs 1 more backend ids, and 0 of 1 are free; remove Services or endpoints that nobody needs"
    );
    tables.take_changes();
    tables.apply(&first, None, now).unwrap();
    tables.take_changes();
    let later = now + ID_REST - Duration::from_secs(1);
    let resting = tables.apply(&second, Some(&second_compiled), now).unwrap_err();
    assert!(
        matches!(
            resting,
            Error::Resting {
                what: Resource::Backends,
                ..
            }
        ),
        "{resting}"
    );
    let resting = tables.apply(&second, Some(&second_compiled), later).unwrap_err();
    assert!(matches!(resting, Error::Resting { .. }), "{resting}");
    tables
        .apply(&second, Some(&second_compiled), now + ID_REST)
        .unwrap();
}

#[test]
fn the_older_service_has_the_address_and_the_other_gets_it_after() {
    let now = Instant::now();
    let mut tables = Tables::adopt(ROOMY, KernelRows::default(), now);
    let (younger, mut compiled) = one_backend(0, 0);
    compiled.created = None;
    tables.apply(&younger, Some(&compiled), now).unwrap();
    assert_eq!(tables.take_changes().conflicts, []);
    let (older, mut other) = one_backend(1, 1);
    other.ports[0].frontends[0].key = compiled.ports[0].frontends[0].key;
    tables.apply(&older, Some(&other), now).unwrap();
    let changes = tables.take_changes();
    assert_eq!(
        (changes.frontends.len(), changes.frontends_gone.len()),
        (1, 0),
        "one row, replaced"
    );
    let told: Vec<String> = changes.conflicts.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "10.0.0.0:80/TCP is Service default/s1's, which is older; remove it there, or give Service default/s0 another"
        ]
    );
    assert_eq!(tables.conflicts(), changes.conflicts);
    tables.apply(&older, None, now).unwrap();
    let changes = tables.take_changes();
    assert_eq!(
        (changes.frontends.len(), changes.frontends_gone.len()),
        (1, 0),
        "the same row, given to the other"
    );
    assert_eq!(tables.conflicts(), []);
}

#[test]
fn one_endpoint_more_writes_one_backend_one_slab_and_the_ports_frontends() {
    let now = Instant::now();
    let mut tables = Tables::adopt(ROOMY, KernelRows::default(), now);
    for service in 0..4 {
        let (name, compiled) = one_backend(service, service);
        tables.apply(&name, Some(&compiled), now).unwrap();
    }
    tables.take_changes();
    let (name, mut compiled) = one_backend(2, 2);
    let mut more = compiled.ports[0].backends[0];
    more.address = v4(1, 7);
    compiled.ports[0].backends.push(more);
    compiled.ports[0].sets[0].members.push(1);
    tables.apply(&name, Some(&compiled), now).unwrap();
    let changes = tables.take_changes();
    assert_eq!(changes.writes(), 3, "{changes:?}");
    tables.apply(&name, Some(&compiled), now).unwrap();
    assert!(tables.take_changes().is_empty(), "nothing changed");
}
