//! Services: `objects → services::compile → Tables → kernel`, one Service at a time, at the cost of what changed.
//!
//! ```text
//! API server ─▶ watches ─▶ held ─▶ store ─┐
//!                                         ├─▶ programmer ──▶ programmed (services::Tables) ─▶ kernel
//! control ─▶ node addresses ──────────────┘        │             ▲          └─▶ the node's UDP sockets whose
//!                                                  │             │              backends have gone: ended
//! ADD, DEL ─▶ host_ports ──────────────────────────│─────────────┘
//!                                                  ├─▶ events (conflicts) ─▶ API server
//!                                                  └─▶ health (what load balancers ask of this node)
//! ```
//!
//! The programmer has a thread of its own, apart from the control loop: what is told is worked on at once, and what
//! has come meanwhile is worked on together. It begins with what an agent before this one has written, and changes
//! nothing of Services until all objects have been seen.
//!
//! Host ports do not wait for anybody: an ADD writes those of its pod itself, while the programmer does not, and they are
//! there when it answers. They are known before the first pod is served, without the API server.

mod events;
mod health;
mod held;
mod host_ports;
mod kernel;
mod memory;
mod programmed;
mod programmer;
mod store;
mod view;
mod watches;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::Client;
use tokio::sync::watch;
use tombolo_abi::Config;
use tombolo_datapath::Datapath;

use crate::error::Error;
use crate::metrics::Metrics;
use health::Vitals;
use held::{HeldService, HeldSlice};
use kernel::Kernel;
use programmed::Programmed;
use programmer::Programmer;
use store::Change;
use watches::OwnNode;

/// What the programmer is told.
pub enum Message {
    Service(Change<HeldService>),
    Slice(Change<HeldSlice>),
    Node(OwnNode),
    /// All addresses of all nodes.
    NodeAddresses(BTreeSet<IpAddr>),
    /// Somebody else has written, or could not.
    Wake,
}

/// The Services of this node, and the host ports of its pods.
pub struct Services {
    kernel: Arc<Kernel>,
    programmed: Arc<Mutex<Programmed>>,
    tell: Sender<Message>,
}

/// What [`Services::start`] needs.
pub struct Start {
    pub node: String,
    pub clients: watch::Receiver<Client>,
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
        let (kernel, rows) = Kernel::adopt(datapath)?;
        let services = Self {
            kernel: Arc::new(kernel),
            programmed: Arc::new(Mutex::new(Programmed::adopt(rows))),
            tell,
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
            health,
            metrics,
        } = start;
        watches::start(&node, &clients, &self.tell);
        let (conflicts, lost) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(events::publish(clients, lost));
        let (vitals, answers) = watch::channel(Vitals::default());
        health::start(health, answers);
        let (kernel, programmed) = (self.kernel.clone(), self.programmed.clone());
        Programmer::new(node, kernel, programmed, conflicts, vitals, metrics).start(told)
    }

    /// Whether packets are to be looked up among Services.
    pub fn are_known(&self) -> bool {
        self.kernel.is_on()
    }

    /// Tells the programs of the node; that they look for Services stays once it is so.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set_config(&self, config: &Config) -> Result<(), Error> {
        Ok(self.kernel.set_config(config)?)
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
