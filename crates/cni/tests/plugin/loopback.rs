//! The same program under the name `loopback`: no agent, no state, just the pod's `lo`.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use tombolo_netlink::{LinkChange, Netlink};

use crate::run::{Node, Outcome, run};

/// A pod whose loopback device is down, as a runtime makes it.
fn node() -> Node {
    let node = Node::new();
    set_up(&node, false);
    symlink(env!("CARGO_BIN_EXE_tombolo-cni"), program(&node)).unwrap();
    node
}

fn program(node: &Node) -> PathBuf {
    node.folder.path().join("loopback")
}

fn set_up(node: &Node, up: bool) {
    let change = LinkChange {
        up: Some(up),
        ..LinkChange::default()
    };
    node.pod.run(|| {
        let mut netlink = Netlink::open().unwrap();
        let index = netlink.require_link("lo").unwrap().index;
        netlink.set_link(index, &change).unwrap();
    });
}

fn is_up(node: &Node) -> bool {
    node.pod
        .run(|| Netlink::open().unwrap().require_link("lo").unwrap().up)
}

/// With the configuration that containerd writes for itself, in that version.
fn execute(node: &Node, command: &str, version: &str, more: Value) -> Outcome {
    let mut config = json!({"cniVersion": version, "name": "cni-loopback", "type": "loopback"});
    config
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let environment = node.environment(command);
    run(
        Command::new(program(node)),
        &environment,
        config.to_string().as_bytes(),
    )
}

#[test]
fn it_brings_the_device_up_and_says_its_addresses() {
    let node = node();
    execute(&node, "CHECK", "1.0.0", json!({})).error(105, "1.0.0");
    for version in ["0.3.1", "1.0.0"] {
        let result = execute(&node, "ADD", version, json!({})).success();
        assert!(is_up(&node));
        assert_eq!(result["cniVersion"], version);
        assert_eq!(result["interfaces"].as_array().unwrap().len(), 1);
        assert_eq!(result["interfaces"][0]["name"], "lo");
        assert_eq!(
            result["interfaces"][0]["sandbox"],
            node.pod.path().display().to_string()
        );
        let ips: Vec<_> = result["ips"]
            .as_array()
            .unwrap()
            .iter()
            .map(|ip| &ip["address"])
            .collect();
        assert_eq!(ips, ["127.0.0.1/8", "::1/128"]);
    }
    execute(&node, "CHECK", "1.0.0", json!({})).silent_success();
    execute(&node, "STATUS", "1.1.0", json!({})).silent_success();
    execute(&node, "DEL", "1.0.0", json!({})).silent_success();
    assert!(is_up(&node), "it goes with the namespace");
    assert_eq!(node.state(), Vec::<String>::new());
}

#[test]
fn in_a_chain_the_result_of_those_before_is_handed_on() {
    let node = node();
    let before = json!({"cniVersion": "1.0.0", "ips": [{"address": "10.9.0.2/24"}]});
    let result = execute(&node, "ADD", "1.0.0", json!({"prevResult": before})).success();
    assert_eq!(result["ips"][0]["address"], "10.9.0.2/24");
    assert!(is_up(&node));
}

#[test]
fn a_namespace_that_is_gone_is_an_error_at_add_alone() {
    let node = node();
    let environment: Vec<_> = node
        .environment("ADD")
        .into_iter()
        .map(|(name, value)| match name {
            "CNI_NETNS" => (name, "/run/netns/gone".to_owned()),
            _ => (name, value),
        })
        .collect();
    let config = json!({"cniVersion": "1.0.0", "name": "cni-loopback", "type": "loopback"}).to_string();
    let text = run(Command::new(program(&node)), &environment, config.as_bytes()).error(4, "1.0.0");
    assert!(text.contains("/run/netns/gone"), "{text}");
    let mut environment = environment;
    environment[0].1 = "DEL".into();
    run(Command::new(program(&node)), &environment, config.as_bytes()).silent_success();
}
