use k8s_openapi::api::core::v1::Event;
use serde_json::Value;

use super::{core, fields};
use crate::resource::{Column, RegistrationError, Resource};
use crate::table::since;

pub(super) fn resource() -> Result<Resource, RegistrationError> {
    Ok(Resource {
        has_status: false,
        columns: vec![
            Column::text("Last Seen", 0, last_seen),
            Column::text("Type", 0, |o| o["type"].clone()),
            Column::text("Reason", 0, |o| o["reason"].clone()),
            Column::text("Object", 0, involved),
            Column::text("Message", 0, |o| o["message"].clone()),
            Column::text("Source", 1, |o| o["source"]["component"].clone()),
            Column::text("Count", 1, |o| {
                o["count"].as_i64().unwrap_or(1).to_string().into()
            }),
        ],
        selectable_fields: fields(&[
            "involvedObject.apiVersion",
            "involvedObject.fieldPath",
            "involvedObject.kind",
            "involvedObject.name",
            "involvedObject.namespace",
            "involvedObject.resourceVersion",
            "involvedObject.uid",
            "reason",
            "reportingComponent",
            "type",
        ]),
        ..core::<Event>("Event", "ev")?
    })
}

fn last_seen(event: &Value) -> Value {
    let times = [
        &event["lastTimestamp"],
        &event["eventTime"],
        &event["metadata"]["creationTimestamp"],
    ];
    since(times.into_iter().find(|t| t.is_string()).unwrap_or(&Value::Null))
}

fn involved(event: &Value) -> Value {
    let object = &event["involvedObject"];
    let text = |field: &str| object[field].as_str().unwrap_or_default().to_lowercase();
    format!("{}/{}", text("kind"), text("name")).into()
}
