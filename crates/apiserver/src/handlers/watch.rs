use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::Response;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::read::selector;
use crate::api::Call;
use crate::cause::{Cause, CauseReason};
use crate::closing::Closing;
use crate::error::{ApiError, Subject};
use crate::respond::{self, Body, Form};
use crate::selector::Selector;
use crate::store::{Change, ChangeKind};
use crate::table::{IncludeObject, table};

/// How long a watch lasts when the client does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// How often a watcher that wants bookmarks gets one.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// Streams what happens to the objects that the selectors pick.
pub fn watch(call: Call) -> Result<Response<Body>, ApiError> {
    let form = respond::accepted_form(&call.headers)?;
    let include = respond::include_object(call.query.text("includeObject"))?;
    if call.query.flag("sendInitialEvents") {
        // The words of a server without this feature, upon which clients list and then watch.
        let why = "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled";
        let cause = Cause::new(CauseReason::Forbidden, "sendInitialEvents", why);
        return Err(ApiError::Invalid(Subject::new(call.resource(), ""), vec![cause]));
    }
    let timeout = call.query.number("timeoutSeconds")?.filter(|s| *s > 0);
    let timeout = timeout.map_or(DEFAULT_TIMEOUT, Duration::from_secs);
    let mut moved = call.api.store.subscribe();
    moved.mark_unchanged();
    let mut selector = selector(&call)?;
    if let Some(name) = &call.target.name {
        selector = selector.and_name(name);
    }
    let mut watcher = Watcher {
        selector,
        form: (form, include),
        bookmarks: call.query.flag("allowWatchBookmarks"),
        revision: 0,
        moved,
        closing: call.api.closing.clone(),
        end: Instant::now() + timeout,
        next_bookmark: Instant::now() + BOOKMARK_EVERY,
        ended: false,
        first: Vec::new(),
        call,
    };
    match watcher.call.query.number::<u64>("resourceVersion")?.unwrap_or(0) {
        0 => watcher.begin_with_all(),
        revision => watcher.revision = revision,
    }
    let chunks = stream::unfold(watcher, |mut watcher| async move {
        watcher
            .next()
            .await
            .map(|chunk| (Ok::<_, io::Error>(chunk), watcher))
    });
    Ok(respond::stream("application/json", chunks))
}

struct Watcher {
    call: Call,
    selector: Selector,
    form: (Form, IncludeObject),
    bookmarks: bool,
    /// All changes up to this one have been sent.
    revision: u64,
    moved: watch::Receiver<u64>,
    closing: Closing,
    end: Instant,
    next_bookmark: Instant,
    ended: bool,
    first: Vec<u8>,
}

impl Watcher {
    /// Without a revision to start from, a watch begins with all that is there.
    fn begin_with_all(&mut self) {
        let target = &self.call.target;
        let snapshot = self
            .call
            .api
            .store
            .list(target.resource, target.namespace.as_deref());
        self.revision = snapshot.revision;
        let mut first = Vec::new();
        for object in snapshot.objects.iter().filter(|o| self.selector.matches(o)) {
            self.write(&mut first, "ADDED", object.clone());
        }
        self.first = first;
    }

    /// The next events, as lines of JSON; None at the end of the watch.
    async fn next(&mut self) -> Option<Bytes> {
        if !self.first.is_empty() {
            return Some(std::mem::take(&mut self.first).into());
        }
        while !self.ended {
            self.moved.mark_unchanged();
            let target = &self.call.target;
            let changes = self.call.api.store.changes_after(
                self.revision,
                target.resource,
                target.namespace.as_deref(),
            );
            let (changes, revision) = match changes {
                Ok(changes) => changes,
                Err(expired) => {
                    self.ended = true;
                    return Some(line("ERROR", &ApiError::Expired(expired.to_string()).status()).into());
                }
            };
            self.revision = revision;
            let mut lines = Vec::new();
            for change in changes {
                if let Some(kind) = self.seen(&change) {
                    self.write(&mut lines, kind, change.object);
                }
            }
            if !lines.is_empty() {
                return Some(lines.into());
            }
            let wake = if self.bookmarks {
                self.next_bookmark.min(self.end)
            } else {
                self.end
            };
            let mut bookmark_due = false;
            tokio::select! {
                // The store lives as long as this watcher, which holds it.
                _ = self.moved.changed() => {}
                () = self.closing.wait() => self.ended = true,
                () = tokio::time::sleep_until(wake) => {
                    self.ended = self.end <= Instant::now();
                    self.next_bookmark = Instant::now() + BOOKMARK_EVERY;
                    bookmark_due = self.bookmarks;
                }
            }
            if bookmark_due {
                return Some(self.bookmark().into());
            }
        }
        None
    }

    /// What a change is to this watcher: an object may come into its selection, or leave it.
    fn seen(&self, change: &Change) -> Option<&'static str> {
        let before = change.previous.as_ref().is_some_and(|o| self.selector.matches(o));
        let after = change.kind != ChangeKind::Deleted && self.selector.matches(&change.object);
        match (before, after) {
            (false, true) => Some("ADDED"),
            (true, true) => Some("MODIFIED"),
            (true, false) => Some("DELETED"),
            (false, false) => None,
        }
    }

    fn write(&self, lines: &mut Vec<u8>, kind: &str, object: std::sync::Arc<Value>) {
        match self.form {
            (Form::Objects, _) => lines.extend(line(kind, &object)),
            (Form::Table, include) => {
                let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                lines.extend(line(
                    kind,
                    &table(self.call.resource(), &[object], metadata, include),
                ));
            }
        }
    }

    fn bookmark(&self) -> Vec<u8> {
        let resource = self.call.resource();
        let metadata = json!({"resourceVersion": self.revision.to_string()});
        let object = match self.form {
            (Form::Objects, _) => {
                json!({"kind": resource.kind, "apiVersion": resource.api_version(), "metadata": metadata})
            }
            (Form::Table, include) => table(resource, &[], metadata, include),
        };
        line("BOOKMARK", &object)
    }
}

fn line(kind: &str, object: &Value) -> Vec<u8> {
    format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n").into_bytes()
}
