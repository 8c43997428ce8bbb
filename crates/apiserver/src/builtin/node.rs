use k8s_openapi::api::core::v1::Node;
use serde_json::Value;

use super::{core, fields};
use crate::resource::{Column, RegistrationError, Resource};

pub(super) fn resource() -> Result<Resource, RegistrationError> {
    Ok(Resource {
        namespaced: false,
        columns: vec![
            Column::text("Status", 0, status),
            Column::text("Roles", 0, roles),
            Column::age(),
            Column::text("Version", 0, |o| {
                o["status"]["nodeInfo"]["kubeletVersion"].clone()
            }),
            Column::text("Internal-IP", 1, |o| address(o, "InternalIP")),
            Column::text("External-IP", 1, |o| address(o, "ExternalIP")),
            Column::text("OS-Image", 1, |o| info(o, "osImage")),
            Column::text("Kernel-Version", 1, |o| info(o, "kernelVersion")),
            Column::text("Container-Runtime", 1, |o| info(o, "containerRuntimeVersion")),
        ],
        selectable_fields: fields(&["spec.unschedulable"]),
        ..core::<Node>("Node", "no")?
    })
}

fn status(node: &Value) -> Value {
    let conditions = node["status"]["conditions"].as_array();
    let ready = conditions.and_then(|all| all.iter().find(|c| c["type"] == "Ready"));
    let mut text = match ready.map(|c| c["status"].as_str()) {
        Some(Some("True")) => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if node["spec"]["unschedulable"] == true {
        text.push_str(",SchedulingDisabled");
    }
    text.into()
}

fn roles(node: &Value) -> Value {
    let labels = node["metadata"]["labels"].as_object();
    let roles: Vec<&str> = labels
        .into_iter()
        .flat_map(|l| l.keys())
        .filter_map(|key| key.strip_prefix("node-role.kubernetes.io/"))
        .filter(|role| !role.is_empty())
        .collect();
    if roles.is_empty() {
        "<none>".into()
    } else {
        roles.join(",").into()
    }
}

fn address(node: &Value, kind: &str) -> Value {
    let addresses = node["status"]["addresses"].as_array();
    let first = addresses.and_then(|all| all.iter().find(|a| a["type"] == kind));
    first.map_or_else(|| "<none>".into(), |a| a["address"].clone())
}

fn info(node: &Value, field: &str) -> Value {
    let value = &node["status"]["nodeInfo"][field];
    if value.as_str().is_none_or(str::is_empty) {
        "<unknown>".into()
    } else {
        value.clone()
    }
}
