//! Lists in pages ("Retrieving large results sets in chunks" of Kubernetes' API concepts): `limit` says how many objects
//! a page may have, and `continue` is where the page before ended. All pages show the objects as they were when the first
//! one was asked for.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::query::Query;

/// Which page of a list is asked for.
#[derive(Debug, Default)]
pub struct Page {
    /// No more objects than this.
    limit: Option<usize>,
    after: Option<Place>,
}

/// Where a page has ended: what `continue` says, which is nobody's to read but ours.
#[derive(Debug)]
struct Place {
    revision: u64,
    namespace: String,
    name: String,
}

impl Page {
    /// What a request asks for.
    pub fn of(query: &Query) -> Result<Self, ApiError> {
        let limit = query.number::<i64>("limit")?.unwrap_or_default();
        let after = match query.text("continue") {
            "" => None,
            token => Some(Place::parse(token).ok_or_else(|| {
                ApiError::BadRequest(format!(
                    "continue key is not valid: {token:?} is none of this server's"
                ))
            })?),
        };
        if after.is_some() && !matches!(query.text("resourceVersion"), "" | "0") {
            return Err(ApiError::BadRequest(
                "specifying resource version is not allowed when using continue".to_owned(),
            ));
        }
        Ok(Self {
            limit: usize::try_from(limit).ok().filter(|limit| *limit > 0),
            after,
        })
    }

    /// The revision that the list was begun at; `None`: it begins.
    pub fn revision(&self) -> Option<u64> {
        self.after.as_ref().map(|place| place.revision)
    }

    /// Leaves of a list, which is in order, what belongs on the page; returns the list's metadata. How many objects are
    /// left is not told where some were `selected`, as in Kubernetes.
    pub fn cut(&self, revision: u64, objects: &mut Vec<Arc<Value>>, selected: bool) -> Value {
        if let Some(Place { namespace, name, .. }) = &self.after {
            let seen = objects.partition_point(|object| place(object) <= (namespace.as_str(), name.as_str()));
            objects.drain(..seen);
        }
        let mut metadata = Map::new();
        metadata.insert("resourceVersion".into(), revision.to_string().into());
        if let Some(limit) = self.limit.filter(|limit| objects.len() > *limit) {
            let left = objects.len() - limit;
            objects.truncate(limit);
            let (namespace, name) = objects.last().map(|last| place(last)).unwrap_or_default();
            metadata.insert("continue".into(), format!("{revision}/{namespace}/{name}").into());
            if !selected {
                metadata.insert("remainingItemCount".into(), left.into());
            }
        }
        metadata.into()
    }
}

impl Place {
    fn parse(token: &str) -> Option<Self> {
        let mut parts = token.splitn(3, '/');
        let revision = parts.next()?.parse().ok()?;
        let (namespace, name) = (parts.next()?.to_owned(), parts.next()?.to_owned());
        (!name.is_empty()).then_some(Self {
            revision,
            namespace,
            name,
        })
    }
}

/// What lists are in order of.
fn place(object: &Value) -> (&str, &str) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    (text("namespace"), text("name"))
}
