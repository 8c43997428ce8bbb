use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::api::Call;
use crate::error::{ApiError, Subject};
use crate::respond::{self, Body, Form};
use crate::selector::Selector;
use crate::table::table;

/// Answers with one object.
pub fn get(call: &Call) -> Result<Response<Body>, ApiError> {
    let form = respond::accepted_form(&call.headers)?;
    let key = call.key();
    let object = call.api.store.get(&key);
    let object = object.ok_or_else(|| ApiError::NotFound(Subject::new(call.resource(), &key.name)))?;
    let value = match form {
        Form::Objects => Value::clone(&object),
        Form::Table => {
            let include = respond::include_object(call.query.text("includeObject"))?;
            let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
            table(call.resource(), &[object], metadata, include)
        }
    };
    Ok(respond::json(StatusCode::OK, &value))
}

/// Answers with all objects that the selectors pick. Always the latest, and all at once: the parameters
/// `limit` and `resourceVersion` allow more than they demand.
pub fn list(call: &Call) -> Result<Response<Body>, ApiError> {
    let form = respond::accepted_form(&call.headers)?;
    let resource = call.resource();
    let selector = selector(call)?;
    let mut snapshot = call
        .api
        .store
        .list(call.target.resource, call.target.namespace.as_deref());
    let revision = snapshot.revision.to_string();
    if call.query.text("resourceVersionMatch") == "Exact" && call.query.text("resourceVersion") != revision {
        return Err(ApiError::Expired(
            "only the latest resource version can be listed".to_owned(),
        ));
    }
    snapshot.objects.retain(|object| selector.matches(object));
    let metadata = json!({"resourceVersion": revision});
    let value = match form {
        Form::Table => {
            let include = respond::include_object(call.query.text("includeObject"))?;
            table(resource, &snapshot.objects, metadata, include)
        }
        Form::Objects => json!({
            "kind": format!("{}List", resource.kind),
            "apiVersion": resource.api_version(),
            "metadata": metadata,
            "items": snapshot.objects.iter().map(|o| Value::clone(o)).collect::<Vec<_>>(),
        }),
    };
    Ok(respond::json(StatusCode::OK, &value))
}

/// The selectors of a list or watch.
pub(super) fn selector(call: &Call) -> Result<Selector, ApiError> {
    Selector::parse(
        call.query.text("labelSelector"),
        call.query.text("fieldSelector"),
        call.resource(),
    )
}
