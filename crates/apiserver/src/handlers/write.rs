use std::sync::Arc;

use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::api::Call;
use crate::error::{ApiError, Subject};
use crate::lifecycle::{self, Part};
use crate::patch::Patch;
use crate::query::FieldValidation;
use crate::resource::Resource;
use crate::respond::{self, Body, Form};
use crate::route::Subresource;
use crate::table::table;

/// Makes an object.
pub fn create(call: &Call) -> Result<Response<Body>, ApiError> {
    let mut object = respond::parse_object(&call.headers, &call.body)?;
    let warnings = admit(call, &mut object)?;
    let namespace = match (&call.target.namespace, call.resource().namespaced) {
        (Some(namespace), true) => namespace.as_str(),
        (None, false) => "",
        _ => return Err(ApiError::MethodNotAllowed),
    };
    let api = &call.api;
    let made = api.store.transact(call.query.dry_run()?, |transaction| {
        lifecycle::create(
            &api.registry,
            transaction,
            call.target.resource,
            namespace,
            object,
        )
    })?;
    respond_with(call, StatusCode::CREATED, &made, &warnings)
}

/// Replaces an object, or its status.
pub fn update(call: &Call) -> Result<Response<Body>, ApiError> {
    let mut object = respond::parse_object(&call.headers, &call.body)?;
    let warnings = admit(call, &mut object)?;
    let api = &call.api;
    let changed = api.store.transact(call.query.dry_run()?, |transaction| {
        lifecycle::update(&api.registry, transaction, &call.key(), object, part(call))
    })?;
    respond_with(call, StatusCode::OK, &changed, &warnings)
}

/// Changes an object, or its status, by a patch.
pub fn patch(call: &Call) -> Result<Response<Body>, ApiError> {
    let resource = call.resource();
    let patch = Patch::parse(resource, respond::content_type(&call.headers), &call.body)?;
    let (api, key) = (&call.api, call.key());
    let subject = || Subject::new(resource, &key.name);
    let (changed, warnings) = api.store.transact(call.query.dry_run()?, |transaction| {
        let old = transaction
            .get(&key)
            .ok_or_else(|| ApiError::NotFound(subject()))?;
        let mut object = patch
            .apply(resource, Value::clone(&old))
            .map_err(|e| e.refusal(subject()))?;
        let warnings = admit(call, &mut object)?;
        let changed = lifecycle::update(&api.registry, transaction, &key, object, part(call))?;
        Ok::<_, ApiError>((changed, warnings))
    })?;
    respond_with(call, StatusCode::OK, &changed, &warnings)
}

fn part(call: &Call) -> Part {
    match call.target.subresource {
        Subresource::Status => Part::Status,
        Subresource::None | Subresource::Log => Part::Main,
    }
}

/// Brings an object from outside into the shape of its kind. What it had beyond that is refused, or
/// told in warnings, as the client wishes.
fn admit(call: &Call, object: &mut Value) -> Result<Vec<String>, ApiError> {
    let resource = call.resource();
    match_type(resource, object)?;
    if !object["metadata"].is_object() {
        if !object["metadata"].is_null() {
            return Err(ApiError::BadRequest("metadata must be a JSON object".to_owned()));
        }
        object["metadata"] = json!({});
    }
    let unknown = resource.schema.conform(object);
    let unknown: Vec<String> = unknown
        .iter()
        .map(|path| format!("unknown field \"{path}\""))
        .collect();
    match call.query.field_validation()? {
        FieldValidation::Strict if !unknown.is_empty() => Err(ApiError::BadRequest(format!(
            "{kind} in version \"{version}\" cannot be handled as a {kind}: strict decoding error: {}",
            unknown.join(", "),
            kind = resource.kind,
            version = resource.version,
        ))),
        FieldValidation::Ignore => Ok(Vec::new()),
        FieldValidation::Warn | FieldValidation::Strict => Ok(unknown),
    }
}

fn match_type(resource: &Resource, object: &Value) -> Result<(), ApiError> {
    let (api_version, kind) = (resource.api_version(), resource.kind.as_str());
    if object["apiVersion"] == api_version && object["kind"] == kind {
        return Ok(());
    }
    Err(ApiError::BadRequest(format!(
        "the object provided is unrecognized (must be of type {kind} in apiVersion {api_version}): it says kind {} in apiVersion {}",
        object["kind"], object["apiVersion"],
    )))
}

fn respond_with(
    call: &Call,
    code: StatusCode,
    object: &Arc<Value>,
    warnings: &[String],
) -> Result<Response<Body>, ApiError> {
    let value = match respond::accepted_form(&call.headers)? {
        Form::Objects => Value::clone(object),
        Form::Table => {
            let include = respond::include_object(call.query.text("includeObject"))?;
            table(call.resource(), std::slice::from_ref(object), json!({}), include)
        }
    };
    Ok(respond::json_with_warnings(code, &value, warnings))
}
