//! Whatever Services come, change and go, and wherever writing stops: what the kernel holds is right.

#![allow(clippy::unwrap_used, reason = "what panics here fails the test")]

mod draft;
mod host_ports;
mod refused;
#[path = "../support/mod.rs"]
mod support;
mod views;
mod world;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use draft::{Draft, PortDraft, draft, v4};
use proptest::prelude::*;
use support::{Kernel, ROOMY, cases};
use tombolo_abi::{Backend, Frontend, FrontendKey, Slab, SlabRow};
use tombolo_services::{Capacity, Compiled, Error, KernelRows, Owner, Resource, Tables};
use views::{in_order, wanted};
use world::{ID_REST, Step, World};

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..6, draft()).prop_map(|(s, d)| Step::Apply(s, d)),
        2 => (0u8..6).prop_map(Step::Remove),
        4 => Just(Step::Write),
        1 => any::<u8>().prop_map(Step::Crash),
        2 => (0u8..80).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(cases(256))]

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
        for (service, compiled) in in_order(&world.services) {
            tables.apply(&World::name(service), Some(compiled), world.start).unwrap();
        }
        tables.settle_host_ports(world.start);
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

    /// Rows that nobody can have written do not mislead an agent: in the end there is what there should be.
    #[test]
    fn whatever_the_kernel_holds_is_put_right(
        words in prop::collection::vec((0u8..4, any::<[u32; 4]>(), any::<[u16; 4]>()), 0..6),
        rows in prop::collection::btree_map(0u32..40, prop::array::uniform16(0u32..12), 0..6),
        backends in prop::collection::btree_map(0u32..12, (0u8..4, 0u8..4), 0..6),
        drafts in prop::collection::vec(draft(), 1..4),
    ) {
        let mut world = World::new(ROOMY);
        for (address, [internal, external, affinity, source_ranges], [len, more, generation, flags]) in words {
            let key = FrontendKey { address: v4(0, address), port: 80_u16.to_be(), protocol: 6, pad: 0 };
            // Half of them within the rows that have something.
            let slab = |base: u32, len: u16| Slab::new(if base.is_multiple_of(2) { base % 40 } else { base }, len % 300, generation);
            let flags = u32::from(flags);
            let (internal, external) = (slab(internal, len), slab(external, more));
            let row = Frontend { internal, external, affinity, affinity_timeout: 1, source_ranges, flags };
            world.kernel.frontends.insert(key, row);
        }
        world.kernel.slab_rows = rows.into_iter().map(|(at, backends)| (at, SlabRow { backends })).collect();
        let backend = |(id, (b, state))| (id, Backend { address: v4(1, b), port: 8080_u16.to_be(), protocol: 6, state });
        world.kernel.backends = backends.into_iter().map(backend).collect();
        world.tables = Tables::adopt(ROOMY, world.kernel.rows(), world.now);
        for (service, draft) in (0..).zip(drafts) {
            world.run(Step::Apply(service, draft)).unwrap();
        }
        world.tables.settle(world.now);
        let changes = world.tables.take_changes();
        world.kernel.write_all(&changes);
        world.kernel.backends.remove(&0);
        world.check_all(&wanted(&world.services));
    }
}

fn one_backend(service: u8, backend: u8) -> (Owner, Compiled) {
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

/// A port with two backends, reached at one place: one row for those inside and 16 for those outside.
fn two_slabs(place: u8) -> PortDraft {
    PortDraft {
        places: [(place, 80)].into(),
        backends: [(0, true), (1, true)].into(),
        external: 2,
        affinity: false,
        limited: false,
    }
}

fn with_ports(ports: Vec<PortDraft>) -> Compiled {
    let draft = Draft {
        age: Some(0),
        ports,
        ranges: BTreeSet::new(),
        whole: BTreeSet::new(),
    };
    draft.compiled()
}

#[test]
fn what_was_found_for_a_service_that_does_not_fit_is_free_again() {
    let now = Instant::now();
    let capacity = Capacity {
        slab_rows: 17 + 16,
        ..ROOMY
    };
    let (one, two) = (
        with_ports(vec![two_slabs(0)]),
        with_ports(vec![two_slabs(0), two_slabs(1)]),
    );
    let mut tables = Tables::adopt(capacity, KernelRows::default(), now);
    let name = World::name(0);
    let refused = tables.apply(&name, Some(&two), now).unwrap_err();
    assert!(
        matches!(
            refused,
            Error::Full {
                what: Resource::SlabRows,
                ..
            }
        ),
        "{refused}"
    );
    tables.apply(&name, Some(&one), now).unwrap();
    let mut kernel = Kernel::default();
    kernel.write_all(&tables.take_changes());

    // The same with slabs that an agent before had written.
    let mut tables = Tables::adopt(capacity, kernel.rows(), now);
    tables.apply(&name, Some(&two), now).unwrap_err();
    tables.apply(&name, Some(&one), now).unwrap();
    tables.settle(now);
    let changes = tables.take_changes();
    assert!(changes.is_empty(), "{changes:?}");
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
            "10.0.0.0:80/TCP is Service default/s1's, which is older, or as old and first by name; remove it there, or give Service default/s0 another"
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
