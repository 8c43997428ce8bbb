//! What the operator decides, from objects alone.
#![allow(clippy::unwrap_used, reason = "what panics here fails the test")]

use std::collections::BTreeSet;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use proptest::prelude::*;
use serde_json::json;
use tombolo_kube::{NetworkSpec, NodeNetwork};
use tombolo_operator::{Action, plan};

fn network(pools: &[(&str, u8)]) -> NetworkSpec {
    let pools: Vec<_> = pools
        .iter()
        .map(|(cidr, size)| json!({"cidr": cidr, "blockSize": size}))
        .collect();
    serde_json::from_value(json!({"pools": pools, "nodeCIDRs": ["172.20.0.0/16"]})).unwrap()
}

fn node(name: &str, pod_cidrs: &[&str]) -> Node {
    let spec = if pod_cidrs.is_empty() {
        json!({})
    } else {
        json!({"podCIDRs": pod_cidrs})
    };
    serde_json::from_value(json!({"metadata": {"name": name, "uid": format!("uid-{name}")}, "spec": spec}))
        .unwrap()
}

/// Plans, and does what the plan says.
fn act(network: &NetworkSpec, nodes: &[Node], existing: &mut Vec<NodeNetwork>) {
    let actions = plan(network, nodes, existing).actions;
    apply(existing, actions);
}

/// Does what the plan says, as an API server would.
fn apply(existing: &mut Vec<NodeNetwork>, actions: Vec<Action>) {
    for action in actions {
        match action {
            Action::Create(new) => {
                assert!(
                    existing.iter().all(|e| e.name_any() != new.name_any()),
                    "{} exists",
                    new.name_any()
                );
                existing.push(new);
            }
            Action::Replace(new) => {
                let old = existing
                    .iter_mut()
                    .find(|e| e.name_any() == new.name_any())
                    .unwrap();
                *old = new;
            }
            Action::Delete { name, .. } => existing.retain(|e| e.name_any() != name),
        }
    }
}

fn summary(existing: &[NodeNetwork]) -> Vec<String> {
    let line = |n: &NodeNetwork| {
        let blocks: Vec<String> = n.spec.blocks.iter().map(IpNet::to_string).collect();
        format!("{} {} {}", n.name_any(), n.spec.index, blocks.join(" "))
    };
    existing.iter().map(line).collect()
}

const DUAL: [(&str, u8); 2] = [("10.244.0.0/16", 24), ("fd00:10:244::/48", 112)];

#[test]
fn each_node_gets_an_index_and_a_block_of_each_family() {
    let (network, nodes) = (network(&DUAL), [node("a", &[]), node("b", &[])]);
    let mut existing = Vec::new();
    let first = plan(&network, &nodes, &existing);
    assert!(first.problems.is_empty());
    apply(&mut existing, first.actions);
    assert_eq!(
        summary(&existing),
        [
            "a 1 10.244.0.0/24 fd00:10:244::/112",
            "b 2 10.244.1.0/24 fd00:10:244::1:0/112"
        ]
    );
    assert_eq!(existing[0].owner_references()[0].uid, "uid-a");
    assert!(
        plan(&network, &nodes, &existing).actions.is_empty(),
        "there is nothing more to do"
    );
}

#[test]
fn a_gone_node_frees_its_index_and_blocks_only_once_its_object_is_gone() {
    let network = network(&[("10.0.0.0/23", 24)]);
    let mut existing = Vec::new();
    act(&network, &[node("a", &[]), node("b", &[])], &mut existing);
    let nodes = [node("b", &[]), node("c", &[])];
    let now = plan(&network, &nodes, &existing);
    assert_eq!(
        now.problems.len(),
        1,
        "a's block is still a's: {:?}",
        now.problems
    );
    apply(&mut existing, now.actions);
    assert_eq!(summary(&existing), ["b 2 10.0.1.0/24", "c 3 "]);
    act(&network, &nodes, &mut existing);
    assert_eq!(summary(&existing), ["b 2 10.0.1.0/24", "c 3 10.0.0.0/24"]);
}

#[test]
fn pod_cidrs_of_the_node_win() {
    let network = network(&[("10.244.0.0/16", 24)]);
    let mut existing = Vec::new();
    let nodes = [node("a", &[]), node("b", &["10.244.0.0/24", "fd00::/112"])];
    act(&network, &nodes, &mut existing);
    assert_eq!(
        summary(&existing),
        ["a 1 10.244.1.0/24", "b 2 10.244.0.0/24 fd00::/112"]
    );
    let nodes = [node("a", &["10.9.0.0/24"]), nodes[1].clone()];
    act(&network, &nodes, &mut existing);
    assert_eq!(summary(&existing)[0], "a 1 10.9.0.0/24");
}

#[test]
fn what_cannot_be_read_is_said_and_passed_over() {
    let plan = plan(
        &network(&DUAL),
        &[node("a", &["10.0.0.0/24;reboot"])],
        &[] as &[NodeNetwork],
    );
    assert!(
        plan.problems.first().unwrap().contains("10.0.0.0/24;reboot"),
        "{:?}",
        plan.problems
    );
}

#[test]
fn an_exhausted_pool_is_named() {
    let network = network(&[("10.0.0.0/24", 24)]);
    let plan = plan(&network, &[node("a", &[]), node("b", &[])], &[] as &[NodeNetwork]);
    let problem = plan.problems.first().unwrap();
    assert!(
        problem.contains("Node b") && problem.contains("10.0.0.0/24"),
        "{problem}"
    );
}

#[test]
fn a_new_family_reaches_old_nodes() {
    let mut existing = Vec::new();
    let nodes = [node("a", &[])];
    act(&network(&DUAL[..1]), &nodes, &mut existing);
    act(&network(&DUAL), &nodes, &mut existing);
    assert_eq!(summary(&existing), ["a 1 10.244.0.0/24 fd00:10:244::/112"]);
}

#[test]
fn a_node_made_anew_keeps_its_blocks() {
    let mut existing = Vec::new();
    act(&network(&DUAL), &[node("z", &[]), node("a", &[])], &mut existing);
    let before = summary(&existing);
    let mut anew = node("a", &[]);
    anew.metadata.uid = Some("another".into());
    act(&network(&DUAL), &[node("z", &[]), anew], &mut existing);
    assert_eq!(summary(&existing), before);
    let owner = existing
        .iter()
        .find(|e| e.name_any() == "a")
        .unwrap()
        .owner_references()[0]
        .uid
        .clone();
    assert_eq!(owner, "another");
}

proptest! {
    /// Nodes come and go, and the operator dies after any number of changes: nothing is given twice.
    #[test]
    fn nothing_is_given_twice(steps in prop::collection::vec((0u8..8, any::<bool>(), 0usize..3), 1..30)) {
        let network = network(&[("10.0.0.0/22", 24), ("fd00::/110", 112)]);
        let mut names: BTreeSet<u8> = BTreeSet::new();
        let mut existing = Vec::new();
        for (name, there, done) in steps {
            if there { names.insert(name); } else { names.remove(&name); }
            let nodes: Vec<Node> = names.iter().map(|n| node(&format!("n{n}"), &[])).collect();
            let mut actions = plan(&network, &nodes, &existing).actions;
            actions.truncate(done);
            apply(&mut existing, actions);
            let indexes: BTreeSet<u32> = existing.iter().map(|e| e.spec.index).collect();
            prop_assert_eq!(indexes.len(), existing.len());
            let blocks: Vec<IpNet> = existing.iter().flat_map(|e| e.spec.blocks.clone()).collect();
            for (i, a) in blocks.iter().enumerate() {
                for b in &blocks[..i] {
                    prop_assert!(!a.contains(b) && !b.contains(a), "{a} and {b}");
                }
            }
        }
    }
}
