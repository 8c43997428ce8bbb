//! What the API server says of Services, their endpoints, and this node's place.

use std::fmt::Debug;
use std::sync::mpsc::Sender;

use k8s_openapi::api::core::v1::Node;
use kube::runtime::watcher::{Config, Event};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::Message;
use super::store::{trim_service, trim_slice};

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
    let own = Config::default().fields(&format!("metadata.name={node}"));
    watch_kind(clients, Config::default(), tell, |mut event| {
        each(&mut event, trim_service);
        Message::Service(Box::new(event))
    });
    watch_kind(clients, Config::default(), tell, |mut event| {
        each(&mut event, trim_slice);
        Message::Slice(Box::new(event))
    });
    let mut listed = None;
    watch_kind(clients, own, tell, move |event: Event<Node>| {
        match event {
            Event::Init => listed = None,
            Event::InitApply(node) => listed = Some(node),
            Event::InitDone => {
                return Message::Node(listed.take().map_or_else(OwnNode::default, |n| own_node(&n)));
            }
            Event::Apply(node) => return Message::Node(own_node(&node)),
            Event::Delete(_) => return Message::Node(OwnNode::default()),
        }
        Message::Nothing
    });
}

fn watch_kind<K>(
    clients: &watch::Receiver<Client>,
    config: Config,
    tell: &Sender<Message>,
    mut message: impl FnMut(Event<K>) -> Message + Send + 'static,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let (mut clients, tell) = (clients.clone(), tell.clone());
    tokio::spawn(async move {
        loop {
            let client = clients.borrow_and_update().clone();
            // Nobody listens any more only when the process ends.
            let told = |event| drop(tell.send(message(event)));
            tokio::select! {
                () = tombolo_kube::follow(Api::all(client), config.clone(), told) => {}
                changed = clients.changed() => if changed.is_err() { return },
            }
        }
    });
}

fn each<K>(event: &mut Event<K>, trim: fn(&mut K)) {
    match event {
        Event::Apply(object) | Event::InitApply(object) | Event::Delete(object) => trim(object),
        Event::Init | Event::InitDone => {}
    }
}

fn own_node(node: &Node) -> OwnNode {
    let taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
    OwnNode {
        zone: node.metadata.labels.as_ref().and_then(|l| l.get(ZONE)).cloned(),
        is_going: node.metadata.deletion_timestamp.is_some() || taints.into_iter().any(|t| t.key == GOING),
    }
}
