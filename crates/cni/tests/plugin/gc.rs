//! GC: which network, which attachments.

use serde_json::{Value, json};
use tombolo_cni::agent::{AttachmentName, CollectRequest};

use crate::agent::{Agent, Reply, refusing};
use crate::run::{Node, Outcome, plugin, run};

fn gc(node: &Node, more: Value) -> Outcome {
    let environment = [
        ("CNI_COMMAND", "GC".to_owned()),
        ("CNI_PATH", "/opt/cni/bin".to_owned()),
    ];
    run(plugin(), &environment, node.config("1.1.0", more).as_bytes())
}

#[test]
fn the_agent_hears_the_network_and_what_is_valid() {
    let node = Node::new();
    let agent = Agent::start(&node.socket(), |_| {
        Reply::Status(200, br#"{"attachments":[],"strays":["link x"]}"#.to_vec())
    });
    let valid = json!([{ "containerID": "a", "ifname": "eth0" }, { "containerID": "b", "ifname": "eth1" }]);
    // As libcni does, with both keys; in an environment that names no container.
    let keys = json!({ "name": "blue", "cni.dev/valid-attachments": valid, "cni.dev/attachments": valid });
    gc(&node, keys).silent_success();
    let request = &agent.requests()[0];
    assert_eq!(
        (request.method.as_str(), request.path.as_str()),
        ("POST", "/v1/collect")
    );
    let asked: CollectRequest = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(asked.network, "blue");
    let name = |id: &str, ifname: &str| AttachmentName {
        container_id: id.into(),
        ifname: ifname.into(),
    };
    assert!(asked.valid.contains(&name("a", "eth0")) && asked.valid.contains(&name("b", "eth1")));
    assert!(
        asked
            .valid
            .iter()
            .all(|v| v.container_id == "a" || v.container_id == "b")
    );
}

#[test]
fn what_is_not_said_removes_nothing() {
    let node = Node::new();
    let agent = Agent::start(&node.socket(), refusing(500, 103));
    let text = gc(&node, json!({})).error(7, "1.1.0");
    assert!(text.contains("cni.dev/valid-attachments"), "{text}");
    gc(
        &node,
        json!({ "cni.dev/valid-attachments": [{ "ifname": "eth0" }] }),
    )
    .error(6, "1.1.0");
    assert_eq!(agent.requests(), []);
}

#[test]
fn errors_are_passed_on() {
    let node = Node::new();
    let keys = json!({ "cni.dev/attachments": [] });
    gc(&node, keys.clone()).error(11, "1.1.0");
    let _agent = Agent::start(&node.socket(), refusing(500, 103));
    gc(&node, keys).error(103, "1.1.0");
}
