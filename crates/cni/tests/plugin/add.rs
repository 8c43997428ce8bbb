//! ADD with an agent that is well.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tombolo_cni::Version;

use crate::agent::{Agent, healthy};
use crate::run::{Node, plugin, run, run_with_full_stdout};

/// Results as they were reviewed, one file a version.
fn reviewed(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/results")
        .join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The result with the pod's namespace, whose path differs from run to run, under a fixed name.
fn result(node: &Node, mut document: Value) -> Value {
    for interface in document["interfaces"].as_array_mut().unwrap() {
        if interface["sandbox"] == node.pod.path().display().to_string() {
            interface["sandbox"] = "POD".into();
        }
    }
    document
}

#[test]
fn the_result_is_in_the_version_asked_for() {
    for version in Version::ALL {
        let node = Node::new();
        let _agent = Agent::start(&node.socket(), healthy);
        let document = result(&node, node.run("ADD", version.as_str()).success());
        let expected: Value = serde_json::from_str(&reviewed(&format!("{version}.json"))).unwrap();
        assert_eq!(document, expected, "{version}: {document:#}");
    }
}

#[test]
fn behind_other_plugins_their_result_is_kept_and_ours_appended() {
    for version in Version::ALL {
        let node = Node::new();
        let agent = Agent::start(&node.socket(), healthy);
        // What a plugin of 1.1.0 says, with every field there is, and addresses as before 1.0.0.
        let before: Value = serde_json::from_str(&reviewed("previous.json")).unwrap();
        let config = node.config(version.as_str(), json!({ "prevResult": before }));
        let document = result(
            &node,
            run(plugin(), &node.environment("ADD"), config.as_bytes()).success(),
        );
        let expected: Value = serde_json::from_str(&reviewed(&format!("{version}-chained.json"))).unwrap();
        assert_eq!(document, expected, "{version}: {document:#}");
        assert_eq!(agent.requests().len(), 1);
    }
}

#[test]
fn the_agent_hears_what_the_runtime_said() {
    let node = Node::new();
    let agent = Agent::start(&node.socket(), healthy);
    let mut environment = node.environment("ADD");
    environment[4].1 = "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_UID=9d".into();
    let more = json!({
        "cniVersions": ["0.4.0", "1.0.0", "1.1.0"],
        "runtimeConfig": { "ips": ["10.244.1.7/24"], "bandwidth": { "egressRate": 1_000_000 },
            "portMappings": [{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "192.0.2.1" }] },
        "dns": { "nameservers": ["10.96.0.10"] },
    });
    let document = run(plugin(), &environment, node.config("1.1.0", more).as_bytes()).success();
    assert_eq!(document["dns"], json!({ "nameservers": ["10.96.0.10"] }));

    let request = agent.requests()[0].add();
    assert_eq!(request.container_id, "3f1c0de");
    assert_eq!(request.if_name, "eth0");
    assert_eq!(request.network.as_deref(), Some("tombolo"));
    assert_eq!(request.netns, node.pod.path().display().to_string());
    assert_eq!(request.pod_namespace.as_deref(), Some("shop"));
    assert_eq!(request.pod_name.as_deref(), Some("web-0"));
    assert_eq!(request.pod_uid.as_deref(), Some("9d"));
    assert_eq!(
        request.requested_ips,
        ["10.244.1.7".parse::<std::net::IpAddr>().unwrap()]
    );
    assert!(request.egress_limit);
    let ports: Vec<String> = request.host_ports.iter().map(ToString::to_string).collect();
    assert_eq!(
        (ports, request.host_ports[0].container_port.get()),
        (vec!["192.0.2.1:8080/TCP".to_owned()], 80)
    );
}

#[test]
fn an_address_may_be_asked_for_by_an_argument() {
    let node = Node::new();
    let agent = Agent::start(&node.socket(), healthy);
    let mut environment = node.environment("ADD");
    environment[4].1 = "IP=10.244.1.9/24".into();
    let config = node.config("1.0.0", json!({}));
    run(plugin(), &environment, config.as_bytes()).success();
    let asked = agent.requests()[0].add().requested_ips;
    assert_eq!(asked, ["10.244.1.9".parse::<std::net::IpAddr>().unwrap()]);
    environment[4].1 = "IP=ten".into();
    run(plugin(), &environment, config.as_bytes()).error(7, "1.0.0");
    assert_eq!(agent.requests().len(), 1);
}

#[test]
fn a_result_without_addresses_goes_before_ours() {
    // What `tuning` and its like hand on when nobody before them gave an address.
    let node = Node::new();
    let _agent = Agent::start(&node.socket(), healthy);
    let before = json!({
        "cniVersion": "1.0.0",
        "interfaces": [{ "name": "lo", "mac": "00:00:00:00:00:00", "sandbox": node.pod.path() }],
        "ips": null, "dns": {},
    });
    let config = node.config("1.0.0", json!({ "prevResult": before }));
    let document = run(plugin(), &node.environment("ADD"), config.as_bytes()).success();
    assert_eq!(document["interfaces"][0]["name"], "lo");
    assert_eq!(document["interfaces"][2]["name"], "eth0");
    assert_eq!(document["ips"][0]["interface"], 2);
    assert_eq!(document["ips"].as_array().unwrap().len(), 2);
}

#[test]
fn what_the_runtime_cannot_be_told_is_undone() {
    let node = Node::new();
    let agent = Agent::start(&node.socket(), healthy);
    let config = node.config("1.0.0", json!({}));
    let status = run_with_full_stdout(plugin(), &node.environment("ADD"), config.as_bytes());
    assert_eq!(status, Some(1));
    let requests = agent.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(
        (requests[1].method.as_str(), requests[1].path.as_str()),
        ("DELETE", "/v1/endpoints/3f1c0de/eth0")
    );
}
