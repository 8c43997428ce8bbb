//! A kernel, the tables, and a history of both: looked at after every row that is written.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tombolo_abi::{Addr, Backend, BackendState, FrontendKey};
use tombolo_services::{Attachment, Capacity, Compiled, Error, KernelRows, Owner, ServiceName, Tables};

use crate::draft::Draft;
use crate::support::{Kernel, Write, slab_rows, writes};
use crate::views::{PODS, View, Views, in_order, views, wanted, who};

pub const SLAB_REST: Duration = Duration::from_secs(5);
pub const ID_REST: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub enum Step {
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

/// The kernel, the tables, and what they ought to say.
pub struct World {
    pub tables: Tables,
    capacity: Capacity,
    pub kernel: Kernel,
    pub services: BTreeMap<u8, Compiled>,
    /// What the kernel showed when the changes were taken last.
    written: Views,
    pub start: Instant,
    pub now: Instant,
    /// When a frontend named a row of a slab last.
    named: BTreeMap<u32, Instant>,
    /// When a backend went.
    gone: BTreeMap<u32, Instant>,
}

impl World {
    pub fn new(capacity: Capacity) -> Self {
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

    pub fn name(service: u8) -> Owner {
        if service >= PODS {
            return Owner::Pod(Attachment {
                container_id: format!("c{service}"),
                interface: "eth0".into(),
                pod: Some(format!("default/p{service}")),
            });
        }
        ServiceName::new("default", format!("s{service}")).into()
    }

    pub fn run(&mut self, step: Step) -> Result<(), Error> {
        match step {
            Step::Apply(service, draft) => {
                let compiled = if service >= PODS {
                    draft.of_pod()
                } else {
                    draft.compiled()
                };
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
                let (pods, services): (Vec<_>, Vec<_>) = in_order(&self.services)
                    .into_iter()
                    .partition(|(number, _)| *number >= PODS);
                for (pod, compiled) in pods {
                    self.tables.apply(&Self::name(pod), Some(compiled), self.now)?;
                }
                // From here on pods come and go, before any Service is known.
                self.tables.settle_host_ports(self.now);
                let changes = writes(&self.tables.take_changes());
                for (service, compiled) in services {
                    self.tables
                        .apply(&Self::name(service), Some(compiled), self.now)?;
                }
                self.tables.settle(self.now);
                self.write_rows(&changes, true);
                self.check_pods();
                self.written = views(&self.kernel);
                self.write(256);
            }
        }
        Ok(())
    }

    /// Writes a part of the changes, in 256ths, and looks at what the kernel holds after each row.
    pub fn write(&mut self, part: usize) {
        let changes = self.tables.take_changes();
        let all = writes(&changes);
        self.write_rows(&all[..all.len() * part / 256], false);
        if part == 256 {
            let wanted = wanted(&self.services);
            self.check_all(&wanted);
            self.written = wanted;
        }
    }

    /// Writes rows, and looks at what the kernel holds after each. What a pod has left may be nobody's as long as no
    /// Service is known.
    fn write_rows(&mut self, rows: &[Write], is_early: bool) {
        let wanted = wanted(&self.services);
        for write in rows {
            self.check_write(write);
            self.kernel.write(write);
            let found = views(&self.kernel);
            for key in self.written.keys().chain(wanted.keys()) {
                let (before, after) = (self.written.get(key), wanted.get(key));
                let found = found.get(key);
                let is_left = is_early && found.is_none() && before.is_some_and(View::is_of_pod);
                assert!(
                    found == before || found == after || is_left,
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
    }

    /// The host ports are what they are to be, whatever there is of Services.
    fn check_pods(&self) {
        let of_pods =
            |views: Views| -> Views { views.into_iter().filter(|(_, view)| view.is_of_pod()).collect() };
        assert_eq!(of_pods(views(&self.kernel)), of_pods(wanted(&self.services)));
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

    pub fn check_all(&self, wanted: &Views) {
        assert_eq!(views(&self.kernel), *wanted);
        // Host ports and Services each have their own row of a backend, and their own word on whether it serves.
        let mut states: BTreeMap<(bool, Addr, u16), u8> = BTreeMap::new();
        for (number, service) in &self.services {
            for backend in service.ports.iter().flat_map(|p| &p.backends) {
                let (address, port) = who(backend);
                let state = states
                    .entry((*number >= PODS, address, port))
                    .or_insert(backend.state);
                *state = (*state).min(backend.state);
            }
        }
        let mut states: Vec<((Addr, u16), u8)> =
            states.into_iter().map(|((_, a, p), s)| ((a, p), s)).collect();
        states.sort();
        let live = self.kernel.backends.values();
        let live = live.filter(|b| b.state != BackendState::Gone as u8);
        let mut live: Vec<((Addr, u16), u8)> = live.map(|b| (who(b), b.state)).collect();
        live.sort();
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
        in_order(&self.services).into_iter().find_map(|(name, service)| {
            let at = service
                .ports
                .iter()
                .position(|p| p.frontends.iter().any(|f| f.key == *key));
            at.map(|at| (name, at))
        })
    }
}
