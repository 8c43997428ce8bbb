use std::fmt::Debug;

use futures::StreamExt;
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

/// Tells of all objects, then of each change, for ever; of objects without `managedFields`, which nobody here reads.
///
/// While the API server is away it tells of nothing, and of all objects once it is back.
pub async fn follow<K>(api: Api<K>, config: Config, mut told: impl FnMut(Event<K>))
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let kind = K::kind(&());
    let mut away = false;
    // They are half of many an object.
    let events = watcher(api, config)
        .default_backoff()
        .modify(|object| object.meta_mut().managed_fields = None);
    futures::pin_mut!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                if matches!(event, Event::InitDone) && std::mem::replace(&mut away, false) {
                    tracing::info!(%kind, "watching again");
                }
                told(event);
            }
            // The watcher tries again and again; one line says so.
            Err(error) if !std::mem::replace(&mut away, true) => {
                tracing::warn!(%kind, %error, "cannot watch; trying again");
            }
            Err(_) => {}
        }
    }
}
