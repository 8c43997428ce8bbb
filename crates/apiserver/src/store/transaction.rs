//! A transaction: what it writes lies above the objects until it is finished.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::{Change, ChangeKind, Key, range};

/// Reads and writes of objects that take effect together.
#[derive(Debug)]
pub struct Transaction<'a> {
    revision: u64,
    objects: &'a BTreeMap<Key, Arc<Value>>,
    written: BTreeMap<Key, Option<Arc<Value>>>,
    changes: Vec<(Key, Change)>,
}

impl<'a> Transaction<'a> {
    pub(super) fn new(revision: u64, objects: &'a BTreeMap<Key, Arc<Value>>) -> Self {
        Self {
            revision,
            objects,
            written: BTreeMap::new(),
            changes: Vec::new(),
        }
    }

    /// The object at `key`, as this transaction left it.
    pub fn get(&self, key: &Key) -> Option<Arc<Value>> {
        self.written
            .get(key)
            .unwrap_or(&self.objects.get(key).cloned())
            .clone()
    }

    /// The keys of the objects of a resource in a namespace.
    pub fn keys(&self, resource: usize, namespace: &str) -> Vec<Key> {
        let stored = range(self.objects, resource, Some(namespace)).map(|(key, _)| key);
        let written = self
            .written
            .keys()
            .filter(|k| k.resource == resource && k.namespace == namespace);
        let mut keys: Vec<Key> = stored.chain(written).cloned().collect();
        keys.sort_unstable();
        keys.dedup();
        keys.retain(|key| self.get(key).is_some());
        keys
    }

    /// Makes or replaces the object at `key`, under a new revision.
    pub fn put(&mut self, key: &Key, object: Value) -> Arc<Value> {
        let previous = self.get(key);
        let kind = if previous.is_some() {
            ChangeKind::Modified
        } else {
            ChangeKind::Added
        };
        let object = self.record(key, kind, object, previous);
        self.written.insert(key.clone(), Some(object.clone()));
        object
    }

    /// Takes away the object at `key`; `last` is what watchers see of it.
    pub fn remove(&mut self, key: &Key, last: Value) -> Arc<Value> {
        let previous = self.get(key);
        let last = self.record(key, ChangeKind::Deleted, last, previous);
        self.written.insert(key.clone(), None);
        last
    }

    fn record(
        &mut self,
        key: &Key,
        kind: ChangeKind,
        mut object: Value,
        previous: Option<Arc<Value>>,
    ) -> Arc<Value> {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = self.revision.to_string().into();
        let object = Arc::new(object);
        let change = Change {
            kind,
            revision: self.revision,
            object: object.clone(),
            previous,
        };
        self.changes.push((key.clone(), change));
        object
    }

    pub(super) fn finish(self) -> (u64, Vec<(Key, Change)>) {
        (self.revision, self.changes)
    }
}
