//! Kubernetes Events on Services that do not get what an older one has, or a pod by its host port.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tombolo_services::Conflict;

/// The reason of these Events.
const REASON: &str = "AddressInUse";

/// How often, and after which pause, an Event is tried again that the API server did not take.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(3);

/// A Service that lost.
pub struct Lost {
    pub conflict: Conflict,
    /// The Service's uid.
    pub uid: Option<String>,
}

/// Publishes an Event for each, for ever. What cannot be published is in the log, and in the node's status.
pub async fn publish(clients: watch::Receiver<Client>, mut lost: UnboundedReceiver<Lost>) {
    while let Some(lost) = lost.recv().await {
        let event = event(&lost);
        for left in (0..TRIES).rev() {
            let namespace = &lost.conflict.service.namespace;
            let api: Api<Event> = Api::namespaced(clients.borrow().clone(), namespace);
            match api.create(&PostParams::default(), &event).await {
                Ok(_) => break,
                // Another node has said it already, under the same name.
                Err(kube::Error::Api(status)) if status.is_already_exists() => break,
                Err(error) if left == 0 => {
                    tracing::warn!(service = %lost.conflict.service, %error, "cannot publish an Event");
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}

/// The same, by name, on every node.
fn event(lost: &Lost) -> Event {
    let Lost { conflict, uid } = lost;
    let mut hasher = DefaultHasher::new();
    (uid, conflict.place.to_string(), &conflict.winner).hash(&mut hasher);
    let now = Some(Time(Timestamp::now()));
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{:016x}", conflict.service.name, hasher.finish())),
            namespace: Some(conflict.service.namespace.clone()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Service".into()),
            name: Some(conflict.service.name.clone()),
            namespace: Some(conflict.service.namespace.clone()),
            uid: uid.clone(),
            ..ObjectReference::default()
        },
        type_: Some("Warning".into()),
        reason: Some(REASON.into()),
        message: Some(conflict.to_string()),
        source: Some(EventSource {
            component: Some("tombolo-agent".into()),
            host: None,
        }),
        count: Some(1),
        first_timestamp: now.clone(),
        last_timestamp: now,
        ..Event::default()
    }
}
