//! CHECK: what of `prevResult` the agent hears.

use serde_json::{Value, json};
use tombolo_cni::agent::{CheckRequest, PodRoute};

use crate::agent::{Agent, healthy, refusing};
use crate::run::{Node, Outcome, plugin, run};

/// The result of a chain: what came before, what we made, and what came after, which has changed our MAC.
fn chained(node: &Node) -> Value {
    let sandbox = node.pod.path();
    json!({
        "cniVersion": "1.0.0",
        "interfaces": [
            { "name": "eth0" },
            { "name": "lo", "sandbox": sandbox },
            { "name": "tmb0123456789ab" },
            { "name": "eth0", "mac": "02:00:00:00:00:77", "sandbox": sandbox },
            { "name": "eth0", "mac": "02:00:00:00:00:99", "sandbox": "/run/netns/another" },
        ],
        "ips": [
            { "address": "127.0.0.1/8", "interface": 1 },
            { "address": "10.244.1.7/32", "gateway": "169.254.1.1", "interface": 3 },
            { "address": "192.0.2.1/24" },
            { "address": "fd00:10:244:1::7/128", "interface": 3 },
        ],
        "routes": [{ "dst": "0.0.0.0/0", "gw": "169.254.1.1" }, { "dst": "192.0.2.0/24" }],
    })
}

fn check(node: &Node, more: Value) -> Outcome {
    let config = node.config("1.0.0", more);
    run(plugin(), &node.environment("CHECK"), config.as_bytes())
}

#[test]
fn the_agent_hears_what_is_listed_of_the_interface_in_the_pod() {
    let node = Node::new();
    let agent = Agent::start(&node.socket(), healthy);
    check(&node, json!({ "prevResult": chained(&node) })).silent_success();
    let request = &agent.requests()[0];
    assert_eq!(
        (request.method.as_str(), request.path.as_str()),
        ("POST", "/v1/endpoints/3f1c0de/eth0/check")
    );
    let asked: CheckRequest = serde_json::from_slice(&request.body).unwrap();
    let route = |dst: &str, gw: Option<&str>| PodRoute {
        dst: dst.parse().unwrap(),
        gw: gw.map(|gw| gw.parse().unwrap()),
    };
    assert_eq!(
        asked,
        CheckRequest {
            netns: node.pod.path().display().to_string(),
            mac: Some("02:00:00:00:00:77".into()),
            addresses: ["10.244.1.7/32", "fd00:10:244:1::7/128"]
                .map(|a| a.parse().unwrap())
                .to_vec(),
            routes: vec![
                route("0.0.0.0/0", Some("169.254.1.1")),
                route("192.0.2.0/24", None)
            ],
        }
    );
}

#[test]
fn without_a_result_of_ours_nobody_is_asked() {
    let node = Node::new();
    let agent = Agent::start(&node.socket(), healthy);
    let text = check(&node, json!({})).error(7, "1.0.0");
    assert!(text.contains("prevResult"), "{text}");
    check(&node, json!({ "prevResult": null })).error(7, "1.0.0");
    check(&node, json!({ "prevResult": [] })).error(6, "1.0.0");
    let other = json!({ "prevResult": { "interfaces": [{ "name": "eth0", "sandbox": "/run/netns/x" }] } });
    let text = check(&node, other).error(105, "1.0.0");
    assert!(text.contains("eth0"), "{text}");
    assert_eq!(agent.requests(), []);
}

#[test]
fn what_the_agent_finds_is_passed_on() {
    let node = Node::new();
    let _agent = Agent::start(&node.socket(), refusing(409, 105));
    let text = check(&node, json!({ "prevResult": chained(&node) })).error(105, "1.0.0");
    assert!(text.contains("10.244.1.0/24"), "{text}");
}

#[test]
fn without_an_agent_it_is_to_be_tried_again() {
    let node = Node::new();
    check(&node, json!({ "prevResult": chained(&node) })).error(11, "1.0.0");
}
