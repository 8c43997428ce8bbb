use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::{Config, Event};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::task::AbortHandle;

use crate::follow;

/// All objects of a kind, kept up to date. Ends when dropped.
///
/// While the API server is away the objects stay as they were last seen.
pub struct Watch<K: Resource<DynamicType = ()> + Clone + 'static> {
    store: Store<K>,
    complete: Arc<AtomicBool>,
    task: AbortHandle,
}

impl<K> Watch<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    /// Starts to watch. `changed` is called after each change, and once all objects are there.
    pub fn start(api: Api<K>, changed: impl Fn() + Send + 'static) -> Self {
        let (store, mut writer) = reflector::store();
        let complete = Arc::new(AtomicBool::new(false));
        let done = complete.clone();
        let told = move |event: Event<K>| {
            writer.apply_watcher_event(&event);
            if matches!(event, Event::InitDone) {
                done.store(true, Ordering::Release);
            }
            if matches!(event, Event::InitDone | Event::Apply(_) | Event::Delete(_)) {
                changed();
            }
        };
        let task = tokio::spawn(follow(api, Config::default(), told));
        Self {
            store,
            complete,
            task: task.abort_handle(),
        }
    }

    /// All objects, in no particular order; none before the first complete list has come.
    pub fn objects(&self) -> Option<Vec<Arc<K>>> {
        self.complete.load(Ordering::Acquire).then(|| self.store.state())
    }
}

impl<K> Drop for Watch<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
    K::DynamicType: Eq + Hash,
{
    fn drop(&mut self) {
        self.task.abort();
    }
}
