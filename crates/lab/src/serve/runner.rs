//! The pod runner: what the kubelet and a container runtime are to a real node.
//!
//! One task a pod: sandbox, containers, status, and at the end the same backwards.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{self as core, Node, Pod};
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::containers::{self, Container, Start};
use super::handlers::{Action, Target};
use super::logs::Logs;
use super::sandbox::Sandbox;
use super::status;
use crate::api::Api;
use crate::place::Place;
use crate::pod::PodRecord;
use crate::port_mapping::PortMapping;
use crate::state::LabDir;

/// The pause after the first failure of a step that is tried again; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What a pod's task is told.
enum Order {
    /// End within so many seconds.
    End(u64),
    /// The object is gone: end at once.
    Gone,
}

/// The way to a pod's task.
struct Task {
    orders: mpsc::UnboundedSender<Order>,
    latest: watch::Sender<Pod>,
}

/// Runs the pods that have a node, for ever.
pub async fn run(api: Api, lab: LabDir, logs: Arc<Logs>) {
    let pods: kube::Api<Pod> = kube::Api::all(api.client().clone());
    let mut events = pin!(watcher(pods, watcher::Config::default()).default_backoff());
    let mut tasks: HashMap<String, Task> = HashMap::new();
    loop {
        match events.try_next().await {
            Ok(Some(Event::Apply(pod) | Event::InitApply(pod))) => {
                let Some(uid) = pod.uid() else { continue };
                let is_new = !tasks.contains_key(&uid);
                if is_new && node_name(&pod).is_none() {
                    continue;
                }
                let task = tasks.entry(uid).or_insert_with(|| {
                    let (orders, received) = mpsc::unbounded_channel();
                    let (latest, seen) = watch::channel(pod.clone());
                    let runner = Runner {
                        api: api.clone(),
                        lab: lab.clone(),
                        logs: logs.clone(),
                        pod: pod.clone(),
                        latest: seen,
                    };
                    tokio::spawn(runner.run(received));
                    Task { orders, latest }
                });
                if pod.metadata.deletion_timestamp.is_some() {
                    let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
                    let _ = task.orders.send(Order::End(u64::try_from(grace).unwrap_or(0)));
                }
                task.latest.send_replace(pod);
            }
            Ok(Some(Event::Delete(pod))) => {
                if let Some(task) = pod.uid().and_then(|uid| tasks.remove(&uid)) {
                    let _ = task.orders.send(Order::Gone);
                }
            }
            Ok(Some(Event::Init | Event::InitDone)) => {}
            Ok(None) => return,
            Err(error) => tracing::warn!(%error, "watching pods"),
        }
    }
}

fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec
        .as_ref()?
        .node_name
        .as_deref()
        .filter(|name| !name.is_empty())
}

/// The task of one pod.
struct Runner {
    api: Api,
    lab: LabDir,
    logs: Arc<Logs>,
    /// The pod as it was when its task began: what runs is what was created.
    pod: Pod,
    /// The pod as it is now, for what others write into its status.
    latest: watch::Receiver<Pod>,
}

impl Runner {
    async fn run(self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let order = match self.unsupported() {
            Some(message) => {
                self.report(status::waiting(&self.pod, "NotSupported", message))
                    .await;
                orders.recv().await
            }
            None => match self.sandbox(&mut orders).await {
                Ok(sandbox) => {
                    let order = self.containers(&sandbox, &mut orders).await;
                    self.remove(&sandbox).await;
                    order
                }
                Err(order) => order,
            },
        };
        for container in self.pod.spec.iter().flat_map(|spec| &spec.containers) {
            self.logs.remove(&self.uid(), &container.name);
        }
        if let Some(Order::End(_)) = order {
            self.finish().await;
        }
    }

    fn uid(&self) -> String {
        self.pod.uid().unwrap_or_default()
    }

    fn unsupported(&self) -> Option<&'static str> {
        let spec = self.pod.spec.as_ref()?;
        if spec.host_network == Some(true) {
            return Some("the lab runs no pods with hostNetwork; use `tombolo lab exec NODE` instead");
        }
        if spec.init_containers.as_ref().is_some_and(|list| !list.is_empty()) {
            return Some("the lab runs no init containers; leave initContainers out");
        }
        let cannot = |container: &core::Container| {
            let probe = container.readiness_probe.as_ref();
            let handler = container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref());
            probe.is_some_and(|probe| Action::of_probe(probe).is_none())
                || handler.is_some_and(|handler| Action::of_handler(handler).is_none())
        };
        if spec.containers.iter().any(cannot) {
            return Some(
                "the lab's readiness probes and preStop hooks are exec, tcpSocket and httpGet with plain HTTP",
            );
        }
        None
    }

    /// Makes the sandbox, again and again until it stands or the pod is to end.
    async fn sandbox(&self, orders: &mut mpsc::UnboundedReceiver<Order>) -> Result<Sandbox, Option<Order>> {
        let record = PodRecord {
            namespace: self.pod.namespace().unwrap_or_default(),
            name: self.pod.name_any(),
            uid: self.uid(),
            node: node_name(&self.pod).unwrap_or_default().to_owned(),
            netns: Default::default(),
            addresses: Vec::new(),
            port_mappings: PortMapping::of(&self.pod),
            started: status::now(),
        };
        let mut pause = FIRST_PAUSE;
        loop {
            if let Ok(order) = orders.try_recv() {
                return Err(Some(order));
            }
            let error = match Sandbox::create(&self.lab, record.clone()).await {
                Ok(sandbox) => return Ok(sandbox),
                Err(error) => error,
            };
            tracing::warn!(pod = %self.pod.name_any(), error, "cannot make the pod's sandbox");
            let message = format!("failed to create the pod's sandbox: {error}");
            self.report(status::waiting(&self.pod, "ContainerCreating", &message))
                .await;
            tokio::select! {
                order = orders.recv() => return Err(order),
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Runs the containers and reports what becomes of them, until the pod is to end and they have.
    async fn containers(
        &self,
        sandbox: &Sandbox,
        orders: &mut mpsc::UnboundedReceiver<Order>,
    ) -> Option<Order> {
        let node_addresses = self.node_addresses().await;
        let specs = self
            .pod
            .spec
            .as_ref()
            .map(|spec| spec.containers.clone())
            .unwrap_or_default();
        let mut all: Vec<Container> = specs
            .iter()
            .map(|spec| Container::new(spec, &sandbox.record.uid))
            .collect();
        let (changes, mut changed) = mpsc::unbounded_channel();
        let (stop, stopped) = watch::channel(false);
        let place = match Place::pod(&self.lab, &sandbox.record) {
            Ok(place) => place,
            Err(error) => {
                let message = error.to_string();
                self.report(status::waiting(&self.pod, "RunContainerError", &message))
                    .await;
                return orders.recv().await;
            }
        };
        for (spec, container) in specs.into_iter().zip(&all) {
            let log = self.logs.start(&sandbox.record.uid, &spec.name);
            let start = Start {
                target: Target {
                    place: place.clone(),
                    node: self.lab.netns(&sandbox.record.node),
                    address: sandbox.record.addresses.first().copied(),
                    ports: spec.ports.clone().unwrap_or_default(),
                },
                pod_name: sandbox.record.name.clone(),
                restart_policy: self
                    .pod
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.restart_policy.clone())
                    .unwrap_or_else(|| "Always".to_owned()),
                log,
                spec,
            };
            let running = containers::run(start, container.clone(), changes.clone(), stopped.clone());
            let (logs, uid, name) = (
                self.logs.clone(),
                sandbox.record.uid.clone(),
                container.name.clone(),
            );
            tokio::spawn(async move {
                running.await;
                logs.end(&uid, &name);
            });
        }
        drop(changes);
        let mut order = None;
        let mut deadline = None;
        let mut all_ended = false;
        let mut latest = self.latest.clone();
        let mut gates = status::closed_gates(&latest.borrow_and_update());
        loop {
            let out_of_time = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                change = changed.recv(), if !all_ended => match change {
                    Some(container) => {
                        note(&mut all, container);
                        // What came meanwhile goes into the same report.
                        while let Ok(container) = changed.try_recv() {
                            note(&mut all, container);
                        }
                        self.report(status::running(&sandbox.record, &all, &node_addresses, &gates)).await;
                    }
                    None => {
                        all_ended = true;
                        if order.is_some() {
                            return order;
                        }
                    }
                },
                Ok(()) = latest.changed() => {
                    let now = status::closed_gates(&latest.borrow_and_update());
                    if now != gates {
                        gates = now;
                        self.report(status::running(&sandbox.record, &all, &node_addresses, &gates)).await;
                    }
                }
                received = orders.recv() => {
                    let grace = match &received {
                        Some(Order::End(seconds)) => Duration::from_secs(*seconds),
                        Some(Order::Gone) | None => Duration::ZERO,
                    };
                    order = received;
                    if all_ended || grace.is_zero() {
                        return order;
                    }
                    let _ = stop.send(true);
                    // A second order can only shorten the time.
                    let wanted = tokio::time::Instant::now() + grace;
                    deadline = Some(deadline.map_or(wanted, |known: tokio::time::Instant| known.min(wanted)));
                }
                () = out_of_time => return order,
            }
        }
    }

    async fn node_addresses(&self) -> Vec<String> {
        let nodes: kube::Api<Node> = kube::Api::all(self.api.client().clone());
        let node = nodes.get(node_name(&self.pod).unwrap_or_default()).await.ok();
        let addresses = node.and_then(|node| node.status?.addresses).into_iter().flatten();
        addresses
            .filter(|one| one.type_ == "InternalIP")
            .map(|one| one.address)
            .collect()
    }

    async fn remove(&self, sandbox: &Sandbox) {
        let mut pause = FIRST_PAUSE;
        while let Err(error) = sandbox.remove().await {
            tracing::warn!(pod = %self.pod.name_any(), error, "cannot remove the pod's sandbox; trying again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn pods(&self) -> kube::Api<Pod> {
        kube::Api::namespaced(
            self.api.client().clone(),
            &self.pod.namespace().unwrap_or_default(),
        )
    }

    async fn report(&self, status: Value) {
        // The uid keeps the report from a later pod of the same name.
        let patch = json!({"metadata": {"uid": self.uid()}, "status": status});
        let name = self.pod.name_any();
        let reported = self
            .pods()
            // Conditions that others write stay.
            .patch_status(&name, &PatchParams::default(), &Patch::Strategic(&patch))
            .await;
        match reported {
            // Force-deleted: its task is being told.
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {}
            Err(error) => tracing::warn!(%name, %error, "cannot report the pod's status"),
            Ok(_) => {}
        }
    }

    /// Takes the object out of the API, now that nothing of the pod is left.
    async fn finish(&self) {
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: Some(self.uid()),
                resource_version: None,
            }),
            ..Default::default()
        };
        let name = self.pod.name_any();
        match self.pods().delete(&name, &params).await {
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {}
            Err(error) => tracing::warn!(%name, %error, "cannot remove the pod from the API"),
            Ok(_) => {}
        }
    }
}

fn note(all: &mut [Container], changed: Container) {
    if let Some(known) = all.iter_mut().find(|known| known.name == changed.name) {
        *known = changed;
    }
}
