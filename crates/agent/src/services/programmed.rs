//! What is programmed of Services and host ports. One writes at a time: the programmer, or who brings a pod's host ports.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use tombolo_datapath::Result;
use tombolo_services::{Changes, Conflict, Error as Refusal, KernelRows, ServiceName, Tables};

use super::host_ports::HostPorts;
use super::kernel::{CAPACITY, Kernel};

/// IP protocol number.
const UDP: u8 = 17;

/// How many problems are told one by one.
const TOLD: usize = 10;

/// How often sockets are looked at after backends have gone: once more for those that were being connected meanwhile, or
/// could not be ended.
const LOOKS: u8 = 2;

/// What is programmed, and what of it is not as somebody wants it.
pub struct Programmed {
    pub tables: Tables,
    pub host_ports: HostPorts,
    /// What the kernel has not taken yet: nothing else is applied before.
    unwritten: Option<Changes>,
    /// How often to look for the node's sockets whose backends have gone; at the start, too, as an agent before this one
    /// may not have come to it.
    looks: u8,
    /// How often the kernel refused, and nobody has counted yet.
    pub errors: u64,
    /// Claims that were lost, and nobody was told of yet.
    pub lost: Vec<Conflict>,
    /// Services that there was no room for, and when to try again.
    pub refused: BTreeMap<Arc<ServiceName>, (Refusal, Instant)>,
    /// What is wrong with objects.
    pub problems: BTreeMap<Arc<ServiceName>, Vec<String>>,
}

impl Programmed {
    /// What an agent before this one has written.
    pub fn adopt(rows: KernelRows) -> Self {
        Self {
            tables: Tables::adopt(CAPACITY, rows, Instant::now()),
            host_ports: HostPorts::default(),
            unwritten: None,
            looks: LOOKS,
            errors: 0,
            lost: Vec::new(),
            refused: BTreeMap::new(),
            problems: BTreeMap::new(),
        }
    }

    /// Whether [`write_left`](Self::write_left) has something to do, in a second.
    pub fn has_left(&self) -> bool {
        self.unwritten.is_some() || self.looks > 0 || !self.host_ports.behind.is_empty()
    }

    /// Writes what the kernel has not taken before, and what there was no room for. To be called before anything is applied to the tables.
    ///
    /// # Errors
    /// It does not take it now, either.
    pub fn write_left(&mut self, kernel: &Kernel) -> Result<()> {
        if let Some(changes) = self.unwritten.take() {
            return self.write_changes(kernel, changes);
        }
        self.end_sockets(kernel);
        if self.host_ports.behind.is_empty() {
            return Ok(());
        }
        // Those that there is still no room for stay behind.
        self.catch_up();
        self.write(kernel)
    }

    /// Writes what was applied since.
    ///
    /// # Errors
    /// The kernel refuses, and is to get it again by [`write_left`](Self::write_left).
    pub fn write(&mut self, kernel: &Kernel) -> Result<()> {
        let changes = self.tables.take_changes();
        self.write_changes(kernel, changes)
    }

    fn write_changes(&mut self, kernel: &Kernel, changes: Changes) -> Result<()> {
        if !changes.is_empty()
            && let Err(error) = kernel.write(&changes)
        {
            self.unwritten = Some(changes);
            self.errors += 1;
            return Err(error);
        }
        if changes
            .backends_down
            .iter()
            .any(|(_, backend)| backend.protocol == UDP)
        {
            self.looks = LOOKS;
            self.end_sockets(kernel);
        }
        self.lost.extend(changes.conflicts);
        Ok(())
    }

    /// The node's own connected UDP sockets cannot choose again: they are told that their backend has gone.
    fn end_sockets(&mut self, kernel: &Kernel) {
        if self.looks == 0 {
            return;
        }
        self.looks -= 1;
        match kernel.datapath.end_sockets() {
            Ok(0) => {}
            Ok(ended) => tracing::debug!(ended, "ended UDP sockets whose backends have gone"),
            Err(error) => {
                self.errors += 1;
                tracing::error!(%error, "cannot end UDP sockets whose backends have gone");
            }
        }
    }

    /// What is wrong, for a person.
    pub fn problems(&self) -> Vec<String> {
        let refused = self.refused.values().map(|(why, _)| why.to_string());
        let conflicts = self.tables.conflicts();
        let conflicts = conflicts.iter().map(|c| format!("Service {}: {c}", c.service));
        let problems = self.problems.values().flatten().cloned();
        let host_ports = self.host_ports.problems().cloned();
        let mut all: Vec<String> = refused
            .chain(conflicts)
            .chain(problems)
            .chain(host_ports)
            .collect();
        if all.len() > TOLD {
            let more = all.len() - TOLD;
            all.truncate(TOLD);
            all.push(format!("and {more} more with Services; see the agent's log"));
        }
        all
    }
}
