//! What the agent says of its node: the status of its NodeNetwork.

use std::sync::Arc;
use std::time::Duration;

use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use tokio::sync::watch;
use tombolo_kube::{Health, Network, NodeNetwork, NodeNetworkStatus, Uplink};
use tombolo_layout::{Desired, Local};

use crate::claim::Claim;
use crate::control::Outcome;
use crate::endpoints::mac_text;
use crate::error::Error;
use crate::objects::Objects;

/// How long to wait before trying again what the API server refused: at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// The status after a round, as the machine of the `last` one says it.
pub fn of(
    desired: &Desired,
    local: &Local,
    network: &Network,
    errors: &[Error],
    last: &NodeNetworkStatus,
) -> NodeNetworkStatus {
    let uplink = |u: &tombolo_layout::LocalUplink| Uplink {
        name: u.name.clone(),
        mac: mac_text(u.mac),
        mtu: u.mtu,
    };
    let errors = errors.iter().map(Error::to_string);
    let ready = errors.len() == 0 && !desired.blocks.is_empty();
    let message: Vec<String> = errors.chain(desired.warnings.iter().cloned()).collect();
    NodeNetworkStatus {
        addresses: desired.addresses.clone(),
        uplinks: local.uplinks.iter().map(uplink).collect(),
        pod_mtu: desired.pod_mtu,
        machine: last.machine.clone(),
        observed_generation: if ready {
            network.metadata.generation.unwrap_or(0)
        } else {
            last.observed_generation
        },
        health: Health {
            ready,
            message: message.join("; "),
        },
    }
}

/// The last status, with what is wrong now.
pub fn unhealthy(last: NodeNetworkStatus, error: &Error) -> NodeNetworkStatus {
    NodeNetworkStatus {
        health: Health {
            ready: false,
            message: error.to_string(),
        },
        ..last
    }
}

/// Publishes the status of each round that says something new, until the rounds end; keeps this machine's claim
/// to the node once it is published.
pub async fn publish(
    claim: Arc<Claim>,
    node: String,
    objects: Arc<Objects>,
    mut outcomes: watch::Receiver<Outcome>,
) {
    let mut clients = objects.client();
    let mut retry: Option<Duration> = None;
    loop {
        let changed = match retry {
            None => outcomes.changed().await,
            Some(wait) => tokio::time::timeout(wait, outcomes.changed())
                .await
                .unwrap_or(Ok(())),
        };
        if changed.is_err() {
            return;
        }
        let Some(status) = outcomes.borrow_and_update().status.clone() else {
            continue;
        };
        let Some(object) = objects.node(&node) else {
            continue;
        };
        if object.status.as_ref() == Some(&status) {
            keep(&claim);
            retry = None;
            continue;
        }
        let api: Api<NodeNetwork> = Api::all(clients.borrow_and_update().clone());
        let (name, params, patch) = (
            object.name_any(),
            PatchParams::default(),
            Patch::Merge(patch(&status)),
        );
        let patched = tokio::select! {
            patched = api.patch_status(&name, &params, &patch) => patched,
            // On a connection that may be dead by now.
            Ok(()) = clients.changed() => {
                retry = Some(Duration::ZERO);
                continue;
            }
        };
        retry = match patched {
            Ok(_) => {
                keep(&claim);
                None
            }
            Err(error) => {
                let wait = retry.map_or(RETRY.0, |r| (r * 2).clamp(RETRY.0, RETRY.1));
                tracing::warn!(%error, "cannot publish this node's status; trying again");
                Some(wait)
            }
        };
    }
}

/// The next round tries again what the disk refuses.
fn keep(claim: &Claim) {
    if let Err(error) = claim.keep() {
        tracing::error!(%error, "cannot keep this machine's claim to the node");
    }
}

/// All fields: in a merge patch (RFC 7386), what is left out stays as it was.
fn patch(status: &NodeNetworkStatus) -> serde_json::Value {
    let mut patch = serde_json::json!({ "status": status });
    patch["status"]["health"]["message"] = status.health.message.as_str().into();
    patch
}
