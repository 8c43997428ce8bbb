//! The smallest scheduler: a pod without a node goes to the ready node with the fewest pods that its node
//! selector allows, and where its host ports are free.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::json;

use super::status::now;
use crate::api::Api;
use crate::port_mapping::PortMapping;

enum Change {
    Pod(Box<Event<Pod>>),
    Node(Box<Event<Node>>),
    Failed(watcher::Error),
}

/// Places pods, for ever.
pub async fn run(api: Api) {
    let client = api.client();
    let pods = watcher(kube::Api::<Pod>::all(client.clone()), watcher::Config::default());
    let nodes = watcher(kube::Api::<Node>::all(client.clone()), watcher::Config::default());
    let mut changes = pin!(stream::select(
        pods.default_backoff()
            .map(|event| event.map_or_else(Change::Failed, |event| Change::Pod(event.into()))),
        nodes
            .default_backoff()
            .map(|event| event.map_or_else(Change::Failed, |event| Change::Node(event.into())))
    ));
    let mut cluster = Cluster::default();
    while let Some(change) = changes.next().await {
        match change {
            Change::Pod(event) => update(&mut cluster.pods, *event),
            Change::Node(event) => update(&mut cluster.nodes, *event),
            Change::Failed(error) => tracing::warn!(%error, "watching pods and nodes"),
        }
        for (pod, decision) in cluster.decide() {
            if let Err(error) = carry_out(&api, &pod, &decision).await {
                // The pod may just have been deleted. Anything else is tried again at the next change.
                tracing::warn!(pod = pod.name_any(), %error, "cannot place the pod");
                tokio::time::sleep(Duration::from_millis(10)).await;
            } else {
                cluster.note(&pod, decision);
            }
        }
    }
}

/// What is known of the cluster, by namespace and name.
#[derive(Default)]
struct Cluster {
    pods: BTreeMap<(String, String), Pod>,
    nodes: BTreeMap<(String, String), Node>,
}

/// What becomes of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Decision {
    /// It goes to this node.
    Bind(String),
    /// No node takes it.
    Wait(String),
}

fn key(object: &impl ResourceExt) -> (String, String) {
    (object.namespace().unwrap_or_default(), object.name_any())
}

fn update<K: ResourceExt>(known: &mut BTreeMap<(String, String), K>, event: Event<K>) {
    match event {
        Event::Init => known.clear(),
        Event::Apply(object) | Event::InitApply(object) => {
            known.insert(key(&object), object);
        }
        Event::Delete(object) => {
            known.remove(&key(&object));
        }
        Event::InitDone => {}
    }
}

impl Cluster {
    /// Places every pod that has no node yet, counting those placed before it.
    fn decide(&self) -> Vec<(Pod, Decision)> {
        let mut load: BTreeMap<String, usize> = BTreeMap::new();
        let mut taken: BTreeMap<String, Vec<PortMapping>> = BTreeMap::new();
        for pod in self.pods.values() {
            let Some(node) = node_of(pod) else { continue };
            *load.entry(node.to_owned()).or_default() += 1;
            if !is_over(pod) {
                taken
                    .entry(node.to_owned())
                    .or_default()
                    .extend(PortMapping::of(pod));
            }
        }
        let mut decisions = Vec::new();
        for pod in self.pods.values() {
            if node_of(pod).is_some() || pod.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let ports = PortMapping::of(pod);
            let are_free = |node: &String| {
                let mut taken = taken.get(node).into_iter().flatten();
                !taken.any(|one| ports.iter().any(|port| port.conflicts_with(one)))
            };
            let fitting = self
                .nodes
                .values()
                .filter(|node| is_ready(node) && is_selected(pod, node));
            let fitting: Vec<String> = fitting.map(ResourceExt::name_any).collect();
            let chosen = fitting
                .iter()
                .filter(|node| are_free(node))
                .min_by_key(|node| load.get(*node).copied().unwrap_or(0));
            let decision = match chosen {
                Some(node) => {
                    *load.entry(node.clone()).or_default() += 1;
                    taken.entry(node.clone()).or_default().extend(ports);
                    Decision::Bind(node.clone())
                }
                None if !fitting.is_empty() => {
                    let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
                    Decision::Wait(format!(
                        "none of the {} nodes that the pod may run on has its host ports free ({})",
                        fitting.len(),
                        ports.join(", ")
                    ))
                }
                None => Decision::Wait(format!(
                    "none of the {} nodes is ready and has the labels of the pod's nodeSelector",
                    self.nodes.len()
                )),
            };
            if !is_told(pod, &decision) {
                decisions.push((pod.clone(), decision));
            }
        }
        decisions
    }

    /// Remembers a decision, so that it counts before the watch reports it.
    fn note(&mut self, pod: &Pod, decision: Decision) {
        if let (Decision::Bind(node), Some(pod)) = (decision, self.pods.get_mut(&key(pod))) {
            pod.spec.get_or_insert_default().node_name = Some(node);
        }
    }
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec
        .as_ref()?
        .node_name
        .as_deref()
        .filter(|name| !name.is_empty())
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| &status.conditions).flatten();
    let is_unschedulable = node
        .spec
        .as_ref()
        .is_some_and(|spec| spec.unschedulable == Some(true));
    !is_unschedulable
        && conditions
            .into_iter()
            .any(|one| one.type_ == "Ready" && one.status == "True")
}

/// Whether nothing of the pod runs any more.
fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn is_selected(pod: &Pod, node: &Node) -> bool {
    let wanted = pod.spec.iter().flat_map(|spec| &spec.node_selector).flatten();
    wanted
        .into_iter()
        .all(|(label, value)| node.labels().get(label) == Some(value))
}

/// Whether the pod's status says already that it waits, and why.
fn is_told(pod: &Pod, decision: &Decision) -> bool {
    let Decision::Wait(reason) = decision else {
        return false;
    };
    let conditions = pod.status.iter().flat_map(|status| &status.conditions).flatten();
    conditions
        .into_iter()
        .any(|one| one.type_ == "PodScheduled" && one.message.as_ref() == Some(reason))
}

async fn carry_out(api: &Api, pod: &Pod, decision: &Decision) -> kube::Result<()> {
    let pods: kube::Api<Pod> =
        kube::Api::namespaced(api.client().clone(), &pod.namespace().unwrap_or_default());
    let (name, params) = (pod.name_any(), PatchParams::default());
    match decision {
        Decision::Bind(node) => {
            let patch = json!({"metadata": {"uid": pod.uid()}, "spec": {"nodeName": node}});
            pods.patch(&name, &params, &Patch::Merge(&patch)).await?;
        }
        Decision::Wait(reason) => {
            let condition = json!({
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": reason,
                "lastTransitionTime": now(),
            });
            let patch = json!({"status": {"conditions": [condition]}});
            pods.patch_status(&name, &params, &Patch::Merge(&patch)).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec}))
            .unwrap()
    }

    fn node(name: &str, ready: &str) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
            "status": {"conditions": [{"type": "Ready", "status": ready}]}
        }))
        .unwrap()
    }

    fn cluster(pods: Vec<Pod>, nodes: Vec<Node>) -> Cluster {
        Cluster {
            pods: pods.into_iter().map(|pod| (key(&pod), pod)).collect(),
            nodes: nodes.into_iter().map(|node| (key(&node), node)).collect(),
        }
    }

    fn decided(cluster: &Cluster) -> Vec<(String, Decision)> {
        cluster
            .decide()
            .into_iter()
            .map(|(pod, decision)| (pod.name_any(), decision))
            .collect()
    }

    #[test]
    fn pods_spread_over_the_ready_nodes() {
        let bare = || json!({"containers": []});
        let cluster = cluster(
            vec![
                pod("a", json!({"containers": [], "nodeName": "n1"})),
                pod("b", bare()),
                pod("c", bare()),
                pod("d", bare()),
            ],
            vec![node("n1", "True"), node("n2", "True"), node("n3", "False")],
        );
        let bind = |pod: &str, node: &str| (pod.to_owned(), Decision::Bind(node.to_owned()));
        assert_eq!(
            decided(&cluster),
            [bind("b", "n2"), bind("c", "n1"), bind("d", "n2")]
        );
    }

    #[test]
    fn a_node_selector_is_honoured() {
        let wanted = |name: &str| json!({"containers": [], "nodeSelector": {"kubernetes.io/hostname": name}});
        let cluster = cluster(
            vec![pod("a", wanted("n2")), pod("b", wanted("n9"))],
            vec![node("n1", "True"), node("n2", "True")],
        );
        let decided = decided(&cluster);
        assert_eq!(decided[0].1, Decision::Bind("n2".to_owned()));
        assert!(matches!(decided[1].1, Decision::Wait(_)));
    }

    #[test]
    fn host_ports_are_had_once_a_node() {
        let with = |protocol: &str, ip: &str| {
            let port = json!({"containerPort": 80, "hostPort": 8080, "protocol": protocol, "hostIP": ip});
            json!({"containers": [{"name": "c", "ports": [{"containerPort": 80}, port]}]})
        };
        let names = |pods: &[(&str, serde_json::Value)]| {
            let pods = pods.iter().map(|(name, spec)| pod(name, spec.clone())).collect();
            decided(&cluster(pods, vec![node("n1", "True"), node("n2", "True")]))
        };
        let bind = |pod: &str, node: &str| (pod.to_owned(), Decision::Bind(node.to_owned()));
        let all = [
            ("a", with("TCP", "")),
            ("b", with("TCP", "")),
            ("c", with("TCP", "192.0.2.1")),
        ];
        let why = "none of the 2 nodes that the pod may run on has its host ports free (192.0.2.1 8080/TCP)";
        assert_eq!(
            names(&all),
            [
                bind("a", "n1"),
                bind("b", "n2"),
                ("c".to_owned(), Decision::Wait(why.to_owned()))
            ]
        );
        let others = [
            ("a", with("TCP", "192.0.2.1")),
            ("b", with("TCP", "192.0.2.2")),
            ("c", with("UDP", "")),
            ("d", with("SCTP", "0.0.0.0")),
        ];
        assert_eq!(
            names(&others),
            [bind("a", "n1"), bind("b", "n2"), bind("c", "n1"), bind("d", "n2")]
        );
        // A pod that has ended does not need its ports any more.
        let mut over = pod("a", with("TCP", ""));
        over.spec.get_or_insert_default().node_name = Some("n1".to_owned());
        over.status.get_or_insert_default().phase = Some("Succeeded".to_owned());
        let cluster = cluster(vec![over, pod("b", with("TCP", ""))], vec![node("n1", "True")]);
        assert_eq!(decided(&cluster), [bind("b", "n1")]);
    }
}
