//! Namespaces: they must be there for what is made in them, and go when the last of it is gone.

use serde_json::Value;

use super::{DeleteOptions, delete};
use crate::error::{ApiError, Subject};
use crate::resource::{Registry, Resource};
use crate::store::{Key, Transaction};

/// The namespaces that exist from the start and cannot be deleted.
pub const PERMANENT_NAMESPACES: [&str; 2] = ["default", "kube-system"];

/// Deletes all that is in a namespace.
pub(super) fn empty(
    registry: &Registry,
    transaction: &mut Transaction<'_>,
    namespace: &str,
) -> Result<(), ApiError> {
    for resource in namespaced(registry) {
        for key in transaction.keys(resource, namespace) {
            delete(registry, transaction, &key, &DeleteOptions::default())?;
        }
    }
    Ok(())
}

/// Whether nothing is in a namespace.
pub(super) fn is_empty(registry: &Registry, transaction: &Transaction<'_>, namespace: &str) -> bool {
    namespaced(registry).all(|resource| transaction.keys(resource, namespace).is_empty())
}

fn namespaced(registry: &Registry) -> impl Iterator<Item = usize> {
    registry
        .all()
        .iter()
        .enumerate()
        .filter(|(_, r)| r.namespaced)
        .map(|(i, _)| i)
}

/// Refuses to make something in a namespace that is not there, or no longer quite.
pub(super) fn require(
    registry: &Registry,
    transaction: &Transaction<'_>,
    resource: &Resource,
    namespace: &str,
    name: &str,
) -> Result<(), ApiError> {
    let Some(namespaces) = registry.namespaces() else {
        return Ok(());
    };
    let key = Key {
        resource: namespaces,
        namespace: String::new(),
        name: namespace.to_owned(),
    };
    let Some(object) = transaction.get(&key) else {
        return Err(ApiError::NotFound(Subject::new(
            registry.get(namespaces),
            namespace,
        )));
    };
    if is_terminating(&object) {
        let why =
            format!("unable to create new content in namespace {namespace} because it is being terminated");
        return Err(ApiError::Forbidden(Subject::new(resource, name), why));
    }
    Ok(())
}

/// Takes away a namespace that only waited for its last object to go.
pub(super) fn finish_emptied(registry: &Registry, transaction: &mut Transaction<'_>, namespace: &str) {
    let Some(resource) = registry.namespaces() else {
        return;
    };
    let key = Key {
        resource,
        namespace: String::new(),
        name: namespace.to_owned(),
    };
    if let Some(object) = transaction.get(&key)
        && is_terminating(&object)
        && is_empty(registry, transaction, namespace)
    {
        transaction.remove(&key, Value::clone(&object));
    }
}

/// Whether the deletion of an object has begun.
pub(super) fn is_terminating(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}
