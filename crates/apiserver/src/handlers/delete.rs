use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::api::Call;
use crate::error::ApiError;
use crate::lifecycle::{self, DeleteOptions, Deletion};
use crate::respond::{self, Body};

/// Deletes an object, or begins to.
pub fn delete(call: &Call) -> Result<Response<Body>, ApiError> {
    let body = if call.body.is_empty() {
        json!({})
    } else {
        respond::parse_object(&call.headers, &call.body)?
    };
    let options = options(call, &body)?;
    let dry_run = call.query.dry_run()? || body["dryRun"][0] == "All";
    let (api, resource) = (&call.api, call.resource());
    let deletion = api.store.transact(dry_run, |transaction| {
        lifecycle::delete(&api.registry, transaction, &call.key(), &options)
    })?;
    let value = match deletion {
        Deletion::Ending(object) => Value::clone(&object),
        Deletion::Gone(object) => json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": {
                "name": object["metadata"]["name"],
                "group": resource.group,
                "kind": resource.plural,
                "uid": object["metadata"]["uid"],
            },
        }),
    };
    Ok(respond::json(StatusCode::OK, &value))
}

fn options(call: &Call, body: &Value) -> Result<DeleteOptions, ApiError> {
    let of_query = call.query.number("gracePeriodSeconds")?;
    let grace = match &body["gracePeriodSeconds"] {
        Value::Null => of_query,
        value => Some(value.as_i64().ok_or_else(|| {
            ApiError::BadRequest(format!(
                "gracePeriodSeconds must be a number of seconds, not {value}"
            ))
        })?),
    };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let preconditions = &body["preconditions"];
    Ok(DeleteOptions {
        grace,
        uid: text(&preconditions["uid"]),
        resource_version: text(&preconditions["resourceVersion"]),
    })
}
