//! STATUS: the agent's answer, or that there is none.

use serde_json::json;

use crate::agent::{Agent, Reply, healthy, refusing};
use crate::run::{Node, Outcome, plugin, run};

fn status(node: &Node, more: serde_json::Value) -> Outcome {
    let config = node.config("1.1.0", more);
    run(
        plugin(),
        &[("CNI_COMMAND", "STATUS".to_owned())],
        config.as_bytes(),
    )
}

#[test]
fn a_ready_agent_is_a_silent_success() {
    let node = Node::new();
    let agent = Agent::start(&node.socket(), healthy);
    status(&node, json!({})).silent_success();
    let request = &agent.requests()[0];
    assert_eq!(
        (request.method.as_str(), request.path.as_str()),
        ("GET", "/v1/ready")
    );
}

#[test]
fn the_agents_codes_are_passed_on() {
    for code in [50, 51] {
        let node = Node::new();
        let _agent = Agent::start(&node.socket(), refusing(503, code));
        let text = status(&node, json!({})).error(code, "1.1.0");
        assert!(text.contains("10.244.1.0/24"), "{text}");
    }
}

#[test]
fn without_a_word_from_the_agent_nothing_can_be_added() {
    let node = Node::new();
    let text = status(&node, json!({})).error(50, "1.1.0");
    assert!(text.contains("agent.sock"), "{text}");
    let _agent = Agent::start(&node.socket(), |_| Reply::Hang);
    let text = status(&node, json!({ "timeoutSeconds": 1 })).error(50, "1.1.0");
    assert!(text.contains("no answer within"), "{text}");
    let confused = Node::new();
    let _agent = Agent::start(&confused.socket(), |_| Reply::Raw(b"HELLO\r\n\r\n".to_vec()));
    status(&confused, json!({})).error(50, "1.1.0");
}

#[test]
fn a_configuration_that_no_add_would_take_is_told() {
    let node = Node::new();
    let _agent = Agent::start(&node.socket(), healthy);
    status(&node, json!({ "ipam": { "type": "host-local" } })).error(2, "1.1.0");
}
