//! The EndpointSlice controller: which pods are behind each Service, as Kubernetes' own controller writes it.
//!
//! What is to be written is decided from the objects alone ([`plan`]), for one Service at a time: those that a
//! change is about.

mod cluster;
mod endpoint;
mod plan;
#[cfg(test)]
mod tests;

use std::pin::pin;
use std::time::Duration;

use futures::{FutureExt, StreamExt, stream};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{DeleteParams, PostParams};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};

use crate::api::Api;
use cluster::{Cluster, Name};
use plan::Action;

pub use plan::SERVICE_NAME;

/// How many Services' slices are written at once.
const AT_ONCE: usize = 16;
/// The pause before what failed is tried again.
const RETRY: Duration = Duration::from_millis(200);

enum Change {
    Service(Box<Event<Service>>),
    Pod(Box<Event<Pod>>),
    Node(Box<Event<Node>>),
    Slice(Box<Event<EndpointSlice>>),
    Failed(watcher::Error),
}

/// Keeps the slices in accord with Services and pods, for ever.
pub async fn run(api: Api) {
    let all = stream::select(
        stream::select(
            events(&api, |e| Change::Service(Box::new(e))),
            events(&api, |e| Change::Pod(Box::new(e))),
        ),
        stream::select(
            events(&api, |e| Change::Node(Box::new(e))),
            events(&api, |e| Change::Slice(Box::new(e))),
        ),
    );
    let mut all = pin!(all);
    let mut cluster = Cluster::default();
    let mut failed = false;
    loop {
        let next = async {
            if failed {
                // What failed is to be done still, whether or not something else happens.
                tokio::time::timeout(RETRY, all.next()).await.ok()
            } else {
                Some(all.next().await)
            }
        };
        match next.await {
            Some(Some(change)) => note(&mut cluster, change),
            Some(None) => return,
            None => {}
        }
        // What happened meanwhile is decided on together.
        while let Some(Some(change)) = all.next().now_or_never() {
            note(&mut cluster, change);
        }
        let work: Vec<(Name, Vec<Action>)> = cluster.decide();
        let done = stream::iter(work)
            .map(|(service, actions)| carry_out(&api, service, actions))
            .buffer_unordered(AT_ONCE)
            .collect::<Vec<_>>()
            .await;
        failed = false;
        for (service, written, result) in done {
            for slice in written {
                cluster.wrote(slice);
            }
            if let Err(error) = result {
                tracing::debug!(?service, %error, "cannot write the Service's EndpointSlices; trying again");
                cluster.again(service);
                failed = true;
            }
        }
    }
}

fn events<K>(api: &Api, wrap: impl Fn(Event<K>) -> Change) -> impl futures::Stream<Item = Change>
where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug
        + Send
        + 'static,
{
    watcher(
        kube::Api::<K>::all(api.client().clone()),
        watcher::Config::default(),
    )
    .default_backoff()
    .map(move |event| event.map_or_else(Change::Failed, &wrap))
}

fn note(cluster: &mut Cluster, change: Change) {
    match change {
        Change::Service(event) => cluster.service(*event),
        Change::Pod(event) => cluster.pod(*event),
        Change::Node(event) => cluster.node(*event),
        Change::Slice(event) => cluster.slice(*event),
        Change::Failed(error) => tracing::warn!(%error, "watching Services and what is behind them"),
    }
}

/// A slice as it was left: written, or gone.
enum Wrote {
    Slice(Box<EndpointSlice>),
    Gone(Name),
}

/// Does what was decided for a Service, up to the first failure.
async fn carry_out(
    api: &Api,
    service: Name,
    actions: Vec<Action>,
) -> (Name, Vec<Wrote>, Result<(), kube::Error>) {
    let slices: kube::Api<EndpointSlice> = kube::Api::namespaced(api.client().clone(), &service.0);
    let mut wrote = Vec::new();
    for action in actions {
        let done = match action {
            Action::Create(slice) => slices
                .create(&PostParams::default(), &slice)
                .await
                .map(|slice| Wrote::Slice(Box::new(slice))),
            Action::Replace(slice) => slices
                .replace(&slice.name_any(), &PostParams::default(), &slice)
                .await
                .map(|slice| Wrote::Slice(Box::new(slice))),
            Action::Delete(name) => match slices.delete(&name, &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if !status.is_not_found() => Err(kube::Error::Api(status)),
                Ok(_) | Err(kube::Error::Api(_)) => Ok(Wrote::Gone((service.0.clone(), name))),
                Err(error) => Err(error),
            },
        };
        match done {
            Ok(done) => wrote.push(done),
            Err(error) => return (service, wrote, Err(error)),
        }
    }
    (service, wrote, Ok(()))
}
