use serde_json::{Value, json};

use super::*;

pub(super) fn patched(original: Value, patch: Value) -> Result<Value, StrategicError> {
    let resources = crate::builtin::resources(&crate::ServiceRanges::default()).unwrap();
    let pod = resources.iter().find(|r| r.kind == "Pod").unwrap();
    apply(&pod.schema, original, &patch)
}

#[track_caller]
fn assert_patched(original: Value, patch: Value, wanted: Value) {
    assert_eq!(patched(original, patch).unwrap(), wanted);
}

#[test]
fn maps_merge_and_null_removes() {
    assert_patched(
        json!({"metadata": {"labels": {"a": "1", "b": "2"}}}),
        json!({"metadata": {"labels": {"a": null, "c": "3", "never": null}}}),
        json!({"metadata": {"labels": {"b": "2", "c": "3"}}}),
    );
    assert_patched(
        json!({}),
        json!({"metadata": {"labels": {"a": null}}}),
        json!({"metadata": {"labels": {}}}),
    );
}

#[test]
fn lists_merge_by_their_key_however_deep() {
    assert_patched(
        json!({"spec": {"containers": [
            {"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}], "args": ["x"]},
            {"name": "b", "image": "1"},
        ]}}),
        json!({"spec": {"containers": [
            {"name": "a", "env": [{"name": "Y", "value": "2"}], "args": ["y"]},
            {"name": "c", "image": "3"},
        ]}}),
        json!({"spec": {"containers": [
            {"name": "a", "image": "1", "env": [{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}], "args": ["y"]},
            {"name": "c", "image": "3"},
            {"name": "b", "image": "1"},
        ]}}),
    );
}

#[test]
fn conditions_merge_by_type_and_tolerations_are_replaced() {
    assert_patched(
        json!({
            "spec": {"tolerations": [{"key": "a"}]},
            "status": {"conditions": [{"type": "Ready", "status": "False"}, {"type": "Other", "status": "True"}]},
        }),
        json!({
            "spec": {"tolerations": [{"key": "b"}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        }),
        json!({
            "spec": {"tolerations": [{"key": "b"}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "True"}]},
        }),
    );
}

#[test]
fn directives_delete_and_replace() {
    let spec = json!({"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]}});
    assert_patched(
        spec.clone(),
        json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}, {"name": "gone", "$patch": "delete"}]}}),
        json!({"spec": {"containers": [{"name": "b", "image": "2"}]}}),
    );
    assert_patched(
        spec.clone(),
        json!({"spec": {"containers": [{"name": "c"}, {"$patch": "replace"}]}}),
        json!({"spec": {"containers": [{"name": "c"}]}}),
    );
    assert_patched(
        json!({"metadata": {"labels": {"a": "1"}}}),
        json!({"metadata": {"labels": {"$patch": "replace", "b": "2"}}}),
        json!({"metadata": {"labels": {"b": "2"}}}),
    );
    assert_patched(
        json!({"metadata": {"labels": {"a": "1"}}}),
        json!({"metadata": {"labels": {"$patch": "delete"}}}),
        json!({"metadata": {"labels": {}}}),
    );
    let error = patched(spec, json!({"spec": {"$patch": "burn"}})).unwrap_err();
    assert_eq!(error, StrategicError::Directive("\"burn\"".to_owned()));
}

#[test]
fn primitive_lists_unite_and_shrink() {
    let finalizers = |list: Value| json!({"metadata": {"finalizers": list}});
    assert_patched(
        finalizers(json!(["a", "b"])),
        finalizers(json!(["b", "c"])),
        finalizers(json!(["a", "b", "c"])),
    );
    assert_patched(
        finalizers(json!(["a", "b"])),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a", "x"]}}),
        finalizers(json!(["b"])),
    );
}

#[test]
fn retained_keys_end_the_others() {
    let volume = |v: Value| json!({"spec": {"volumes": [v]}});
    assert_patched(
        volume(json!({"name": "v", "emptyDir": {}})),
        volume(json!({"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}})),
        volume(json!({"name": "v", "hostPath": {"path": "/x"}})),
    );
    let error = patched(
        volume(json!({"name": "v", "emptyDir": {}})),
        volume(json!({"name": "v", "$retainKeys": ["name"], "hostPath": {}})),
    );
    assert_eq!(
        error.unwrap_err(),
        StrategicError::NotRetained("hostPath".to_owned())
    );
}

#[test]
fn element_order_is_the_clients_with_the_servers_items_in_place() {
    let containers = |names: &[&str]| json!({"spec": {"containers": names.iter().map(|n| json!({"name": n})).collect::<Vec<_>>()}});
    let mut patch = containers(&["new"]);
    patch["spec"]["$setElementOrder/containers"] = json!([{"name": "c"}, {"name": "new"}, {"name": "a"}]);
    assert_patched(
        containers(&["a", "sidecar", "c"]),
        patch,
        containers(&["sidecar", "c", "new", "a"]),
    );

    let mut patch = containers(&["a", "b"]);
    patch["spec"]["$setElementOrder/containers"] = json!([{"name": "b"}, {"name": "a"}]);
    let error = patched(containers(&["a", "b"]), patch).unwrap_err();
    assert_eq!(error, StrategicError::Order("containers".to_owned()));
}

#[test]
fn nonsense_is_refused() {
    let original =
        json!({"metadata": {}, "spec": {"containers": [{"name": "a"}], "volumes": [{"name": "v"}]}});
    for patch in [
        json!({"spec": {"containers": [{"image": "no name"}]}}),
        json!({"spec": {"containers": ["text"]}}),
        json!({"spec": {"containers": [{"$patch": "delete"}]}}),
        json!({"spec": {"$setElementOrder/containers": "a"}}),
        json!({"spec": {"volumes": [{"name": "v", "$retainKeys": 3}]}}),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": {}}}),
    ] {
        assert!(patched(original.clone(), patch.clone()).is_err(), "{patch}");
    }
}
