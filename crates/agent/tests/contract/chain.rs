//! Chains with other plugins, and addresses that the runtime asks for.

use std::net::IpAddr;
use std::path::Path;

use serde_json::{Value, json};

use crate::DUAL;
use crate::common::{Call, Node, Pod};

/// What Debian's own plugins print: the real ones, run in the node.
fn debian(node: &Node, plugin: &str, command: &str, pod: &Pod, config: Value) -> Value {
    let program = Path::new("/usr/lib/cni").join(plugin);
    assert!(
        program.exists(),
        "{} is not there; install containernetworking-plugins",
        program.display()
    );
    let mut run = node.namespace.command(program);
    run.env_clear()
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", &pod.id)
        .env("CNI_IFNAME", "eth0")
        .env("CNI_NETNS", pod.namespace.path())
        .env("CNI_PATH", "/usr/lib/cni")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped());
    let mut child = run.spawn().unwrap();
    use std::io::Write;
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(config.to_string().as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{plugin} {command}: {text}");
    serde_json::from_str(&text).unwrap_or(Value::Null)
}

#[test]
fn first_and_then_tuning() {
    let node = Node::start(&DUAL);
    let pod = Pod::new();
    let added = node.add(&pod).unwrap();
    let tuning = |result: &Value| {
        json!({
            "cniVersion": "1.0.0", "name": "tombolo", "type": "tuning", "prevResult": result,
            "mtu": 1280, "sysctl": { "net.ipv4.ip_default_ttl": "77" },
        })
    };
    let last = debian(&node, "tuning", "ADD", &pod, tuning(&added.printed));
    assert_eq!(last["ips"], added.printed["ips"], "{last}");
    let link = pod.namespace.netlink().require_link("eth0").unwrap();
    assert_eq!(link.mtu, 1280, "it has changed what the result says nothing of");
    node.check(&pod, &last).unwrap();
    debian(&node, "tuning", "CHECK", &pod, tuning(&last));
    debian(&node, "tuning", "DEL", &pod, tuning(&last));
    node.del(&pod);
    node.expect_only(&[]);
}

#[test]
fn behind_a_plugin_that_has_made_an_interface_without_an_address() {
    let node = Node::start(&DUAL);
    let pod = Pod::new();
    // `tuning` wants a result to hand on; what it hands on here lists the loopback device.
    let before = json!({
        "cniVersion": "1.0.0",
        "interfaces": [{ "name": "lo", "mac": "00:00:00:00:00:00", "sandbox": pod.namespace.path() }],
    });
    let config = json!({
        "cniVersion": "1.0.0", "name": "tombolo", "type": "tuning", "prevResult": before,
        "sysctl": { "net.ipv4.ip_default_ttl": "77" },
    });
    let handed_on = debian(&node, "tuning", "ADD", &pod, config);
    let path = pod.namespace.path();
    let added = node
        .add_by(&Call {
            config: json!({ "prevResult": handed_on }),
            ..Call::new("ADD", &pod.id, &path)
        })
        .unwrap();
    let interfaces = added.printed["interfaces"].as_array().unwrap();
    let names: Vec<_> = interfaces.iter().map(|i| i["name"].as_str().unwrap()).collect();
    assert_eq!((names[0], names[2]), ("lo", "eth0"));
    assert!(
        added.printed["ips"]
            .as_array()
            .unwrap()
            .iter()
            .all(|ip| ip["interface"] == json!(2))
    );
    node.check(&pod, &added.printed).unwrap();
    node.expect_only(&[(&pod, &added)]);
}

#[test]
fn an_address_that_is_asked_for_in_any_way_is_given() {
    let node = Node::start(&DUAL);
    let ways: [(Value, &str, IpAddr); 4] = [
        (
            json!({ "runtimeConfig": { "ips": ["10.244.1.200/24"] } }),
            "",
            "10.244.1.200".parse().unwrap(),
        ),
        (
            json!({ "args": { "cni": { "ips": ["fd00:10:244::1:77"] } } }),
            "",
            "fd00:10:244::1:77".parse().unwrap(),
        ),
        (json!({}), "IP=10.244.1.150", "10.244.1.150".parse().unwrap()),
        (
            json!({ "runtimeConfig": { "ips": ["10.244.1.100"] } }),
            "IP=10.244.1.101",
            "10.244.1.100".parse().unwrap(),
        ),
    ];
    for (config, args, wanted) in ways {
        let pod = Pod::new();
        let path = pod.namespace.path();
        let add = |id| Call {
            config: config.clone(),
            args,
            ..Call::new("ADD", id, &path)
        };
        let added = node.add_by(&add(&pod.id)).unwrap();
        assert!(
            added.addresses.contains(&wanted),
            "{wanted}: {:?}",
            added.addresses
        );
        assert_eq!(added.addresses.len(), 2, "the other family gets one, too");
        node.check(&pod, &added.printed).unwrap();
        // While somebody has it, nobody else does; and nothing is taken.
        let second = Pod::new();
        let path = second.namespace.path();
        let taken = Call {
            netns: &path,
            ..add(&second.id)
        };
        let error = node.add_by(&taken).unwrap_err();
        assert_eq!(error["code"], json!(101), "{error}");
        node.expect_only(&[(&pod, &added)]);
        node.del(&pod);
        // And a moment after, it rests.
        let error = node.add_by(&taken).unwrap_err();
        assert_eq!(error["code"], json!(11), "{error}");
    }
}
