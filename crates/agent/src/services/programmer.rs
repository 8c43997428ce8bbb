//! Makes the kernel's tables of Services what the objects say, whenever one has changed.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;
use tombolo_services::{Conflict, Error as Refusal, Facts, HealthCheck, Owner, ServiceName};

use super::events::Lost;
use super::health::{Answer, Vitals};
use super::kernel::Kernel;
use super::programmed::Programmed;
use super::store::Store;
use super::{Message, memory};
use crate::error::Error;
use crate::metrics::Metrics;

/// How many messages are taken in before the kernel hears of them: so many come within a few milliseconds only when
/// objects are listed.
const AT_ONCE: usize = 4096;

/// How long to wait before writing again what the kernel refused.
const WRITE_AGAIN: Duration = Duration::from_secs(1);

/// How long to wait before a Service is tried again that there was no room for: some rests, or none at all.
const RESTING: Duration = Duration::from_secs(1);
const FULL: Duration = Duration::from_secs(10);

/// Does the work.
pub struct Programmer {
    kernel: Arc<Kernel>,
    programmed: Arc<Mutex<Programmed>>,
    store: Store,
    facts: Facts,
    /// Whether the node's own object has been looked for, and all nodes' addresses are known.
    knows_node: bool,
    knows_addresses: bool,
    /// Whether all that is there has been programmed once.
    settled: bool,
    health_checks: BTreeMap<Arc<ServiceName>, HealthCheck>,
    health_changed: bool,
    conflicts: UnboundedSender<Lost>,
    vitals: watch::Sender<Vitals>,
    metrics: Arc<Metrics>,
}

impl Programmer {
    pub fn new(
        node: String,
        kernel: Arc<Kernel>,
        programmed: Arc<Mutex<Programmed>>,
        conflicts: UnboundedSender<Lost>,
        vitals: watch::Sender<Vitals>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            kernel,
            programmed,
            store: Store::default(),
            facts: Facts {
                node,
                ..Facts::default()
            },
            knows_node: false,
            knows_addresses: false,
            settled: false,
            health_checks: BTreeMap::new(),
            health_changed: false,
            conflicts,
            vitals,
            metrics,
        }
    }

    /// Starts the thread, for as long as the process lives.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn start(mut self, told: Receiver<Message>) -> Result<(), Error> {
        let work = move || {
            let mut again = None;
            while self.listen(&told, again) {
                again = self.round();
            }
        };
        let spawned = thread::Builder::new().name("services".into()).spawn(work);
        spawned.map(drop).map_err(|source| Error::Start {
            what: "the programmer of Services",
            source,
        })
    }

    /// Takes in what was told; waits until something is, or for the time to try `again`. False: nobody will ever
    /// tell anything any more.
    fn listen(&mut self, told: &Receiver<Message>, again: Option<Instant>) -> bool {
        let first = match again {
            None => told.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) => told.recv_timeout(at.saturating_duration_since(Instant::now())),
        };
        match first {
            Ok(message) => self.take_in(message),
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
        told.try_iter()
            .take(AT_ONCE)
            .for_each(|message| self.take_in(message));
        true
    }

    fn take_in(&mut self, message: Message) {
        match message {
            Message::Wake => {}
            Message::Service(change) => self.store.service(change),
            Message::Slice(change) => self.store.slice(change),
            Message::Node(node) => {
                self.vitals.send_if_modified(|vitals| {
                    std::mem::replace(&mut vitals.node_is_going, node.is_going) != node.is_going
                });
                if !std::mem::replace(&mut self.knows_node, true) || self.facts.zone != node.zone {
                    self.facts.zone = node.zone;
                    self.store.recompile();
                }
            }
            Message::NodeAddresses(addresses) => {
                self.knows_addresses = true;
                if self.facts.node_addresses != addresses {
                    let moved = self
                        .facts
                        .node_addresses
                        .symmetric_difference(&addresses)
                        .copied()
                        .collect();
                    self.facts.node_addresses = addresses;
                    self.store.recompile_at(&moved);
                }
            }
        }
    }

    /// Programs what has changed. Returns when to try again what was left undone.
    fn round(&mut self) -> Option<Instant> {
        let start = Instant::now();
        let programmed = self.programmed.clone();
        let mut programmed = programmed.lock().unwrap_or_else(PoisonError::into_inner);
        let left = programmed.write_left(&self.kernel);
        let left = self.note(left);
        let all_seen = self.store.is_complete() && self.knows_node && self.knows_addresses;
        if !left || !all_seen {
            self.count(&mut programmed);
            return programmed.has_left().then_some(start + WRITE_AGAIN);
        }
        let mut changed = self.store.take_changed();
        let waits_no_longer = programmed
            .refused
            .iter()
            .filter(|(_, (_, again))| *again <= start);
        let waits_no_longer: Vec<_> = waits_no_longer.map(|(name, _)| name.clone()).collect();
        changed.extend(waits_no_longer);
        for name in &changed {
            self.apply(&mut programmed, name, start);
        }
        let is_first = !std::mem::replace(&mut self.settled, true);
        if is_first {
            programmed.tables.settle(start);
            tracing::info!(services = self.store.len(), took = ?start.elapsed(), "compiled all Services");
        }
        let written = programmed.write(&self.kernel);
        self.note(written);
        let refused = programmed.refused.values().map(|(_, again)| *again);
        let left = programmed.has_left().then_some(start + WRITE_AGAIN);
        let again = refused.chain(left).min();
        self.count(&mut programmed);
        let lost = std::mem::take(&mut programmed.lost);
        drop(programmed);
        self.tell_losers(lost);
        if is_first {
            memory::give_back();
        }
        if std::mem::take(&mut self.health_changed) {
            self.tell_health();
        }
        self.metrics.services_round.observe(start.elapsed().as_secs_f64());
        again
    }

    fn apply(&mut self, programmed: &mut Programmed, name: &Arc<ServiceName>, now: Instant) {
        let compiled = self.store.compile(name, &self.facts);
        let check = compiled.as_ref().and_then(|c| c.health_check);
        let before = match check {
            Some(check) => self.health_checks.insert(name.clone(), check),
            None => self.health_checks.remove(name),
        };
        self.health_changed |= before != check;
        let problems = compiled.as_ref().map_or(&[][..], |c| &c.problems);
        if programmed.problems.get(name).map_or(&[][..], Vec::as_slice) != problems {
            problems.iter().for_each(|problem| tracing::warn!("{problem}"));
            if problems.is_empty() {
                programmed.problems.remove(name);
            } else {
                programmed.problems.insert(name.clone(), problems.to_vec());
            }
        }
        let owner = Owner::Service((**name).clone());
        match programmed.tables.apply(&owner, compiled.as_ref(), now) {
            Ok(()) => {
                if programmed.refused.remove(name).is_some() {
                    tracing::info!(service = %name, "there is room for it now");
                }
            }
            Err(why) => {
                let wait = match why {
                    Refusal::Full { .. } => FULL,
                    Refusal::Resting { .. } => RESTING,
                };
                let refused = programmed.refused.insert(name.clone(), (why.clone(), now + wait));
                if refused.is_none() {
                    tracing::error!("{why}");
                }
            }
        }
    }

    /// Notes for those who ask for the node's health whether the kernel takes what is written; returns that.
    fn note(&self, written: tombolo_datapath::Result<()>) -> bool {
        self.vitals.send_if_modified(|vitals| {
            let refuses = written.is_err();
            std::mem::replace(&mut vitals.kernel_refuses, refuses) != refuses
        });
        if let Err(error) = &written {
            tracing::error!(%error, "cannot program Services; trying again");
        }
        written.is_ok()
    }

    fn count(&self, programmed: &mut Programmed) {
        self.metrics.services.set(self.store.len() as i64);
        self.metrics
            .troubled_services
            .set((programmed.refused.len() + programmed.problems.len()) as i64);
        self.metrics
            .reconcile_errors
            .inc_by(std::mem::take(&mut programmed.errors));
    }

    fn tell_losers(&self, lost: Vec<Conflict>) {
        for conflict in lost {
            tracing::warn!(service = %conflict.service, "{conflict}");
            let uid = self.store.get(&conflict.service).and_then(|s| s.metadata.uid);
            // Nobody listens any more only when the process ends.
            let _ = self.conflicts.send(Lost { conflict, uid });
        }
    }

    fn tell_health(&self) {
        let answer = |(name, check): (&Arc<ServiceName>, &HealthCheck)| {
            let answer = Answer {
                service: name.clone(),
                local_endpoints: check.local_endpoints,
            };
            (check.port, answer)
        };
        let answers: BTreeMap<u16, Answer> = self.health_checks.iter().map(answer).collect();
        self.vitals.send_modify(|vitals| vitals.answers = answers);
    }
}
