//! The objects, in memory: one revision for all, transactions, and a bounded history for watchers.

mod claims;
mod history;
mod transaction;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::watch;

pub use claims::Claims;
pub use history::{Change, ChangeKind, Expired};
pub use transaction::Transaction;

use crate::clock;
use history::History;

/// What an object is found by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The index of its resource in the registry.
    pub resource: usize,
    /// Its namespace; empty where the kind has none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// All objects of a server.
#[derive(Debug)]
pub struct Store {
    state: Mutex<State>,
    revision: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    revision: u64,
    objects: BTreeMap<Key, Arc<Value>>,
    claims: Claims,
    history: History,
}

/// The objects of a list, and the revision at which they were so.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The revision.
    pub revision: u64,
    /// The objects, by namespace and name.
    pub objects: Vec<Arc<Value>>,
}

impl Store {
    /// An empty store that remembers the last `history` changes, and who has which of the `claims`.
    ///
    /// Revisions start at the clock, in milliseconds: a client that still holds one from before a
    /// restart is told that it has expired, instead of missing what happened in between.
    pub fn new(history: usize, claims: Claims) -> Self {
        let revision = u64::try_from(clock::now().as_millisecond()).unwrap_or(1);
        Self {
            state: Mutex::new(State {
                revision,
                objects: BTreeMap::new(),
                claims,
                history: History::new(history, revision),
            }),
            revision: watch::Sender::new(revision),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A transaction changes the state only once it has succeeded: it is whole even after a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The object at `key`.
    pub fn get(&self, key: &Key) -> Option<Arc<Value>> {
        self.state().objects.get(key).cloned()
    }

    /// The objects of a resource, of one namespace or of all.
    pub fn list(&self, resource: usize, namespace: Option<&str>) -> Snapshot {
        let state = self.state();
        let objects = range(&state.objects, resource, namespace)
            .map(|(_, object)| object.clone())
            .collect();
        Snapshot {
            revision: state.revision,
            objects,
        }
    }

    /// The same objects as they were at a revision.
    pub fn list_at(
        &self,
        revision: u64,
        resource: usize,
        namespace: Option<&str>,
    ) -> Result<Snapshot, Expired> {
        let state = self.state();
        let mut objects: BTreeMap<&Key, &Arc<Value>> = range(&state.objects, resource, namespace).collect();
        // What has happened since is undone, the last first.
        for (key, change) in state.history.after(revision, state.revision)?.rev() {
            if is_of(key, resource, namespace) {
                match &change.previous {
                    Some(previous) => objects.insert(key, previous),
                    None => objects.remove(key),
                };
            }
        }
        Ok(Snapshot {
            revision,
            objects: objects.into_values().cloned().collect(),
        })
    }

    /// Runs `body` on the objects, alone. What it changes becomes visible all at once when it returns
    /// Ok, and never when it returns Err or when this is a `dry_run`.
    pub fn transact<T, E>(
        &self,
        dry_run: bool,
        body: impl FnOnce(&mut Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut state = self.state();
        let mut transaction = Transaction::new(state.revision, dry_run, &state.objects, &state.claims);
        let result = body(&mut transaction)?;
        let (revision, changes) = transaction.finish();
        if !dry_run && !changes.is_empty() {
            state.revision = revision;
            for (key, change) in changes {
                let after = (change.kind != ChangeKind::Deleted).then_some(&*change.object);
                state.claims.follow(&key, change.previous.as_deref(), after);
                match change.kind {
                    ChangeKind::Deleted => state.objects.remove(&key),
                    ChangeKind::Added | ChangeKind::Modified => {
                        state.objects.insert(key.clone(), change.object.clone())
                    }
                };
                state.history.push(key, change);
            }
            self.revision.send_replace(revision);
        }
        Ok(result)
    }

    /// The changes of a resource (in one namespace or in all) after `revision`, and the revision that
    /// they lead up to.
    pub fn changes_after(
        &self,
        revision: u64,
        resource: usize,
        namespace: Option<&str>,
    ) -> Result<(Vec<Change>, u64), Expired> {
        let state = self.state();
        let changes = state.history.after(revision, state.revision)?;
        Ok((
            changes
                .filter(|(key, _)| is_of(key, resource, namespace))
                .map(|(_, c)| c.clone())
                .collect(),
            state.revision,
        ))
    }

    /// Tells when the revision moves.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }
}

fn range<'a>(
    objects: &'a BTreeMap<Key, Arc<Value>>,
    resource: usize,
    namespace: Option<&'a str>,
) -> impl Iterator<Item = (&'a Key, &'a Arc<Value>)> {
    let first = Key {
        resource,
        namespace: namespace.unwrap_or_default().to_owned(),
        name: String::new(),
    };
    objects
        .range(first..)
        .take_while(move |(key, _)| is_of(key, resource, namespace))
}

fn is_of(key: &Key, resource: usize, namespace: Option<&str>) -> bool {
    key.resource == resource && namespace.is_none_or(|n| n == key.namespace)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::claims::ClaimsOf;
    use super::*;

    fn key(namespace: &str, name: &str) -> Key {
        Key {
            resource: 0,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    fn put(store: &Store, key: &Key, value: Value) -> Arc<Value> {
        store.transact(false, |t| Ok::<_, ()>(t.put(key, value))).unwrap()
    }

    #[test]
    fn a_failed_or_dry_transaction_changes_nothing() {
        let store = Store::new(10, Claims::default());
        let before = store.list(0, None).revision;
        let failed = store.transact(false, |t| {
            t.put(&key("a", "x"), json!({}));
            Err::<(), _>("no")
        });
        assert_eq!(failed, Err("no"));
        store
            .transact(true, |t| Ok::<_, ()>(t.put(&key("a", "x"), json!({}))))
            .unwrap();
        let after = store.list(0, None);
        assert!(after.objects.is_empty());
        assert_eq!(after.revision, before);
    }

    #[test]
    fn a_list_of_one_namespace_leaves_out_the_others() {
        let store = Store::new(10, Claims::default());
        for (namespace, name) in [("a", "x"), ("aa", "x"), ("b", "x"), ("a", "y")] {
            put(
                &store,
                &key(namespace, name),
                json!({"at": format!("{namespace}/{name}")}),
            );
        }
        let at = |n| {
            store
                .list(0, n)
                .objects
                .iter()
                .map(|o| o["at"].clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(at(Some("a")), ["a/x", "a/y"]);
        assert_eq!(at(None), ["a/x", "a/y", "aa/x", "b/x"]);
    }

    #[test]
    fn a_list_of_an_earlier_moment_undoes_what_came_after() {
        let store = Store::new(4, Claims::default());
        for name in ["changes", "goes"] {
            put(&store, &key("a", name), json!({"name": name, "n": 0}));
        }
        let before = store.list(0, None);
        for n in 1..3 {
            put(&store, &key("a", "changes"), json!({"name": "changes", "n": n}));
        }
        put(&store, &key("a", "comes"), json!({"name": "comes"}));
        store
            .transact(false, |t| Ok::<_, ()>(t.remove(&key("a", "goes"), json!({}))))
            .unwrap();
        assert_eq!(store.list(0, None).objects.len(), 2);
        let then = store.list_at(before.revision, 0, None).unwrap();
        assert_eq!((then.revision, then.objects), (before.revision, before.objects));
        assert!(
            store
                .list_at(before.revision, 1, None)
                .unwrap()
                .objects
                .is_empty()
        );
        put(&store, &key("a", "comes"), json!({}));
        assert!(
            store.list_at(before.revision, 0, None).is_err(),
            "it is forgotten"
        );
    }

    #[test]
    fn changes_come_in_order_until_they_are_forgotten() {
        let store = Store::new(3, Claims::default());
        let start = store.list(0, None).revision;
        for n in 0..3 {
            put(&store, &key("a", "x"), json!({"n": n}));
        }
        let (changes, at) = store.changes_after(start, 0, None).unwrap();
        assert_eq!(
            changes.iter().map(|c| c.object["n"].clone()).collect::<Vec<_>>(),
            [0, 1, 2]
        );
        assert_eq!(
            changes.iter().map(|c| c.kind).collect::<Vec<_>>(),
            [ChangeKind::Added, ChangeKind::Modified, ChangeKind::Modified]
        );
        assert!(store.changes_after(at, 0, None).unwrap().0.is_empty());
        put(&store, &key("b", "x"), json!({}));
        assert!(store.changes_after(start, 0, None).is_err());
        assert_eq!(store.changes_after(start + 1, 0, Some("b")).unwrap().0.len(), 1);
        assert!(store.changes_after(at + 100, 0, None).is_err());
    }

    #[test]
    fn a_claim_is_held_from_the_write_until_the_object_goes_or_gives_it_up() {
        let of = |object: &Value| object["claims"].as_str().map(str::to_owned).into_iter().collect();
        let store = Store::new(10, Claims::new([of as ClaimsOf]));
        let holder = |claim: &str| {
            store
                .transact(true, |t| Ok::<_, ()>(t.holder(0, claim).cloned()))
                .unwrap()
        };
        let (x, y) = (key("a", "x"), key("a", "y"));
        put(&store, &x, json!({"claims": "one"}));
        assert_eq!(holder("one"), Some(x.clone()));
        let inside = store.transact(false, |t| {
            t.put(&x, json!({"claims": "two"}));
            t.put(&y, json!({"claims": "one"}));
            Err::<(), _>((t.holder(0, "one").cloned(), t.holder(0, "two").cloned()))
        });
        assert_eq!(inside, Err((Some(y.clone()), Some(x.clone()))));
        assert_eq!(
            (holder("one"), holder("two")),
            (Some(x.clone()), None),
            "it failed"
        );
        put(&store, &x, json!({"claims": "two"}));
        put(&store, &y, json!({"claims": "one"}));
        assert_eq!((holder("one"), holder("two")), (Some(y.clone()), Some(x.clone())));
        store
            .transact(false, |t| Ok::<_, ()>(t.remove(&y, json!({}))))
            .unwrap();
        assert_eq!((holder("one"), holder("two")), (None, Some(x)));
    }

    #[test]
    fn the_revision_of_an_object_is_that_of_its_last_change() {
        let store = Store::new(10, Claims::default());
        let first = put(&store, &key("a", "x"), json!({"metadata": {}}));
        let second = put(&store, &key("a", "x"), json!({"metadata": {}}));
        let revision = |o: &Value| {
            o["metadata"]["resourceVersion"]
                .as_str()
                .unwrap()
                .parse::<u64>()
                .unwrap()
        };
        assert_eq!(revision(&second), revision(&first) + 1);
        assert_eq!(store.list(0, None).revision, revision(&second));
    }
}
