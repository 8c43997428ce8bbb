//! The real embedded API server, as the node's agent reaches it: from inside the node.

use std::net::TcpListener;
use std::sync::Arc;

use kube::api::{Api as Objects, DeleteParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, CustomResourceExt};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tombolo_apiserver::{
    DEFAULT_HISTORY, NoLogs, Options, Pki, Resource, ServiceRanges, Token, built_in_resources, serve,
};
use tombolo_kube::{CLUSTER, Network, NodeNetwork};
use tombolo_testkit::TestNamespace;

use super::NODE;

/// An API server with a Network and the node's NodeNetwork.
pub struct Api {
    runtime: Runtime,
    client: Client,
    kubeconfig: String,
}

impl Api {
    pub fn start(node: &TestNamespace, blocks: &[&str]) -> Self {
        let api = Self::serve(node, "127.0.0.1");
        api.create_network(&json!({}));
        api.create_node(NODE, 1, blocks);
        api
    }

    /// An API server without any objects, which agents reach by an address inside a namespace.
    pub fn serve(namespace: &TestNamespace, address: &str) -> Self {
        let runtime = Runtime::new().unwrap();
        // One listener there, for the agents, and one here, for the test.
        let inside = namespace.run(|| TcpListener::bind((address, 0)).unwrap());
        let here = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = |l: &TcpListener| format!("https://{}", l.local_addr().unwrap());
        let pki = Pki::new(&["127.0.0.1", address]).unwrap();
        let token = Token::generate("test");
        let config = |url: String| pki.kubeconfig(&url, &token.user, &token.secret);
        let (kubeconfig, own) = (config(url(&inside)), config(url(&here)));
        let mut resources = built_in_resources(&ServiceRanges::default()).unwrap();
        resources.push(Resource::from_crd(Network::crd()).unwrap());
        resources.push(Resource::from_crd(NodeNetwork::crd()).unwrap());
        let options = Options {
            listeners: vec![inside, here],
            tls: pki.server_config().unwrap(),
            tokens: vec![token.clone()],
            resources,
            logs: Arc::new(NoLogs),
            history: DEFAULT_HISTORY,
        };
        runtime.spawn(async { serve(options, std::future::pending()).await.unwrap() });
        let client = runtime.block_on(async {
            let own = Kubeconfig::from_yaml(&own).unwrap();
            let config = Config::from_custom_kubeconfig(own, &KubeConfigOptions::default())
                .await
                .unwrap();
            Client::try_from(config).unwrap()
        });
        Self {
            runtime,
            client,
            kubeconfig,
        }
    }

    pub fn kubeconfig(&self) -> &str {
        &self.kubeconfig
    }

    /// The Network, with these settings besides pools and the ranges of nodes.
    pub fn create_network(&self, settings: &Value) {
        let mut network = json!({
            "apiVersion": "tombolo.dev/v1alpha1", "kind": "Network", "metadata": {"name": CLUSTER},
            "spec": {
                "pools": [{"cidr": "10.244.0.0/16", "blockSize": 24}, {"cidr": "fd00:10:244::/48", "blockSize": 112}],
                "nodeCIDRs": ["172.20.0.0/16", "fd00:20::/32"],
            },
        });
        for (key, value) in settings.as_object().unwrap() {
            network["spec"][key] = value.clone();
        }
        let network: Network = serde_json::from_value(network).unwrap();
        let api: Objects<Network> = Objects::all(self.client.clone());
        self.runtime
            .block_on(api.create(&PostParams::default(), &network))
            .unwrap();
    }

    pub fn create_node(&self, name: &str, index: u32, blocks: &[&str]) {
        let node: NodeNetwork = serde_json::from_value(json!({
            "apiVersion": "tombolo.dev/v1alpha1", "kind": "NodeNetwork", "metadata": {"name": name},
            "spec": {"index": index, "blocks": blocks},
        }))
        .unwrap();
        let api: Objects<NodeNetwork> = Objects::all(self.client.clone());
        self.runtime
            .block_on(api.create(&PostParams::default(), &node))
            .unwrap();
    }

    /// Deletes a NodeNetwork, as the operator does once its Node is gone.
    pub fn delete_node(&self, name: &str) {
        let api: Objects<NodeNetwork> = Objects::all(self.client.clone());
        let deleted = self.runtime.block_on(api.delete(name, &DeleteParams::default()));
        deleted.unwrap();
    }

    pub fn node(&self, name: &str) -> NodeNetwork {
        let api: Objects<NodeNetwork> = Objects::all(self.client.clone());
        self.runtime.block_on(api.get(name)).unwrap()
    }

    pub fn patch_network(&self, patch: &Value) {
        let api: Objects<Network> = Objects::all(self.client.clone());
        self.runtime
            .block_on(api.patch(CLUSTER, &PatchParams::default(), &Patch::Merge(patch)))
            .unwrap();
    }

    pub fn set_blocks(&self, name: &str, blocks: &[&str]) {
        let api: Objects<NodeNetwork> = Objects::all(self.client.clone());
        let patch = Patch::Merge(json!({"spec": {"blocks": blocks}}));
        self.runtime
            .block_on(api.patch(name, &PatchParams::default(), &patch))
            .unwrap();
    }

    pub fn patch_node_status(&self, name: &str, status: &Value) {
        let api: Objects<NodeNetwork> = Objects::all(self.client.clone());
        let patch = Patch::Merge(json!({ "status": status }));
        self.runtime
            .block_on(api.patch_status(name, &PatchParams::default(), &patch))
            .unwrap();
    }
}
