use k8s_openapi::api::core::v1::Namespace;
use serde_json::{Value, json};

use super::{core, fields};
use crate::resource::{Column, RegistrationError, Resource, Rules};

pub(super) fn resource() -> Result<Resource, RegistrationError> {
    Ok(Resource {
        namespaced: false,
        columns: vec![
            Column::text("Status", 0, |o| o["status"]["phase"].clone()),
            Column::age(),
        ],
        selectable_fields: fields(&["status.phase"]),
        rules: Rules {
            on_create,
            ..Rules::default()
        },
        ..core::<Namespace>("Namespace", "ns")?
    })
}

fn on_create(namespace: &mut Value) {
    let name = namespace["metadata"]["name"].clone();
    namespace["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
    namespace["spec"]["finalizers"] = json!(["kubernetes"]);
    namespace["status"] = json!({"phase": "Active"});
}
