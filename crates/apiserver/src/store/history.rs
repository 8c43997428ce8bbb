//! The last changes, from which every watcher reads at its own pace.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::Value;
use thiserror::Error;

use super::Key;

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It was made.
    Added,
    /// It was changed.
    Modified,
    /// It is gone.
    Deleted,
}

/// A change of one object.
#[derive(Clone, Debug)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// The revision that the change made.
    pub revision: u64,
    /// The object after the change; of one that is gone, its last state at the revision of its removal.
    pub object: Arc<Value>,
    /// The object before the change.
    pub previous: Option<Arc<Value>>,
}

/// The changes after a revision are not remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("too old resource version: {asked} ({oldest})")]
pub struct Expired {
    asked: u64,
    oldest: u64,
}

#[derive(Debug)]
pub(super) struct History {
    changes: VecDeque<(Key, Change)>,
    limit: usize,
    /// The changes after this revision are all there.
    since: u64,
}

impl History {
    pub(super) fn new(limit: usize, revision: u64) -> Self {
        Self {
            changes: VecDeque::new(),
            limit,
            since: revision,
        }
    }

    pub(super) fn push(&mut self, key: Key, change: Change) {
        self.changes.push_back((key, change));
        while self.changes.len() > self.limit {
            if let Some((_, forgotten)) = self.changes.pop_front() {
                self.since = forgotten.revision;
            }
        }
    }

    /// The changes after `revision`, in order. A revision of the future comes from another life of the
    /// server, and has expired like one that is too old.
    pub(super) fn after(
        &self,
        revision: u64,
        current: u64,
    ) -> Result<impl DoubleEndedIterator<Item = &(Key, Change)>, Expired> {
        if revision < self.since || revision > current {
            return Err(Expired {
                asked: revision,
                oldest: self.since,
            });
        }
        let start = self
            .changes
            .partition_point(|(_, change)| change.revision <= revision);
        Ok(self.changes.range(start..))
    }
}
