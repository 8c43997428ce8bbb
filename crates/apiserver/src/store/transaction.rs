//! A transaction: what it writes lies above the objects until it is finished.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::Value;

use super::{Change, ChangeKind, Claims, Key, range};

/// Reads and writes of objects that take effect together.
#[derive(Debug)]
pub struct Transaction<'a> {
    revision: u64,
    /// What it writes is only for show, and keeps the revisions of what is there.
    dry_run: bool,
    objects: &'a BTreeMap<Key, Arc<Value>>,
    claims: &'a Claims,
    written: BTreeMap<Key, Option<Arc<Value>>>,
    /// Who has the claims that were taken or given up here, by resource.
    claimed: HashMap<(usize, String), Option<Key>>,
    changes: Vec<(Key, Change)>,
}

impl<'a> Transaction<'a> {
    pub(super) fn new(
        revision: u64,
        dry_run: bool,
        objects: &'a BTreeMap<Key, Arc<Value>>,
        claims: &'a Claims,
    ) -> Self {
        Self {
            revision,
            dry_run,
            objects,
            claims,
            written: BTreeMap::new(),
            claimed: HashMap::new(),
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

    /// The object of a resource that claims this.
    pub fn holder(&self, resource: usize, claim: &str) -> Option<&Key> {
        if !self.claimed.is_empty()
            && let Some(holder) = self.claimed.get(&(resource, claim.to_owned()))
        {
            return holder.as_ref();
        }
        self.claims.holder(resource, claim)
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
        if !self.dry_run {
            self.revision += 1;
            object["metadata"]["resourceVersion"] = self.revision.to_string().into();
        }
        for claim in previous.iter().flat_map(|p| self.claims.of(key.resource, p)) {
            if self.holder(key.resource, &claim) == Some(key) {
                self.claimed.insert((key.resource, claim), None);
            }
        }
        if kind != ChangeKind::Deleted {
            for claim in self.claims.of(key.resource, &object) {
                self.claimed.insert((key.resource, claim), Some(key.clone()));
            }
        }
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
