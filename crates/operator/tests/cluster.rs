//! The operator against the real API server.
#![allow(clippy::unwrap_used, reason = "what panics here fails the test")]

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Event, Node, Service};
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::{Client, CustomResourceExt, ResourceExt};
use serde_json::json;
use tombolo_apiserver::{
    DEFAULT_HISTORY, NoLogs, Options, Pki, Resource, ServiceRanges, Token, built_in_resources, serve,
};
use tombolo_kube::{Network, NodeNetwork};
use tombolo_operator::{Args, run};

const DEADLINE: Duration = Duration::from_secs(30);

struct Cluster {
    client: Client,
    args: Args,
    _folder: tempfile::TempDir,
}

impl Cluster {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let pki = Pki::new(&["127.0.0.1"]).unwrap();
        let token = Token::generate("test");
        let mut resources = built_in_resources(&ServiceRanges::default()).unwrap();
        resources.push(Resource::from_crd(Network::crd()).unwrap());
        resources.push(Resource::from_crd(NodeNetwork::crd()).unwrap());
        let options = Options {
            listeners: vec![listener],
            tls: pki.server_config().unwrap(),
            tokens: vec![token.clone()],
            resources,
            logs: Arc::new(NoLogs),
            history: DEFAULT_HISTORY,
        };
        tokio::spawn(async { serve(options, std::future::pending()).await.unwrap() });
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = folder.path().join("kubeconfig");
        std::fs::write(&kubeconfig, pki.kubeconfig(&url, &token.user, &token.secret)).unwrap();
        let client = tombolo_kube::client(Some(&kubeconfig)).await.unwrap();
        Self {
            client,
            args: Args {
                kubeconfig: Some(kubeconfig),
            },
            _folder: folder,
        }
    }

    async fn apply_network(&self) {
        let network = json!({
            "apiVersion": "tombolo.dev/v1alpha1", "kind": "Network", "metadata": {"name": "cluster"},
            "spec": {
                "pools": [{"cidr": "10.244.0.0/22", "blockSize": 24}, {"cidr": "fd00:10:244::/48", "blockSize": 112}],
                "nodeCIDRs": ["172.20.0.0/16"],
                "loadBalancerPools": ["203.0.113.0/30"],
            },
        });
        let network: Network = serde_json::from_value(network).unwrap();
        Api::all(self.client.clone())
            .create(&PostParams::default(), &network)
            .await
            .unwrap();
    }

    async fn add_node(&self, name: &str) {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
        let node: Node = serde_json::from_value(node).unwrap();
        Api::all(self.client.clone())
            .create(&PostParams::default(), &node)
            .await
            .unwrap();
    }

    async fn delete_node(&self, name: &str) {
        Api::<Node>::all(self.client.clone())
            .delete(name, &DeleteParams::default())
            .await
            .unwrap();
    }

    /// Waits until the NodeNetworks are what is wanted, and gives them.
    async fn expect(&self, what: &str, wanted: impl Fn(&[NodeNetwork]) -> bool) -> Vec<NodeNetwork> {
        let api: Api<NodeNetwork> = Api::all(self.client.clone());
        let start = Instant::now();
        loop {
            let found = api.list(&ListParams::default()).await.unwrap().items;
            if wanted(&found) {
                return found;
            }
            assert!(start.elapsed() < DEADLINE, "{what}: {found:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn nodes_come_and_go() {
    let cluster = Cluster::start().await;
    let operator = tokio::spawn(run(cluster.args.clone()));
    cluster.add_node("a").await;
    cluster.apply_network().await;
    cluster
        .expect("one for a", |all| all.len() == 1 && all[0].name_any() == "a")
        .await;
    for name in ["b", "c", "d"] {
        cluster.add_node(name).await;
    }
    let all = cluster.expect("one for each", |all| all.len() == 4).await;
    let indexes: BTreeSet<u32> = all.iter().map(|n| n.spec.index).collect();
    assert_eq!(indexes, BTreeSet::from([1, 2, 3, 4]));
    let blocks: BTreeSet<_> = all.iter().flat_map(|n| n.spec.blocks.iter().copied()).collect();
    assert_eq!(blocks.len(), 8, "one of each family for each node");

    // The pool of IPv4 is used up. A fifth node waits until there is a block again.
    cluster.add_node("e").await;
    cluster
        .expect("e has one block", |all| {
            all.iter()
                .any(|n| n.name_any() == "e" && n.spec.blocks.len() == 1)
        })
        .await;
    cluster.delete_node("b").await;
    let all = cluster
        .expect("e has b's", |all| {
            all.len() == 4
                && all
                    .iter()
                    .any(|n| n.name_any() == "e" && n.spec.blocks.len() == 2)
        })
        .await;
    assert!(all.iter().all(|n| n.name_any() != "b"));
    operator.abort();
}

#[tokio::test]
async fn an_operator_that_comes_late_or_anew_changes_nothing_that_stands() {
    let cluster = Cluster::start().await;
    cluster.apply_network().await;
    for name in ["a", "b"] {
        cluster.add_node(name).await;
    }
    let first = tokio::spawn(run(cluster.args.clone()));
    let before = cluster.expect("one for each", |all| all.len() == 2).await;
    first.abort();
    cluster.add_node("c").await;
    let second = tokio::spawn(run(cluster.args.clone()));
    let after = cluster.expect("one more", |all| all.len() == 3).await;
    for old in before {
        assert!(
            after
                .iter()
                .any(|n| n.name_any() == old.name_any() && n.spec == old.spec)
        );
    }
    second.abort();
}

#[tokio::test]
async fn load_balancers_have_addresses_until_none_is_left() {
    let cluster = Cluster::start().await;
    let operator = tokio::spawn(run(cluster.args.clone()));
    cluster.apply_network().await;
    let services: Api<Service> = Api::default_namespaced(cluster.client.clone());
    for name in ["a", "b", "c"] {
        let service =
            json!({"metadata": {"name": name}, "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}});
        let service: Service = serde_json::from_value(service).unwrap();
        services.create(&PostParams::default(), &service).await.unwrap();
    }
    let addresses = async || -> BTreeSet<String> {
        let all = services.list(&ListParams::default()).await.unwrap();
        let all = serde_json::to_value(all.items).unwrap();
        let points = all
            .as_array()
            .unwrap()
            .iter()
            .map(|s| &s["status"]["loadBalancer"]["ingress"][0]);
        let points = points.filter(|point| point["ipMode"] == "VIP");
        points
            .map(|point| point["ip"].as_str().unwrap().to_owned())
            .collect()
    };
    let start = Instant::now();
    let events: Api<Event> = Api::default_namespaced(cluster.client.clone());
    let told = loop {
        let found = events.list(&ListParams::default()).await.unwrap().items;
        if let (2, [event]) = (addresses().await.len(), found.as_slice()) {
            break event.clone();
        }
        assert!(start.elapsed() < DEADLINE, "{:?} {found:?}", addresses().await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(told.reason.as_deref(), Some("AllocationFailed"));
    let unlucky = told.involved_object.name.unwrap();
    let other = ["a", "b", "c"].into_iter().find(|name| *name != unlucky).unwrap();
    services.delete(other, &DeleteParams::default()).await.unwrap();
    while addresses().await.len() != 2 {
        assert!(start.elapsed() < DEADLINE, "what was released is given again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    operator.abort();
}
