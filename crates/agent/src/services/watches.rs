//! What the API server says of Services, their endpoints, and this node's place.

use std::fmt::Debug;
use std::sync::mpsc::Sender;

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher::{Config, Event};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tombolo_services::ServiceName;

use super::Message;
use super::held::{HeldService, HeldSlice, name_of};
use super::store::Change;

/// Where a Node says in which zone it is.
const ZONE: &str = "topology.kubernetes.io/zone";
/// The cluster autoscaler's sign that it is about to take a node away.
const GOING: &str = "ToBeDeletedByClusterAutoscaler";

/// What the node's own object says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnNode {
    /// In which zone it is.
    pub zone: Option<String>,
    /// Whether it is about to go: load balancers are to send no more connections (KEP-3836).
    pub is_going: bool,
}

/// Watches for ever, by whichever client is the one of now.
pub fn start(node: &str, clients: &watch::Receiver<Client>, tell: &Sender<Message>) {
    watch_kind(clients, Config::default(), tell, |event| {
        let name = |service: &Service| name_of(&service.metadata);
        change(event, HeldService::of, name).map(Message::Service)
    });
    watch_kind(clients, Config::default(), tell, |event| {
        let name = |slice: &EndpointSlice| name_of(&slice.metadata);
        change(event, HeldSlice::of, name).map(Message::Slice)
    });
    let own = Config::default().fields(&format!("metadata.name={node}"));
    let mut listed = OwnNode::default();
    watch_kind(clients, own, tell, move |event: Event<Node>| match event {
        Event::Init => {
            listed = OwnNode::default();
            None
        }
        Event::InitApply(node) => {
            listed = own_node(&node);
            None
        }
        Event::InitDone => Some(Message::Node(std::mem::take(&mut listed))),
        Event::Apply(node) => Some(Message::Node(own_node(&node))),
        Event::Delete(_) => Some(Message::Node(OwnNode::default())),
    });
}

fn watch_kind<K>(
    clients: &watch::Receiver<Client>,
    config: Config,
    tell: &Sender<Message>,
    mut message: impl FnMut(Event<K>) -> Option<Message> + Send + 'static,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let (mut clients, tell) = (clients.clone(), tell.clone());
    tokio::spawn(async move {
        loop {
            let client = clients.borrow_and_update().clone();
            let told = |event| {
                if let Some(message) = message(event) {
                    // Nobody listens any more only when the process ends.
                    let _ = tell.send(message);
                }
            };
            tokio::select! {
                () = tombolo_kube::follow(Api::all(client), config.clone(), told) => {}
                changed = clients.changed() => if changed.is_err() { return },
            }
        }
    });
}

/// What an event means, once its object is made what is kept of it.
fn change<K, T>(
    event: Event<K>,
    held: fn(K) -> Option<T>,
    name: impl Fn(&K) -> Option<ServiceName>,
) -> Option<Change<T>> {
    Some(match event {
        Event::Init => Change::ListBegins,
        Event::InitApply(object) | Event::Apply(object) => Change::Put(held(object)?),
        Event::Delete(object) => Change::Gone(name(&object)?),
        Event::InitDone => Change::ListEnds,
    })
}

fn own_node(node: &Node) -> OwnNode {
    let taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
    OwnNode {
        zone: node.metadata.labels.as_ref().and_then(|l| l.get(ZONE)).cloned(),
        is_going: node.metadata.deletion_timestamp.is_some() || taints.into_iter().any(|t| t.key == GOING),
    }
}
