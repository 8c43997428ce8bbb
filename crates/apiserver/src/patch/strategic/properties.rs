//! Random patches: against RFC 7386 where there are no lists, and against kubectl, which carries
//! Kubernetes' own implementation, where there are.

use std::process::Command;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::subsequence;
use serde_json::{Value, json};

use super::tests::patched;

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(&NAMES).prop_map(str::to_owned)
}

fn labels() -> impl Strategy<Value = Value> {
    let values = prop_oneof![name().prop_map(Value::from), Just(Value::Null)];
    btree_map(name(), values, 0..4).prop_map(|map| json!(map))
}

fn env() -> impl Strategy<Value = Value> {
    subsequence(&NAMES, 0..4).prop_shuffle().prop_flat_map(|names| {
        vec(name(), names.len()).prop_map(move |values| {
            let pairs = names.iter().zip(values);
            pairs
                .map(|(name, value)| json!({"name": name, "value": value}))
                .collect()
        })
    })
}

fn container(name: &'static str) -> impl Strategy<Value = Value> {
    (self::name(), env(), vec(self::name(), 0..3)).prop_map(move |(image, env, args)| {
        let mut container = json!({"name": name, "image": image});
        for (field, list) in [("env", env), ("args", json!(args))] {
            if list != json!([]) {
                container[field] = list;
            }
        }
        container
    })
}

fn containers(least: usize) -> impl Strategy<Value = Vec<Value>> {
    subsequence(&NAMES, least..=5)
        .prop_shuffle()
        .prop_flat_map(|names| names.into_iter().map(container).collect::<Vec<_>>())
}

fn finalizers() -> impl Strategy<Value = Vec<String>> {
    subsequence(&NAMES, 0..4)
        .prop_shuffle()
        .prop_map(|names| names.into_iter().map(str::to_owned).collect())
}

/// A pod has a container: Kubernetes' code fails to merge two empty lists.
fn pod() -> impl Strategy<Value = Value> {
    (labels(), finalizers(), containers(1)).prop_map(|(labels, finalizers, containers)| {
        let labels: serde_json::Map<_, _> = labels
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(_, v)| !v.is_null())
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "x", "labels": labels, "finalizers": finalizers},
            "spec": {"containers": containers},
        })
    })
}

/// A patch whose containers are merged, deleted, and in half of the cases put into an order that also
/// names one that the patch does not touch.
fn patch() -> impl Strategy<Value = Value> {
    let parts = (
        labels(),
        finalizers(),
        finalizers(),
        containers(0),
        vec(0..4u8, 5),
        any::<bool>(),
    );
    parts.prop_map(|(labels, finalizers, gone, mut containers, fates, ordered)| {
        let mut order = Vec::new();
        for (container, fate) in containers.iter_mut().zip(fates) {
            if fate == 0 {
                *container = json!({"name": container["name"], "$patch": "delete"});
            } else {
                order.push(json!({"name": container["name"]}));
            }
        }
        let bystander = |name: &&&str| containers.iter().all(|c| c["name"] != **name);
        let bystanders: Vec<_> = NAMES.iter().filter(bystander).take(1).collect();
        order.extend(bystanders.into_iter().map(|name| json!({"name": name})));
        let mut patch = json!({
            "metadata": {"labels": labels, "finalizers": finalizers},
            "spec": {"containers": containers},
        });
        if ordered {
            patch["spec"]["$setElementOrder/containers"] = json!(order);
            patch["metadata"] = json!({"labels": labels, "$deleteFromPrimitiveList/finalizers": gone});
        }
        patch
    })
}

/// What kubectl makes of a patch, without ever asking a server.
fn by_kubectl(original: &Value, patch: &Value) -> Value {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("pod.json");
    std::fs::write(&file, original.to_string()).unwrap();
    let program = std::env::var_os("KUBECTL").unwrap_or_else(|| "kubectl".into());
    let output = Command::new(program)
        .args(["patch", "--local", "--type=strategic", "-o", "json", "-p", &patch.to_string(), "-f"])
        .arg(&file)
        .env("HOME", folder.path())
        .output()
        .expect("this test needs kubectl 1.27 or newer: install it (https://kubernetes.io/docs/tasks/tools/) or name it in $KUBECTL");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "kubectl refuses {patch} on {original}: {said}"
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Whether a patch that sets an order deletes a container of the original and adds one. Kubernetes'
/// code then appends into the very slice that it afterwards reads the server's order from, and where
/// the added one ends up depends on how far that slice had shrunk: no order to promise.
fn shares_a_slice(original: &Value, patch: &Value) -> bool {
    let names = |list: &Value, deleted: bool| -> Vec<Value> {
        let items = list["containers"].as_array().into_iter().flatten();
        let kept = items.filter(|c| c.get("$patch").is_some() == deleted);
        kept.map(|c| c["name"].clone()).collect()
    };
    let there = names(&original["spec"], false);
    let patch = &patch["spec"];
    patch.get("$setElementOrder/containers").is_some()
        && names(patch, true).iter().any(|name| there.contains(name))
        && names(patch, false).iter().any(|name| !there.contains(name))
}

/// Without what Go's types add or leave out when it is empty.
fn without_empty(value: &Value) -> Value {
    let is_empty = |v: &Value| v.is_null() || *v == json!({}) || *v == json!([]);
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, v)| (name.clone(), without_empty(v)))
            .filter(|(_, v)| !is_empty(v))
            .collect(),
        Value::Array(items) => items.iter().map(without_empty).collect(),
        other => other.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn without_lists_it_is_a_merge_patch(original in labels(), patch in labels()) {
        let mut original = without_empty(&json!({"metadata": {"labels": original}}));
        let patch = json!({"metadata": {"labels": patch}});
        let merged = patched(original.clone(), patch.clone()).unwrap();
        json_patch::merge(&mut original, &patch);
        prop_assert_eq!(merged, original);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_does_what_kubernetes_does(original in pod(), patch in patch()) {
        prop_assume!(!shares_a_slice(&original, &patch));
        let wanted = by_kubectl(&original, &patch);
        let got = patched(original, patch).unwrap();
        prop_assert_eq!(without_empty(&got), without_empty(&wanted));
    }
}
