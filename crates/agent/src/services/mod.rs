//! Services: `objects → services::compile → Tables → kernel`, one Service at a time, at the cost of what changed.
//!
//! ```text
//! API server ─▶ watches ─▶ held ─▶ store ─┐
//!                                         ├─▶ programmer ─▶ services::{compile, Tables} ─▶ kernel
//! control ─▶ node addresses ──────────────┘        ├─▶ events (conflicts) ─▶ API server
//!                                                  ├─▶ the node's UDP sockets whose backends have gone: ended
//!                                                  └─▶ health (what load balancers ask of this node)
//! ```
//!
//! The programmer has a thread of its own, apart from the control loop: what is told is worked on at once, and what
//! has come meanwhile is worked on together. It begins with what an agent before this one has written, and changes
//! nothing until all objects have been seen.

mod events;
mod health;
mod held;
mod kernel;
mod memory;
mod programmer;
mod store;
mod view;
mod watches;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::Client;
use tokio::sync::watch;
use tombolo_abi::Config;
use tombolo_datapath::Datapath;

use crate::control::Trigger;
use crate::error::Error;
use crate::metrics::Metrics;
use health::Vitals;
use held::{HeldService, HeldSlice};
use programmer::{Programmed, Programmer};
use store::Change;
use watches::OwnNode;

/// What the programmer is told.
pub enum Message {
    Service(Change<HeldService>),
    Slice(Change<HeldSlice>),
    Node(OwnNode),
    /// All addresses of all nodes.
    NodeAddresses(BTreeSet<IpAddr>),
}

/// The Services of this node.
pub struct Services {
    datapath: Arc<Datapath>,
    programmed: Arc<Mutex<Programmed>>,
    tell: Sender<Message>,
    /// Whether the tables hold frontends, or have held some.
    known: Arc<AtomicBool>,
}

/// What [`Services::start`] needs.
pub struct Start {
    pub node: String,
    pub clients: watch::Receiver<Client>,
    /// Wakes the control loop, once the programs are to look for Services.
    pub trigger: Arc<Trigger>,
    /// Where to answer `/healthz` and `/livez`.
    pub health: SocketAddr,
    pub metrics: Arc<Metrics>,
}

impl Services {
    /// Takes up what an agent before this one has written. The receiver is for [`Services::start`].
    ///
    /// # Errors
    /// The kernel does not say what it holds.
    pub fn adopt(datapath: Arc<Datapath>) -> Result<(Arc<Self>, Receiver<Message>), Error> {
        let (tell, told) = mpsc::channel();
        let rows = kernel::read(&datapath)?;
        let known = datapath.config()?.flags & Config::SERVICES != 0 || !rows.frontends.is_empty();
        let programmed = Programmed::adopt(rows);
        let services = Self {
            datapath,
            programmed: Arc::new(Mutex::new(programmed)),
            tell,
            known: Arc::new(AtomicBool::new(known)),
        };
        Ok((Arc::new(services), told))
    }

    /// Starts to watch and to program, for as long as the process lives.
    ///
    /// # Errors
    /// The kernel refuses a thread.
    pub fn start(&self, told: Receiver<Message>, start: Start) -> Result<(), Error> {
        let Start {
            node,
            clients,
            trigger,
            health,
            metrics,
        } = start;
        watches::start(&node, &clients, &self.tell);
        let (conflicts, lost) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(events::publish(clients, lost));
        let (vitals, answers) = watch::channel(Vitals::default());
        health::start(health, answers);
        let known = self.known.clone();
        let on_known = move || {
            if !known.swap(true, Ordering::AcqRel) {
                trigger.pull();
            }
        };
        let (datapath, programmed) = (self.datapath.clone(), self.programmed.clone());
        Programmer::new(node, datapath, programmed, conflicts, vitals, metrics).start(told, on_known)
    }

    /// Whether packets are to be looked up among Services.
    pub fn are_known(&self) -> bool {
        self.known.load(Ordering::Acquire)
    }

    /// Says which addresses nodes have.
    pub fn set_node_addresses(&self, addresses: &BTreeSet<IpAddr>) {
        // Nobody listens any more only when the process ends.
        let _ = self.tell.send(Message::NodeAddresses(addresses.clone()));
    }

    /// What is wrong with Services, for a person.
    pub fn problems(&self) -> Vec<String> {
        self.lock().problems()
    }

    fn lock(&self) -> MutexGuard<'_, Programmed> {
        self.programmed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
