//! Bad input, and agents that are not well: the specified error on stdout, exit status 1, nothing
//! else printed, nothing asked of the agent that should not be, nothing written.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;
use tombolo_cni::CONFIG_MAX;

use crate::agent::{Agent, Reply, healthy, made, refusing, response};
use crate::run::{Node, plugin, run};

type Change = (&'static str, Option<String>);

/// Each row: a variable's new value, and which code and which word the error has.
#[test]
fn variables() {
    let node = Node::new();
    let agent = Agent::start(&node.socket(), healthy);
    let file = node.folder.path().join("file");
    fs::write(&file, "not a namespace").unwrap();
    let fifo = node.folder.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();

    let set = |name, value: &str| (name, Some(value.to_owned()));
    let both: Vec<(Change, u32)> = vec![
        (("CNI_COMMAND", None), 4),
        (set("CNI_COMMAND", "add"), 4),
        (("CNI_CONTAINERID", None), 4),
        (set("CNI_CONTAINERID", ""), 4),
        (set("CNI_CONTAINERID", "../../etc/passwd"), 4),
        (set("CNI_CONTAINERID", ".hidden"), 4),
        (set("CNI_CONTAINERID", "a b"), 4),
        (set("CNI_CONTAINERID", &"a".repeat(300)), 4),
        (("CNI_IFNAME", None), 4),
        (set("CNI_IFNAME", "sixteen-letters0"), 4),
        (set("CNI_IFNAME", ".."), 4),
        (set("CNI_IFNAME", "a/b"), 4),
        (set("CNI_IFNAME", "a:b"), 4),
        (set("CNI_IFNAME", "a b"), 4),
        (set("CNI_IFNAME", "eth%d"), 4),
    ];
    let only_add: Vec<(Change, u32)> = vec![
        (("CNI_NETNS", None), 4),
        (set("CNI_NETNS", "/run/netns/none-of-that-name"), 4),
        (set("CNI_NETNS", "run/netns/relative"), 4),
        (set("CNI_NETNS", file.to_str().unwrap()), 4),
        (set("CNI_NETNS", fifo.to_str().unwrap()), 4),
        (set("CNI_NETNS", node.folder.path().to_str().unwrap()), 4),
        (set("CNI_NETNS", "/proc/self/ns/mnt"), 4),
        (set("CNI_NETNS", "/proc/self/ns/net"), 4),
        (
            set("CNI_NETNS", &format!("/proc/{}/ns/net", std::process::id())),
            4,
        ),
        (set("CNI_ARGS", "K8S_POD_NAME"), 4),
        (set("CNI_ARGS", "MYSTERY=1"), 4),
    ];
    let cases = both
        .iter()
        .flat_map(|case| [("ADD", case), ("DEL", case)])
        .chain(only_add.iter().map(|case| ("ADD", case)));
    for (command, ((name, value), code)) in cases {
        let mut environment = node.environment(command);
        environment.retain(|(other, _)| other != name);
        environment.extend(value.clone().map(|value| (*name, value)));
        let outcome = run(plugin(), &environment, node.config("0.4.0", json!({})).as_bytes());
        // Without an operation, stdin is not known to be a configuration.
        let version = if *name == "CNI_COMMAND" { "1.1.0" } else { "0.4.0" };
        let error = outcome.error(*code, version);
        assert!(error.contains(name), "{command} {name}={value:?}: {error}");
    }
    assert_eq!(agent.requests(), []);
    assert_eq!(node.state(), Vec::<String>::new());
}

#[test]
fn configurations() {
    let node = Node::new();
    let agent = Agent::start(&node.socket(), healthy);
    let config = |version: &str, more| node.config(version, more);
    let both = [
        (String::new(), 6, "1.1.0", "decode"),
        ("{".into(), 6, "1.1.0", "decode"),
        ("[]".into(), 6, "1.1.0", "decode"),
        ("[".repeat(100_000), 6, "1.1.0", "decode"),
        (config("1.0.0", json!({})) + "x", 6, "1.1.0", "decode"),
        (config("1.0.0", json!({ "name": 7 })), 6, "1.0.0", "decode"),
        (config("1.0.0", json!({ "name": "" })), 7, "1.0.0", "name"),
        (config("1.0.0", json!({ "name": "a/b" })), 7, "1.0.0", "a/b"),
        (
            config("1.0.0", json!({ "socket": "agent.sock" })),
            7,
            "1.0.0",
            "socket",
        ),
        (config("", json!({})), 1, "1.1.0", "0.1.0"),
        (config("0.2.0", json!({})), 1, "1.1.0", "0.2.0"),
        (config("9.9.9", json!({})), 1, "1.1.0", "9.9.9"),
        (
            config("1.0.0", json!({ "padding": "x".repeat(CONFIG_MAX) })),
            7,
            "1.1.0",
            "too large",
        ),
    ];
    let only_add = [
        (
            config("1.0.0", json!({ "prevResult": [] })),
            6,
            "1.0.0",
            "prevResult",
        ),
        (
            config(
                "1.0.0",
                json!({ "prevResult": { "ips": [{ "address": "10.0.0.300/8" }] } }),
            ),
            6,
            "1.0.0",
            "prevResult",
        ),
        (
            config("1.1.0", json!({ "ipam": { "type": "host-local" } })),
            2,
            "1.1.0",
            "host-local",
        ),
        (config("1.1.0", json!({ "ipMasq": true })), 2, "1.1.0", "ipMasq"),
        (
            config("0.3.0", json!({ "runtimeConfig": { "ips": ["x"] } })),
            7,
            "0.3.0",
            "ips",
        ),
    ];
    let cases = both
        .iter()
        .flat_map(|case| [("ADD", case), ("DEL", case)])
        .chain(only_add.iter().map(|case| ("ADD", case)));
    for (command, (stdin, code, version, word)) in cases {
        let error = run(plugin(), &node.environment(command), stdin.as_bytes()).error(*code, version);
        assert!(error.contains(word), "{command} {word}: {error}");
    }
    assert_eq!(agent.requests(), []);
    assert_eq!(node.state(), Vec::<String>::new());
}

#[test]
fn an_agent_that_is_not_there() {
    let node = Node::new();
    let error = node.run("ADD", "1.0.0").error(11, "1.0.0");
    assert!(
        error.contains("agent.sock") && error.contains("see that the agent runs"),
        "{error}"
    );
    // Nobody listens at the socket that a killed agent leaves.
    drop(std::os::unix::net::UnixListener::bind(node.socket()).unwrap());
    node.run("ADD", "1.0.0").error(11, "1.0.0");
    assert_eq!(node.state(), Vec::<String>::new());
}

#[test]
fn an_agent_that_hangs() {
    for command in ["ADD", "DEL"] {
        let node = Node::new();
        let agent = Agent::start(&node.socket(), |_| Reply::Hang);
        let config = node.config("1.0.0", json!({ "timeoutSeconds": 1 }));
        let start = Instant::now();
        let error = run(plugin(), &node.environment(command), config.as_bytes()).error(11, "1.0.0");
        assert!(error.contains("no answer within 1s"), "{error}");
        assert!(start.elapsed() >= Duration::from_secs(1));
        assert_eq!(agent.requests().len(), 1);
        // It is there and will answer the next DEL; a record would outlive the attachment.
        assert_eq!(node.state(), Vec::<String>::new());
    }
}

#[test]
fn an_agent_that_accepts_nobody() {
    let node = Node::new();
    let listener = std::os::unix::net::UnixListener::bind(node.socket()).unwrap();
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
    let _queue = std::os::unix::net::UnixStream::connect(node.socket()).unwrap();
    let config = node.config("1.0.0", json!({ "timeoutSeconds": 1 }));
    let error = run(plugin(), &node.environment("ADD"), config.as_bytes()).error(11, "1.0.0");
    assert!(error.contains("no answer within 1s"), "{error}");
}

#[test]
fn an_agent_that_talks_nonsense() {
    let good = response(200, &serde_json::to_vec(&made()).unwrap());
    let cases = [
        // Cut off: it ended, and may be there again later.
        (good[..good.len() - 1].to_vec(), 11),
        (good[..20].to_vec(), 11),
        (Vec::new(), 11),
        // Complete, and no answer.
        (response(200, b"{}"), 100),
        (response(200, b"not json"), 100),
        (response(500, b"not json"), 100),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec(), 100),
        (b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), 100),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n".to_vec(),
            100,
        ),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n".to_vec(), 100),
    ];
    for (answer, code) in cases {
        let node = Node::new();
        let text = String::from_utf8_lossy(&answer).into_owned();
        let agent = Agent::start(&node.socket(), move |_| Reply::Raw(answer.clone()));
        let outcome = node.run("ADD", "1.0.0");
        let error = outcome.error(code, "1.0.0");
        assert!(error.contains("agent.sock"), "{text:?}: {error}");
        // What it may have made is undone; what was cut off, by the runtime's DEL.
        let methods: Vec<_> = agent
            .requests()
            .into_iter()
            .map(|request| request.method)
            .collect();
        assert_eq!(
            methods,
            if code == 100 {
                vec!["POST", "DELETE"]
            } else {
                vec!["POST"]
            },
            "{text:?}"
        );
    }
}

#[test]
fn the_agents_own_errors_are_passed_on() {
    for (status, code) in [(409, 102), (503, 11), (500, 103), (507, 101), (400, 4)] {
        for command in ["ADD", "DEL"] {
            let node = Node::new();
            let agent = Agent::start(&node.socket(), refusing(status, code));
            let error = node.run(command, "1.0.0").error(code, "1.0.0");
            assert_eq!(error, "no address is left: block 10.244.1.0/24");
            assert_eq!(agent.requests().len(), 1);
            assert_eq!(node.state(), Vec::<String>::new());
        }
    }
}
