use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::api::Call;
use crate::error::{ApiError, Subject};
use crate::page::Page;
use crate::respond::{self, Body, Form};
use crate::selector::Selector;
use crate::store::Snapshot;
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

/// Answers with all objects that the selectors pick, or with a page of them: the latest, or those of the revision that is
/// asked for. (The parameter `resourceVersion` alone allows more than it demands.)
pub fn list(call: &Call) -> Result<Response<Body>, ApiError> {
    let form = respond::accepted_form(&call.headers)?;
    let resource = call.resource();
    let selector = selector(call)?;
    let page = Page::of(&call.query)?;
    let mut snapshot = snapshot(call, &page)?;
    snapshot.objects.retain(|object| selector.matches(object));
    let selected = ["labelSelector", "fieldSelector"]
        .iter()
        .any(|s| !call.query.text(s).is_empty());
    let metadata = page.cut(snapshot.revision, &mut snapshot.objects, selected);
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

/// The objects that a list is of.
fn snapshot(call: &Call, page: &Page) -> Result<Snapshot, ApiError> {
    let (resource, namespace) = (call.target.resource, call.target.namespace.as_deref());
    let store = &call.api.store;
    if let Some(revision) = page.revision() {
        return store.list_at(revision, resource, namespace).map_err(|_| {
            ApiError::Expired(
                "The provided continue parameter is too old to display a consistent list result. You must start a new \
                 list without the continue parameter."
                    .to_owned(),
            )
        });
    }
    if call.query.text("resourceVersionMatch") == "Exact" {
        let revision = call.query.number("resourceVersion")?.unwrap_or_default();
        let snapshot = store.list_at(revision, resource, namespace);
        return snapshot.map_err(|expired| ApiError::Expired(expired.to_string()));
    }
    Ok(store.list(resource, namespace))
}

/// The selectors of a list or watch.
pub(super) fn selector(call: &Call) -> Result<Selector, ApiError> {
    Selector::parse(
        call.query.text("labelSelector"),
        call.query.text("fieldSelector"),
        call.resource(),
    )
}
