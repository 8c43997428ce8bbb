//! The matrix can fail: each rule is broken on purpose, and the check must notice.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use serde_json::Value;
use std::process::Command;
use support::{Lab, TOMBOLO, run, succeed};

/// The failed checks.
fn failures(lab: &Lab) -> Vec<Value> {
    let output = run(Command::new(TOMBOLO).args(["connectivity", "--json", "--name", &lab.name]));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let failed: Vec<Value> = report["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["ok"] != true)
        .cloned()
        .collect();
    assert_eq!(output.status.code(), Some(if failed.is_empty() { 0 } else { 3 }));
    assert_eq!(report["ok"], failed.is_empty());
    failed
}

fn rules(failed: &[Value]) -> Vec<&str> {
    let mut rules: Vec<&str> = failed
        .iter()
        .map(|check| check["rule"].as_str().unwrap())
        .collect();
    rules.sort_unstable();
    rules.dedup();
    rules
}

#[test]
fn translation_a_wrong_address_and_a_dead_pod_are_noticed() {
    let lab = Lab::up(1, &["--families", "v4"]);
    assert_eq!(failures(&lab), Vec::<Value>::new());

    // a1 shall see another source than b1 has: the kernel in a1 translates what comes in.
    for words in [
        &["nft", "add table ip broken"][..],
        &[
            "nft",
            "add chain ip broken input { type nat hook input priority 100; }",
        ],
        &[
            "nft",
            "add rule ip broken input ip saddr 10.244.0.0/16 iifname eth0 snat to 192.0.2.77",
        ],
    ] {
        succeed(&mut lab.exec("a1", words));
    }
    let failed = failures(&lab);
    assert_eq!(rules(&failed), ["same-node"], "{failed:?}");
    assert!(
        failed
            .iter()
            .all(|check| check["source"] == "b1" && check["target"] == "a1")
    );
    assert!(
        failed[0]["wrong"].as_str().unwrap().contains("192.0.2.77"),
        "{failed:?}"
    );
    succeed(&mut lab.exec("a1", &["nft", "delete table ip broken"]));

    succeed(&mut lab.exec("a1", &["ip", "address", "add", "192.0.2.1/32", "dev", "eth0"]));
    assert_eq!(rules(&failures(&lab)), ["own-address"]);
    succeed(&mut lab.exec("a1", &["ip", "address", "del", "192.0.2.1/32", "dev", "eth0"]));

    // Without the masquerade, what leaves a pod must not leave the cluster.
    succeed(&mut lab.exec("node1", &["nft", "flush ruleset"]));
    assert_eq!(rules(&failures(&lab)), ["pod-to-outside"]);

    succeed(&mut lab.exec("b1", &["ip", "link", "set", "lo", "down"]));
    let failed = failures(&lab);
    assert!(rules(&failed).contains(&"localhost"), "{:?}", rules(&failed));
}

#[test]
fn a_way_that_only_a_router_with_pod_routes_could_have_is_noticed() {
    // Direct routing past a router: it would need to know the pods, and it does not.
    let lab = Lab::up(2, &["--routing", "direct", "--segments", "2", "--families", "v4"]);
    let failed = failures(&lab);
    let rules = rules(&failed);
    assert!(rules.contains(&"other-node"), "{rules:?}");
    assert!(
        !rules.contains(&"same-node") && !rules.contains(&"itself"),
        "{rules:?}"
    );
    let other_node = failed
        .iter()
        .filter(|check| check["rule"] == "other-node")
        .count();
    assert_eq!(
        other_node,
        8 * 9,
        "every check between pods on different nodes must fail"
    );
}
