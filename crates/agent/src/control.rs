//! The control loop: whenever objects or facts change, `facts + objects → layout::compile → reconcile`.
//!
//! It has a thread of its own, since all of it waits for the kernel.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use kube::ResourceExt;
use tokio::sync::watch;
use tombolo_kube::NodeNetworkStatus;
use tombolo_layout::{Desired, Error as LayoutError, IPV6_MIN_MTU, Input, Local, compile};
use tombolo_netlink::Netlink;

use crate::claim::Claim;
use crate::endpoints::{Endpoints, PodSettings};
use crate::error::Error;
use crate::facts::{self, Question};
use crate::install::{self, Installer};
use crate::metrics::Metrics;
use crate::objects::{Objects, Snapshot};
use crate::reconcile::Reconciler;
use crate::services::Services;
use crate::{overlay, pod_routes, status};

/// Changes that come together are worked on together.
const GATHER: Duration = Duration::from_millis(10);

/// How often the kernel is looked at without any sign of change: others flush rules without a word.
const LOOK: Duration = Duration::from_secs(60);

/// How long to wait before trying again what failed: at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Wakes the control loop.
#[derive(Debug, Default)]
pub struct Trigger {
    pulled: Mutex<bool>,
    signal: Condvar,
}

impl Trigger {
    /// Something may have changed.
    pub fn pull(&self) {
        *self.pulled.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.signal.notify_one();
    }

    /// Waits until it is pulled, or for as long as `timeout`; true if it was pulled.
    fn wait(&self, timeout: Duration) -> bool {
        let pulled = self.pulled.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.signal.wait_timeout_while(pulled, timeout, |pulled| !*pulled);
        let (mut pulled, _) = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *pulled)
    }
}

/// What came of the last round.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What to say of the node; none while there is nothing to say.
    pub status: Option<NodeNetworkStatus>,
    /// The nodes' names, by index.
    pub names: Arc<BTreeMap<u32, String>>,
    /// What is wrong, for a person.
    pub problems: Vec<String>,
    /// Whether the runtime's configuration shapes pods that are annotated for it; none while that is not known.
    pub shapes: Option<bool>,
    /// Whether trying again may help.
    pub failed: bool,
}

/// All that the control loop works with.
pub struct Control {
    pub node: String,
    pub claim: Arc<Claim>,
    pub devices: Vec<String>,
    pub objects: Arc<Objects>,
    pub endpoints: Arc<Endpoints>,
    pub services: Arc<Services>,
    pub settings: watch::Sender<Option<PodSettings>>,
    pub outcome: watch::Sender<Outcome>,
    pub metrics: Arc<Metrics>,
}

impl Control {
    /// Starts the thread, for as long as the process lives.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn start(self, trigger: Arc<Trigger>, installer: Installer) -> Result<(), Error> {
        let spawned = thread::Builder::new()
            .name("control".into())
            .spawn(move || self.work(&trigger, installer));
        spawned.map(drop).map_err(|source| Error::Start {
            what: "the control loop",
            source,
        })
    }

    fn work(self, trigger: &Trigger, mut installer: Installer) {
        let mut reconciler =
            Reconciler::new(self.endpoints.datapath.clone(), self.endpoints.state_dir.clone());
        let mut retry = None;
        let mut looked = Instant::now();
        loop {
            if trigger.wait(retry.unwrap_or(LOOK)) {
                thread::sleep(GATHER);
                trigger.wait(Duration::ZERO);
            }
            if looked.elapsed() >= LOOK {
                reconciler.distrust();
                looked = Instant::now();
            }
            let before = self.outcome.borrow().clone();
            let outcome = self.round(&mut reconciler, &mut installer, before.clone());
            retry = outcome
                .failed
                .then(|| retry.map_or(RETRY.0, |r: Duration| (r * 2).min(RETRY.1)));
            if outcome.problems != before.problems {
                report(&outcome);
            }
            self.outcome.send_replace(outcome);
        }
    }

    /// One round. What it does not get to stays as it was `before`.
    fn round(&self, reconciler: &mut Reconciler, installer: &mut Installer, before: Outcome) -> Outcome {
        let snapshot = match self.objects.snapshot() {
            Ok(snapshot) => snapshot,
            Err(problem) => {
                // The watches pull the trigger when it changes.
                return Outcome {
                    problems: vec![problem],
                    failed: false,
                    ..before
                };
            }
        };
        let names = snapshot
            .nodes
            .iter()
            .map(|n| (n.spec.index, n.name_any()))
            .collect();
        let own = snapshot.nodes.iter().find(|n| n.name_any() == self.node);
        if let Err(error) = self.claim.check(&self.node, own.and_then(|n| n.status.as_ref())) {
            // Not a word to the API server, and no address to anybody.
            self.settings.send_replace(None);
            return Outcome {
                names: Arc::new(names),
                problems: vec![error.to_string()],
                ..Outcome::default()
            };
        }
        let last = self.last(&before, own.and_then(|n| n.status.as_ref()));
        let (mut desired, local) = match self.compile(&snapshot) {
            Ok(compiled) => compiled,
            Err(error) => {
                self.metrics.reconcile_errors.inc();
                if let Error::Layout(LayoutError::NodeMissing { .. } | LayoutError::OwnRefused { .. }) = error
                {
                    // The blocks are not this node's (any more), and may be another's.
                    self.settings.send_replace(None);
                }
                let status = Some(status::unhealthy(last, &error));
                return Outcome {
                    status,
                    problems: vec![error.to_string()],
                    failed: true,
                    ..before
                };
            }
        };
        self.services.set_node_addresses(&desired.node_addresses);
        let mut errors = reconciler.apply(&desired, &local);
        if let Err(error) = self.offer(&desired) {
            errors.push(error);
        }
        let mut shapes = None;
        match self.install(installer, &desired) {
            Ok(Some(effective)) => {
                desired.warnings.extend(effective.rivals);
                shapes = Some(effective.shapes);
            }
            Ok(None) => {}
            Err(error) => errors.push(error.into()),
        }
        desired.warnings.extend(self.outside_blocks(&desired));
        self.metrics.reconcile_errors.inc_by(errors.len() as u64);
        let status = status::of(&desired, &local, &snapshot.network, &errors, &last);
        let failed = !errors.is_empty();
        let errors = errors.iter().map(Error::to_string);
        let problems = errors.chain(desired.warnings.iter().cloned()).collect();
        Outcome {
            status: Some(status),
            names: Arc::new(names),
            problems,
            shapes,
            failed,
        }
    }

    /// What this machine said before: it goes on to be true of what is not looked at, as other nodes route by it.
    fn last(&self, before: &Outcome, published: Option<&NodeNetworkStatus>) -> NodeNetworkStatus {
        let machine = self.claim.machine();
        let own = published.filter(|s| s.machine.is_empty() || s.machine == machine);
        let last = before.status.as_ref().or(own);
        NodeNetworkStatus {
            machine: machine.to_owned(),
            ..last.cloned().unwrap_or_default()
        }
    }

    /// Compiles; makes the overlay device first if there is to be one, as rows name it by its index.
    fn compile(&self, snapshot: &Snapshot) -> Result<(Desired, Local), Error> {
        let mut netlink = Netlink::open()?;
        let question = Question {
            node: &self.node,
            nodes: &snapshot.nodes,
            node_cidrs: &snapshot.network.spec.node_cidrs,
            devices: &self.devices,
            services: self.services.are_known(),
        };
        let compile = |local: &Local| {
            let Snapshot { network, nodes } = snapshot;
            compile(&Input {
                node: &self.node,
                network,
                nodes,
                local,
            })
        };
        let mut local = facts::gather(&mut netlink, &question)?;
        let mut desired = compile(&local)?;
        if let Some(wanted) = &desired.overlay
            && overlay::ensure(&mut netlink, wanted)?
        {
            local = facts::gather(&mut netlink, &question)?;
            desired = compile(&local)?;
        }
        Ok((desired, local))
    }

    /// Lets the runtime find the plugin; the configuration as soon as it would find an agent that serves.
    fn install(
        &self,
        installer: &mut Installer,
        desired: &Desired,
    ) -> Result<Option<install::Effective>, install::Error> {
        installer.install_plugin()?;
        if desired.blocks.is_empty() || self.settings.borrow().is_none() {
            return Ok(None);
        }
        installer.install_conflist()
    }

    /// What to say of pods with addresses that are not of the node's blocks (any more).
    fn outside_blocks(&self, desired: &Desired) -> Option<String> {
        let held = self.endpoints.store.addresses().ok()?;
        let strange = |address: &IpAddr| !desired.blocks.iter().any(|block| block.contains(address));
        let strangers: Vec<String> = held
            .iter()
            .filter(|(address, _)| strange(address))
            .map(|(address, owner)| format!("{address} ({owner})"))
            .collect();
        (!strangers.is_empty()).then(|| {
            format!(
                "pods hold addresses outside of node {}'s blocks, which may be another node's by now: {}; delete these pods",
                self.node,
                strangers.join(", ")
            )
        })
    }

    /// Lets pods have what was compiled.
    fn offer(&self, desired: &Desired) -> Result<(), Error> {
        if self.endpoints.store.blocks()? != desired.blocks {
            self.endpoints.store.set_blocks(&desired.blocks)?;
        }
        let primary = |v4: bool| desired.addresses.iter().copied().find(|a| a.is_ipv4() == v4);
        let node_addresses: Vec<IpAddr> = primary(true).into_iter().chain(primary(false)).collect();
        let settings = PodSettings {
            mtu: desired.pod_mtu,
            node_addresses,
        };
        let has_ipv6 = desired.blocks.iter().any(|block| block.addr().is_ipv6());
        if has_ipv6 && desired.pod_mtu < IPV6_MIN_MTU {
            self.settings.send_replace(None);
            pod_routes::reconcile(&self.endpoints, &settings)?;
            return Err(Error::MtuTooSmall { mtu: desired.pod_mtu });
        }
        self.settings.send_replace(Some(settings.clone()));
        pod_routes::reconcile(&self.endpoints, &settings)
    }
}

/// Says what is wrong, or that nothing is any more.
fn report(outcome: &Outcome) {
    for problem in &outcome.problems {
        if outcome.failed {
            tracing::error!("{problem}");
        } else {
            tracing::warn!("{problem}");
        }
    }
    if outcome.problems.is_empty() {
        tracing::info!("the node is as it should be");
    }
}
