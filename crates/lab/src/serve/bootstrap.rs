//! The objects that a lab starts with: its Network and its Nodes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeAddress, NodeSpec, NodeStatus};
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::json;
use tombolo_kube::{CLUSTER, Network};

use crate::api::{Api, failed};
use crate::error::Result;
use crate::plan::{self, Plan};

/// Creates them.
pub async fn run(api: &Api, plan: &Plan) -> Result<()> {
    let client = api.client();
    let networks: kube::Api<Network> = kube::Api::all(client.clone());
    networks
        .create(
            &PostParams::default(),
            &Network::new(CLUSTER, plan.network.clone()),
        )
        .await
        .map_err(failed("creating the Network"))?;
    let nodes: kube::Api<Node> = kube::Api::all(client.clone());
    for node in &plan.nodes {
        let operation = || format!("creating node {}", node.name);
        let labels = BTreeMap::from([("kubernetes.io/hostname".to_owned(), node.name.clone())]);
        let object = Node {
            metadata: ObjectMeta {
                name: Some(node.name.clone()),
                labels: Some(labels),
                ..Default::default()
            },
            spec: Some(NodeSpec::default()),
            status: None,
        };
        nodes
            .create(&PostParams::default(), &object)
            .await
            .map_err(failed(operation()))?;
        let status = json!({"status": status(node)});
        nodes
            .patch_status(&node.name, &PatchParams::default(), &Patch::Merge(&status))
            .await
            .map_err(failed(operation()))?;
    }
    Ok(())
}

fn status(node: &plan::Node) -> NodeStatus {
    let address = |type_: &str, address: String| NodeAddress {
        type_: type_.to_owned(),
        address,
    };
    let mut addresses: Vec<NodeAddress> = node
        .addresses
        .iter()
        .map(|net| address("InternalIP", net.addr().to_string()))
        .collect();
    addresses.push(address("Hostname", node.name.clone()));
    NodeStatus {
        addresses: Some(addresses),
        ..Default::default()
    }
}
