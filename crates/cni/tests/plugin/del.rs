//! DEL, with an agent and without.

use std::fs;

use serde_json::json;
use tombolo_cni::host_link_name;
use tombolo_cni::released::{self, Released};
use tombolo_netlink::Veth;
use tombolo_testkit::TestNamespace;

use crate::agent::{Agent, Reply, healthy};
use crate::run::{Node, plugin, run};

/// The environment of a runtime that remembers next to nothing.
fn bare_environment() -> Vec<(&'static str, String)> {
    vec![
        ("CNI_COMMAND", "DEL".into()),
        ("CNI_CONTAINERID", "3f1c0de".into()),
        ("CNI_IFNAME", "eth0".into()),
    ]
}

#[test]
fn the_agent_is_asked_and_nothing_else_is_touched() {
    let node = Node::new();
    let agent = Agent::start(&node.socket(), healthy);
    node.run("DEL", "1.0.0").silent_success();
    let config = node.config("0.3.1", json!({}));
    run(plugin(), &bare_environment(), config.as_bytes()).silent_success();
    for request in agent.requests() {
        assert_eq!(
            (request.method.as_str(), request.path.as_str()),
            ("DELETE", "/v1/endpoints/3f1c0de/eth0")
        );
    }
    assert_eq!(agent.requests().len(), 2);
    assert_eq!(node.state(), Vec::<String>::new());
}

#[test]
fn what_only_add_needs_does_not_stop_it() {
    let node = Node::new();
    let agent = Agent::start(&node.socket(), healthy);
    let mut environment = node.environment("DEL");
    environment[3].1 = "/run/netns/gone".into();
    environment[4].1 = "not pairs".into();
    let more = json!({
        "prevResult": 7, "dns": [], "ipam": { "type": "host-local" },
        "runtimeConfig": { "ips": "none" },
    });
    run(plugin(), &environment, node.config("1.1.0", more).as_bytes()).silent_success();
    assert_eq!(agent.requests().len(), 1);
}

#[test]
fn interface_names_arrive_as_they_are() {
    let node = Node::new();
    let agent = Agent::start(&node.socket(), healthy);
    let mut environment = bare_environment();
    environment[2].1 = "a?b#ü".into();
    run(plugin(), &environment, node.config("1.0.0", json!({})).as_bytes()).silent_success();
    let path = agent.requests()[0].path.clone();
    assert_eq!(path, "/v1/endpoints/3f1c0de/a%3Fb%23%C3%BC");
    let last = path.rsplit('/').next().unwrap();
    assert_eq!(tombolo_cni::agent::decode_path_segment(last).unwrap(), "a?b#ü");
}

#[test]
fn without_an_agent_the_link_goes_and_a_record_stays() {
    // A node's own namespace, so that the host's side of the link lies in no other test's way.
    let host = TestNamespace::new("host");
    let node = Node::new();
    let link = host_link_name("3f1c0de", "eth0");
    let stranger = host_link_name("3f1c0de", "eth1");
    for (name, peer) in [(&link, "eth0"), (&stranger, "eth1")] {
        let veth = Veth {
            name,
            peer_name: peer,
            peer_namespace: Some(node.pod.namespace()),
            ..Veth::default()
        };
        host.netlink().add_veth(&veth).unwrap();
    }
    // A socket that nobody listens at any more, as a killed agent leaves it.
    drop(std::os::unix::net::UnixListener::bind(node.socket()).unwrap());

    let config = node.config("1.0.0", json!({}));
    for _ in 0..2 {
        let command = host.command(env!("CARGO_BIN_EXE_tombolo-cni"));
        run(command, &bare_environment(), config.as_bytes()).silent_success();
        assert!(host.netlink().link(&link).unwrap().is_none());
        assert!(node.pod.netlink().link("eth0").unwrap().is_none());
        assert!(host.netlink().link(&stranger).unwrap().is_some());
        let record = Released {
            container_id: "3f1c0de".into(),
            if_name: "eth0".into(),
        };
        assert_eq!(released::list(&node.state_dir()).unwrap(), [record]);
        assert_eq!(node.state().len(), 1);
    }
}

#[test]
fn no_record_means_no_success() {
    let node = Node::new();
    fs::write(node.state_dir(), "a file where a folder should be").unwrap();
    let error = node.run("DEL", "1.0.0").error(5, "1.0.0");
    assert!(error.contains("state/released"), "{error}");
}

#[test]
fn an_agent_that_comes_up_meanwhile_is_asked_and_the_record_taken_back() {
    let node = Node::new();
    // It ends in the midst of the first request, and answers the second.
    let mut first = true;
    let agent = Agent::start(&node.socket(), move |request| {
        if std::mem::take(&mut first) {
            Reply::Raw(Vec::new())
        } else {
            healthy(request)
        }
    });
    node.run("DEL", "1.0.0").silent_success();
    assert_eq!(agent.requests().len(), 2);
    assert_eq!(node.state(), Vec::<String>::new());
}
