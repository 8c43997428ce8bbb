//! The status of a pod, as the API shows it.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::containers::{Container, State};
use crate::pod::PodRecord;

/// The time, as the API writes it (RFC 3339, seconds).
pub fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The status of a pod without a sandbox.
pub fn waiting(pod: &Pod, reason: &str, message: &str) -> Value {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let containers: Vec<Value> = containers
        .map(|container| {
            json!({
                "name": container.name,
                "image": container.image,
                "imageID": "",
                "ready": false,
                "started": false,
                "restartCount": 0,
                "state": {"waiting": {"reason": reason, "message": message}},
            })
        })
        .collect();
    json!({
        "phase": "Pending",
        "conditions": conditions(false, message, &[]),
        "containerStatuses": containers,
    })
}

/// The readiness gates of a pod that keep it from being ready, in the words of the kubelet (KEP-580).
pub fn closed_gates(pod: &Pod) -> Vec<String> {
    let gates = pod
        .spec
        .iter()
        .flat_map(|spec| spec.readiness_gates.iter().flatten());
    let conditions: Vec<_> = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .collect();
    gates
        .filter_map(|gate| {
            let name = &gate.condition_type;
            match conditions.iter().find(|condition| condition.type_ == *name) {
                Some(condition) if condition.status == "True" => None,
                Some(condition) => Some(format!(
                    "the status of pod readiness gate {name:?} is not \"True\", but {}",
                    condition.status
                )),
                None => Some(format!(
                    "corresponding condition of pod readiness gate {name:?} does not exist."
                )),
            }
        })
        .collect()
}

/// The status of a pod that has a sandbox; `node_addresses` are those of its node, `gates` say why it is not ready
/// although its containers are.
pub fn running(
    record: &PodRecord,
    containers: &[Container],
    node_addresses: &[String],
    gates: &[String],
) -> Value {
    let ready = containers.iter().all(Container::is_ready);
    let unready: Vec<&str> = containers
        .iter()
        .filter(|one| !one.is_ready())
        .map(|one| one.name.as_str())
        .collect();
    let ips: Vec<Value> = record.addresses.iter().map(|ip| json!({"ip": ip})).collect();
    let host_ips: Vec<Value> = node_addresses.iter().map(|ip| json!({"ip": ip})).collect();
    json!({
        "phase": phase(containers),
        "conditions": conditions(ready, &format!("containers that are not ready: {}", unready.join(", ")), gates),
        "containerStatuses": containers.iter().map(container).collect::<Vec<_>>(),
        "podIP": record.addresses.first(),
        "podIPs": ips,
        "hostIP": node_addresses.first(),
        "hostIPs": host_ips,
        "startTime": record.started,
    })
}

/// The phase of a pod (Kubernetes documentation, "Pod Lifecycle").
fn phase(containers: &[Container]) -> &'static str {
    let ended = |container: &Container| match container.state {
        State::Terminated { code, .. } if !container.will_restart => Some(code),
        _ => None,
    };
    if let Some(codes) = containers.iter().map(ended).collect::<Option<Vec<i32>>>() {
        return if codes.iter().all(|code| *code == 0) {
            "Succeeded"
        } else {
            "Failed"
        };
    }
    let never_started =
        |container: &Container| matches!(container.state, State::Waiting { .. }) && container.restarts == 0;
    if containers.iter().any(never_started) {
        "Pending"
    } else {
        "Running"
    }
}

fn container(container: &Container) -> Value {
    json!({
        "name": container.name,
        "image": container.image,
        "imageID": container.image,
        "containerID": format!("tombolo-lab://{}", container.id),
        "ready": container.is_ready(),
        "started": matches!(container.state, State::Running { .. }),
        "restartCount": container.restarts,
        "state": state(&container.state),
        "lastState": container.last_state.as_ref().map_or(json!({}), state),
    })
}

fn state(state: &State) -> Value {
    match state {
        State::Waiting { reason, message } => json!({"waiting": {"reason": reason, "message": message}}),
        State::Running { since, .. } => json!({"running": {"startedAt": since}}),
        State::Terminated { code, since, until } => json!({"terminated": {
            "exitCode": code,
            "reason": if *code == 0 { "Completed" } else { "Error" },
            "startedAt": since,
            "finishedAt": until,
        }}),
    }
}

fn conditions(containers_ready: bool, message: &str, gates: &[String]) -> Value {
    let time = now();
    let good = |type_: &str| json!({"type": type_, "status": "True", "reason": null, "message": null, "lastTransitionTime": time});
    let bad = |type_: &str, reason: &str, message: &str| {
        json!({
            "type": type_,
            "status": "False",
            "reason": reason,
            "message": message,
            "lastTransitionTime": time,
        })
    };
    let of_containers = |type_: &str| {
        if containers_ready {
            good(type_)
        } else {
            bad(type_, "ContainersNotReady", message)
        }
    };
    let ready = if containers_ready && !gates.is_empty() {
        bad("Ready", "ReadinessGatesNotReady", &gates.join(", "))
    } else {
        of_containers("Ready")
    };
    json!([
        good("PodScheduled"),
        good("Initialized"),
        of_containers("ContainersReady"),
        ready,
    ])
}
