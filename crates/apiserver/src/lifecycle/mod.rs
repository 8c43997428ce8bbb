//! How objects come to be, change and go: the rules of metadata that hold for every kind.

mod check;
mod namespaces;

use std::sync::Arc;

use k8s_openapi::jiff::SignedDuration;
use serde_json::{Value, json};

use crate::admission::{Others, Refusal};
use crate::clock;
use crate::error::{ApiError, Subject};
use crate::random;
use crate::resource::{Registry, Resource};
use crate::store::{Key, Transaction};
use check::{check, refuse};
use namespaces::is_terminating;

pub use namespaces::PERMANENT_NAMESPACES;

/// The part of an object that a write is meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All but the status, where status is a subresource.
    Main,
    /// The status alone.
    Status,
}

/// How an object is to be deleted (meta/v1 DeleteOptions).
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// The seconds that it is given to end; None: as long as the object itself says.
    pub grace: Option<i64>,
    /// Only if this is its uid.
    pub uid: Option<String>,
    /// Only if this is its resourceVersion.
    pub resource_version: Option<String>,
}

/// What a deletion came to.
#[derive(Clone, Debug)]
pub enum Deletion {
    /// The object is gone; this was its last state.
    Gone(Arc<Value>),
    /// The object is marked, and goes once its finalizers are done and its grace is over.
    Ending(Arc<Value>),
}

/// Makes `object` in `namespace` (empty for kinds without).
pub fn create(
    registry: &Registry,
    transaction: &mut Transaction<'_>,
    resource: usize,
    namespace: &str,
    mut object: Value,
) -> Result<Arc<Value>, ApiError> {
    let index = resource;
    let resource = registry.get(index);
    let metadata = &mut object["metadata"];
    if metadata["resourceVersion"]
        .as_str()
        .is_some_and(|v| !v.is_empty())
    {
        let text = "resourceVersion should not be set on objects to be created";
        return Err(ApiError::BadRequest(text.to_owned()));
    }
    if text(&metadata["name"]).is_empty() && !text(&metadata["generateName"]).is_empty() {
        metadata["name"] = format!("{}{}", text(&metadata["generateName"]), random::suffix()).into();
    }
    let name = text(&metadata["name"]).to_owned();
    if resource.namespaced {
        match_namespace(metadata, namespace)?;
        namespaces::require(registry, transaction, resource, namespace, &name)?;
        metadata["namespace"] = namespace.into();
    }
    if let Some(metadata) = metadata.as_object_mut() {
        for server_side in [
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "selfLink",
            "managedFields",
        ] {
            metadata.remove(server_side);
        }
    }
    metadata["uid"] = random::uid().into();
    metadata["creationTimestamp"] = clock::rfc3339(clock::now()).into();
    metadata["generation"] = 1.into();
    if resource.has_status {
        remove(&mut object, "status");
    }
    check(resource, &object)?;
    let key = Key {
        resource: index,
        namespace: namespace.to_owned(),
        name,
    };
    if transaction.get(&key).is_some() {
        return Err(ApiError::AlreadyExists(Subject::new(resource, &key.name)));
    }
    (resource.rules.defaults)(&mut object);
    admit(resource, transaction, &key, None, &mut object)?;
    (resource.rules.on_create)(&mut object);
    refuse(resource, &key.name, (resource.rules.validate)(None, &object))?;
    Ok(transaction.put(&key, object))
}

/// Replaces one part of the object at `key` by that part of `object`.
pub fn update(
    registry: &Registry,
    transaction: &mut Transaction<'_>,
    key: &Key,
    mut object: Value,
    part: Part,
) -> Result<Arc<Value>, ApiError> {
    let resource = registry.get(key.resource);
    let subject = || Subject::new(resource, &key.name);
    let old = transaction
        .get(key)
        .ok_or_else(|| ApiError::NotFound(subject()))?;
    match_name(&object["metadata"], key)?;
    precondition(resource, &old, &object["metadata"])?;
    if part == Part::Status {
        let status = object["status"].take();
        object = Value::clone(&old);
        object["status"] = status;
        if object["status"].is_null() {
            remove(&mut object, "status");
        }
    } else {
        keep(
            &old,
            &mut object,
            &["uid", "creationTimestamp", "deletionTimestamp"],
        );
        keep(
            &old,
            &mut object,
            &[
                "deletionGracePeriodSeconds",
                "generation",
                "generateName",
                "namespace",
            ],
        );
        if resource.has_status {
            match old.get("status") {
                Some(status) => object["status"] = status.clone(),
                None => remove(&mut object, "status"),
            }
        }
    }
    object["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
    check(resource, &object)?;
    (resource.rules.defaults)(&mut object);
    if part == Part::Main {
        admit(resource, transaction, key, Some(&old), &mut object)?;
    }
    if object == *old {
        return Ok(old);
    }
    if part == Part::Main && differs_outside(&old, &object, &["metadata", "status"]) {
        object["metadata"]["generation"] = (old["metadata"]["generation"].as_i64().unwrap_or(0) + 1).into();
    }
    let causes = (resource.rules.validate)(Some(&old), &object);
    refuse(resource, &key.name, causes)?;
    if is_finished(&object) {
        return Ok(finish(registry, transaction, key, object));
    }
    Ok(transaction.put(key, object))
}

/// Asks the rules of the kind that look at its other objects.
fn admit(
    resource: &Resource,
    transaction: &Transaction<'_>,
    key: &Key,
    old: Option<&Value>,
    new: &mut Value,
) -> Result<(), ApiError> {
    let Some(admission) = &resource.rules.admission else {
        return Ok(());
    };
    let others = Others::new(transaction, key);
    admission
        .admit(old, new, &others)
        .map_err(|refusal| match refusal {
            Refusal::Invalid(causes) => ApiError::Invalid(Subject::new(resource, &key.name), causes),
            Refusal::Internal(why) => ApiError::Internal(why),
        })
}

/// Deletes the object at `key`, or begins to.
pub fn delete(
    registry: &Registry,
    transaction: &mut Transaction<'_>,
    key: &Key,
    options: &DeleteOptions,
) -> Result<Deletion, ApiError> {
    let resource = registry.get(key.resource);
    let subject = || Subject::new(resource, &key.name);
    let old = transaction
        .get(key)
        .ok_or_else(|| ApiError::NotFound(subject()))?;
    precondition(
        resource,
        &old,
        &json!({"uid": options.uid, "resourceVersion": options.resource_version}),
    )?;
    let is_namespace = Some(key.resource) == registry.namespaces();
    if is_namespace && PERMANENT_NAMESPACES.contains(&key.name.as_str()) {
        return Err(ApiError::Forbidden(
            subject(),
            "this namespace may not be deleted".to_owned(),
        ));
    }
    let mut object = Value::clone(&old);
    let own_grace = (resource.rules.grace)(&old);
    let mut grace = own_grace.map_or(0, |own| {
        if own == 0 {
            0
        } else {
            options.grace.unwrap_or(own).max(0)
        }
    });
    let metadata = &mut object["metadata"];
    if let Some(given) = metadata["deletionGracePeriodSeconds"].as_i64() {
        // A second request may shorten what is left, never prolong it.
        grace = grace.min(if options.grace.is_some() {
            given
        } else {
            grace.min(given)
        });
    }
    let known = !metadata["deletionTimestamp"].is_null();
    if !known || metadata["deletionGracePeriodSeconds"] != grace {
        let end = clock::now() + SignedDuration::from_secs(grace);
        metadata["deletionTimestamp"] = clock::rfc3339(end).into();
        metadata["deletionGracePeriodSeconds"] = grace.into();
    }
    if is_namespace {
        object["status"]["phase"] = "Terminating".into();
        namespaces::empty(registry, transaction, &key.name)?;
        if !namespaces::is_empty(registry, transaction, &key.name) {
            return Ok(Deletion::Ending(put_if_changed(transaction, key, &old, object)));
        }
        return Ok(Deletion::Gone(finish(registry, transaction, key, object)));
    }
    if is_finished(&object) {
        return Ok(Deletion::Gone(finish(registry, transaction, key, object)));
    }
    Ok(Deletion::Ending(put_if_changed(transaction, key, &old, object)))
}

fn put_if_changed(transaction: &mut Transaction<'_>, key: &Key, old: &Arc<Value>, new: Value) -> Arc<Value> {
    if new == **old {
        old.clone()
    } else {
        transaction.put(key, new)
    }
}

/// Takes away an object whose time has come, and its namespace if that only waited for it.
fn finish(registry: &Registry, transaction: &mut Transaction<'_>, key: &Key, object: Value) -> Arc<Value> {
    let last = transaction.remove(key, object);
    namespaces::finish_emptied(registry, transaction, &key.namespace);
    last
}

/// Whether the deletion of an object has nothing left to wait for.
fn is_finished(object: &Value) -> bool {
    let metadata = &object["metadata"];
    is_terminating(object)
        && metadata["finalizers"].as_array().is_none_or(Vec::is_empty)
        && metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
}

fn match_namespace(metadata: &Value, namespace: &str) -> Result<(), ApiError> {
    let given = text(&metadata["namespace"]);
    if given.is_empty() || given == namespace {
        return Ok(());
    }
    Err(ApiError::BadRequest(
        "the namespace of the provided object does not match the namespace sent on the request".to_owned(),
    ))
}

fn match_name(metadata: &Value, key: &Key) -> Result<(), ApiError> {
    let given = text(&metadata["name"]);
    if given != key.name {
        return Err(ApiError::BadRequest(format!(
            "the name of the object ({given}) does not match the name on the URL ({})",
            key.name
        )));
    }
    match_namespace(metadata, &key.namespace)
}

/// The uid and resourceVersion in `wanted`, where given, must be the object's.
fn precondition(resource: &Resource, old: &Value, wanted: &Value) -> Result<(), ApiError> {
    let name = text(&old["metadata"]["name"]);
    let (uid, version) = (text(&wanted["uid"]), text(&wanted["resourceVersion"]));
    let (own_uid, own_version) = (
        text(&old["metadata"]["uid"]),
        text(&old["metadata"]["resourceVersion"]),
    );
    if !uid.is_empty() && uid != own_uid {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {own_uid}");
        return Err(ApiError::Conflict(Subject::new(resource, name), why));
    }
    if !version.is_empty() && version != "0" && version != own_version {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        return Err(ApiError::Conflict(Subject::new(resource, name), why.to_owned()));
    }
    Ok(())
}

/// Copies metadata that clients do not decide from the old object.
fn keep(old: &Value, new: &mut Value, fields: &[&str]) {
    for field in fields {
        match old["metadata"].get(field) {
            Some(value) => new["metadata"][field] = value.clone(),
            None => remove(&mut new["metadata"], field),
        }
    }
}

fn differs_outside(old: &Value, new: &Value, fields: &[&str]) -> bool {
    let rest = |object: &Value| {
        let mut object = object.as_object().cloned().unwrap_or_default();
        object.retain(|name, _| !fields.contains(&name.as_str()));
        object
    };
    rest(old) != rest(new)
}

fn remove(object: &mut Value, field: &str) {
    if let Some(object) = object.as_object_mut() {
        object.remove(field);
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
