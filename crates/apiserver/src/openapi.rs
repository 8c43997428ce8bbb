//! The OpenAPI v3 documents from which kubectl learns the fields and the verbs of kinds.

use serde_json::{Map, Value, json};

use crate::resource::{Registry, Resource};

/// The list of documents, one for each group and version.
pub fn index(registry: &Registry) -> Value {
    let mut paths = Map::new();
    for resource in registry.all() {
        let root = resource.root_path();
        let url = format!("/openapi/v3/{root}");
        paths.insert(root, json!({"serverRelativeURL": url}));
    }
    json!({"paths": paths})
}

/// The document of a group and version.
pub fn document(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let (mut paths, mut schemas) = (Map::new(), Map::new());
    for resource in registry
        .all()
        .iter()
        .filter(|r| r.group == group && r.version == version)
    {
        let name = schema_name(resource);
        schemas.extend(resource.schema.definitions().clone());
        let mut schema = resource.schema.root().clone();
        schema["x-kubernetes-group-version-kind"] = json!([group_version_kind(resource)]);
        schemas.insert(name.clone(), schema);
        describe(resource, &name, &mut paths);
    }
    if schemas.is_empty() {
        return None;
    }
    Some(json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.33.0"},
        "paths": paths,
        "components": {"schemas": schemas},
    }))
}

/// The schema's own name, or for a custom kind its group in reverse, its version and its kind.
fn schema_name(resource: &Resource) -> String {
    resource.schema.root_name().map_or_else(
        || {
            let group: Vec<&str> = resource.group.rsplit('.').collect();
            format!("{}.{}.{}", group.join("."), resource.version, resource.kind)
        },
        str::to_owned,
    )
}

fn group_version_kind(resource: &Resource) -> Value {
    json!({"group": resource.group, "version": resource.version, "kind": resource.kind})
}

fn describe(resource: &Resource, schema: &str, paths: &mut Map<String, Value>) {
    let root = resource.root_path();
    let namespace = if resource.namespaced {
        "namespaces/{namespace}/"
    } else {
        ""
    };
    let collection = format!("/{root}/{namespace}{}", resource.plural);
    let object = json!({"$ref": format!("#/components/schemas/{schema}")});
    let content = json!({"application/json": {"schema": object}});
    let operation = |action: &str, body: Value, writes: bool| {
        let mut operation = json!({
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": group_version_kind(resource),
            "responses": {"200": {"description": "OK", "content": content}},
        });
        if writes {
            operation["parameters"] = ["dryRun", "fieldValidation"].into_iter().map(parameter).collect();
        }
        if !body.is_null() {
            operation["requestBody"] = json!({"content": body});
        }
        operation
    };
    let patches: Map<String, Value> = crate::patch::media_types(resource)
        .split(", ")
        .map(|media_type| (media_type.to_owned(), json!({"schema": {"type": "object"}})))
        .collect();
    let mut item = json!({
        "get": operation("get", Value::Null, false),
        "put": operation("put", content.clone(), true),
        "patch": operation("patch", patches.into(), true),
    });
    if resource.has_status {
        paths.insert(format!("{collection}/{{name}}/status"), item.clone());
    }
    item["delete"] = operation("delete", Value::Null, true);
    paths.insert(format!("{collection}/{{name}}"), item);
    let items = json!({
        "get": operation("list", Value::Null, false),
        "post": operation("post", content.clone(), true),
    });
    paths.insert(collection, items);
}

fn parameter(name: &str) -> Value {
    json!({"name": name, "in": "query", "schema": {"type": "string"}})
}
