//! Discovery: which groups, versions and resources there are.

use serde_json::{Value, json};

use crate::resource::{Registry, Resource};

/// The version of Kubernetes whose API this is, with the name of what serves it.
pub fn version() -> Value {
    json!({
        "major": "1",
        "minor": "33",
        "gitVersion": concat!("v1.33.0+tombolo-", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": concat!("linux/", "amd64"),
    })
}

/// meta/v1 APIVersions of the core group.
pub fn core_versions() -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
}

/// meta/v1 APIGroupList of all other groups.
pub fn groups(registry: &Registry) -> Value {
    let mut names: Vec<&str> = registry
        .group_versions()
        .into_iter()
        .map(|(group, _)| group)
        .collect();
    names.dedup();
    let groups: Vec<Value> = names
        .into_iter()
        .filter(|g| !g.is_empty())
        .filter_map(|g| group_body(registry, g))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// meta/v1 APIGroup of one group.
pub fn group(registry: &Registry, name: &str) -> Option<Value> {
    let mut group = group_body(registry, name)?;
    group["kind"] = "APIGroup".into();
    group["apiVersion"] = "v1".into();
    Some(group)
}

fn group_body(registry: &Registry, name: &str) -> Option<Value> {
    let all = registry.group_versions();
    let versions: Vec<Value> = all
        .iter()
        .filter(|(group, _)| *group == name && !group.is_empty())
        .map(|(group, version)| json!({"groupVersion": format!("{group}/{version}"), "version": version}))
        .collect();
    let preferred = versions.first()?.clone();
    Some(json!({"name": name, "versions": versions, "preferredVersion": preferred}))
}

/// meta/v1 APIResourceList of a group and version.
pub fn resources(registry: &Registry, group: &str, version: &str) -> Value {
    let mut list = Vec::new();
    let mut api_version = String::new();
    for resource in registry
        .all()
        .iter()
        .filter(|r| r.group == group && r.version == version)
    {
        api_version = resource.api_version();
        list.push(entry(
            resource,
            "",
            &["create", "delete", "get", "list", "patch", "update", "watch"],
        ));
        if resource.has_status {
            list.push(entry(resource, "/status", &["get", "patch", "update"]));
        }
        if resource.has_log {
            list.push(entry(resource, "/log", &["get"]));
        }
    }
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": list})
}

fn entry(resource: &Resource, subresource: &str, verbs: &[&str]) -> Value {
    let mut entry = json!({
        "name": format!("{}{subresource}", resource.plural),
        "singularName": if subresource.is_empty() { resource.singular.as_str() } else { "" },
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": verbs,
    });
    if subresource.is_empty() && !resource.short_names.is_empty() {
        entry["shortNames"] = json!(resource.short_names);
    }
    entry
}
