//! Whether nodes are ready: the word of their agents, passed on as the condition that Kubernetes knows.

use std::collections::BTreeMap;
use std::pin::pin;

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::json;
use tombolo_kube::{Health, NodeNetwork};

use super::status::now;
use crate::api::Api;

/// Keeps the nodes' conditions in accord with what their agents say, for ever.
pub async fn run(api: Api) {
    let networks: kube::Api<NodeNetwork> = kube::Api::all(api.client().clone());
    let nodes: kube::Api<Node> = kube::Api::all(api.client().clone());
    let mut changes = pin!(
        watcher(networks, watcher::Config::default())
            .default_backoff()
            .applied_objects()
    );
    let mut told: BTreeMap<String, Health> = BTreeMap::new();
    loop {
        let network = match changes.try_next().await {
            Ok(Some(network)) => network,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "watching the nodes' networks");
                continue;
            }
        };
        let name = network.name_any();
        let health = network.status.map(|status| status.health).unwrap_or_default();
        if told.get(&name) == Some(&health) {
            continue;
        }
        let condition = condition(&health);
        let patch = json!({"status": {"conditions": [condition]}});
        match nodes
            .patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
        {
            Ok(_) => {
                told.insert(name, health);
            }
            Err(error) => tracing::warn!(%name, %error, "cannot report the node's condition"),
        }
    }
}

fn condition(health: &Health) -> serde_json::Value {
    let (status, reason) = if health.ready {
        ("True", "NetworkReady")
    } else {
        ("False", "NetworkNotReady")
    };
    let message = match (health.ready, health.message.as_str()) {
        (true, "") => "the node's agent says that its network is ready",
        (false, "") => "the node's agent has not said that its network is ready",
        (_, message) => message,
    };
    json!({
        "type": "Ready",
        "status": status,
        "reason": reason,
        "message": message,
        "lastHeartbeatTime": now(),
        "lastTransitionTime": now(),
    })
}
