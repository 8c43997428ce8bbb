//! The objects that a lab starts with: its Network, its Nodes, and the Service by which pods find the API.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeAddress, NodeSpec, NodeStatus, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tombolo_kube::{CLUSTER, Network};

use crate::api::{Api, failed};
use crate::error::Result;
use crate::plan::{self, API_PORT, Plan};

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
    api_service(api, plan).await
}

/// The Service `default/kubernetes`, whose endpoint the API server itself keeps.
async fn api_service(api: &Api, plan: &Plan) -> Result<()> {
    let (Some(ip), Some(endpoint)) = (plan.service_api(), plan.api.first()) else {
        return Ok(());
    };
    let service = json!({
        "metadata": {"name": "kubernetes", "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {"clusterIP": ip, "ports": [{"name": "https", "port": 443, "targetPort": API_PORT}]},
    });
    let family = if endpoint.is_ipv4() { "IPv4" } else { "IPv6" };
    let slice = json!({
        "metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": family,
        "endpoints": [{"addresses": [endpoint], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": API_PORT, "protocol": "TCP"}],
    });
    create::<Service>(api, service).await?;
    create::<EndpointSlice>(api, slice).await
}

async fn create<K>(api: &Api, object: serde_json::Value) -> Result<()>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + Serialize
        + DeserializeOwned,
{
    let operation = || format!("creating the {} kubernetes", K::kind(&()));
    let object: K = serde_json::from_value(object).map_err(failed(operation()))?;
    kube::Api::default_namespaced(api.client().clone())
        .create(&PostParams::default(), &object)
        .await
        .map_err(failed(operation()))?;
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
