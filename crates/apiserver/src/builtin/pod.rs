use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::{core, fields, pod_ports};
use crate::cause::{Cause, CauseReason};
use crate::resource::{Column, RegistrationError, Resource, Rules};

pub(super) fn resource() -> Result<Resource, RegistrationError> {
    Ok(Resource {
        categories: vec!["all".to_owned()],
        has_log: true,
        columns: vec![
            Column::text("Ready", 0, ready),
            Column::text("Status", 0, status),
            Column::text("Restarts", 0, |o| restarts(o).to_string().into()),
            Column::age(),
            Column::text("IP", 1, |o| or_none(&o["status"]["podIP"])),
            Column::text("Node", 1, |o| or_none(&o["spec"]["nodeName"])),
            Column::text("Nominated Node", 1, |o| {
                or_none(&o["status"]["nominatedNodeName"])
            }),
            Column::text("Readiness Gates", 1, |_| "<none>".into()),
        ],
        selectable_fields: fields(&[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ]),
        rules: Rules {
            on_create,
            validate,
            grace,
            ..Rules::default()
        },
        ..core::<Pod>("Pod", "po")?
    })
}

/// The defaults that the rest of a cluster relies on (k8s.io/kubernetes pkg/apis/core/v1/defaults.go).
fn on_create(pod: &mut Value) {
    let Some(spec) = pod["spec"].as_object_mut() else {
        return;
    };
    for (field, default) in [
        ("restartPolicy", json!("Always")),
        ("terminationGracePeriodSeconds", json!(30)),
        ("dnsPolicy", json!("ClusterFirst")),
        ("schedulerName", json!("default-scheduler")),
        ("enableServiceLinks", json!(true)),
    ] {
        spec.entry(field).or_insert(default);
    }
    for list in ["initContainers", "containers"] {
        for container in spec
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            complete_container(container);
        }
    }
    pod["status"] = json!({"phase": "Pending"});
}

fn complete_container(container: &mut Value) {
    let Some(container) = container.as_object_mut() else {
        return;
    };
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    let tag = image
        .rsplit('/')
        .next()
        .and_then(|name| name.split_once(':'))
        .map(|(_, tag)| tag);
    let is_latest = matches!(tag, None | Some("latest")) && !image.contains('@');
    let policy = if is_latest { "Always" } else { "IfNotPresent" };
    container
        .entry("imagePullPolicy")
        .or_insert_with(|| policy.into());
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(kind).and_then(Value::as_object_mut) {
            for (field, default) in [
                ("timeoutSeconds", 1),
                ("periodSeconds", 10),
                ("successThreshold", 1),
                ("failureThreshold", 3),
            ] {
                probe.entry(field).or_insert_with(|| default.into());
            }
        }
    }
    for port in container
        .get_mut("ports")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if let Some(port) = port.as_object_mut() {
            port.entry("protocol").or_insert_with(|| "TCP".into());
        }
    }
}

/// A pod is never changed under its containers: what runs is what was created.
fn validate(old: Option<&Value>, new: &Value) -> Vec<Cause> {
    let Some(old) = old else {
        return pod_ports::check(new);
    };
    if fixed(old, old) == fixed(new, old) {
        return Vec::new();
    }
    let detail = "pod updates may not change fields other than `spec.containers[*].image`, `spec.initContainers[*].image`, `spec.activeDeadlineSeconds`, `spec.tolerations`, `spec.terminationGracePeriodSeconds` and an empty `spec.nodeName`; delete the pod and create it anew";
    vec![Cause::new(CauseReason::Forbidden, "spec", detail)]
}

/// The part of the spec that may not change any more.
fn fixed(pod: &Value, old: &Value) -> Value {
    let mut spec = pod["spec"].clone();
    if let Some(spec) = spec.as_object_mut() {
        for field in [
            "activeDeadlineSeconds",
            "tolerations",
            "terminationGracePeriodSeconds",
        ] {
            spec.remove(field);
        }
        if old["spec"]["nodeName"].as_str().is_none_or(str::is_empty) {
            spec.remove("nodeName");
        }
        for list in ["initContainers", "containers"] {
            for container in spec
                .get_mut(list)
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                container["image"] = Value::Null;
            }
        }
    }
    spec
}

/// A pod that runs nowhere, or no longer, needs no time to end.
fn grace(pod: &Value) -> Option<i64> {
    let unscheduled = pod["spec"]["nodeName"].as_str().is_none_or(str::is_empty);
    let over = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if unscheduled || over {
        return Some(0);
    }
    Some(
        pod["spec"]["terminationGracePeriodSeconds"]
            .as_i64()
            .unwrap_or(30),
    )
}

fn ready(pod: &Value) -> Value {
    let all = pod["spec"]["containers"].as_array().map_or(0, Vec::len);
    let ready = containers(pod).filter(|c| c["ready"] == true).count();
    format!("{ready}/{all}").into()
}

/// The word for a pod's state that `kubectl get` has always shown (printPod of Kubernetes).
fn status(pod: &Value) -> Value {
    let text = |value: &Value| value.as_str().filter(|t| !t.is_empty()).map(str::to_owned);
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        return "Terminating".into();
    }
    let mut status = text(&pod["status"]["reason"]).or_else(|| text(&pod["status"]["phase"]));
    for container in containers(pod) {
        let state = &container["state"];
        if let Some(reason) =
            text(&state["waiting"]["reason"]).or_else(|| text(&state["terminated"]["reason"]))
        {
            status = Some(reason);
        } else if let Some(code) = state["terminated"]["exitCode"].as_i64() {
            status = Some(format!("ExitCode:{code}"));
        }
    }
    status.unwrap_or_else(|| "Unknown".to_owned()).into()
}

fn restarts(pod: &Value) -> i64 {
    containers(pod).filter_map(|c| c["restartCount"].as_i64()).sum()
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    pod["status"]["containerStatuses"]
        .as_array()
        .into_iter()
        .flatten()
}

fn or_none(value: &Value) -> Value {
    if value.as_str().is_none_or(str::is_empty) {
        "<none>".into()
    } else {
        value.clone()
    }
}
