//! GC: what no valid attachment of its network holds goes, and nothing else does.

use std::collections::BTreeSet;
use std::path::Path;
use std::thread;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tombolo_cni::agent::{AttachmentName, CollectRequest, CollectResponse};
use tombolo_cni::{ContainerId, InterfaceName, host_link_name, released};
use tombolo_netlink::Veth;
use tombolo_testkit::wait_for;

use super::check::with_tables;
use crate::DUAL;
use crate::common::{Added, Call, DEADLINE, Node, Pod, Traces, silence};

/// GC of the network `tombolo`, asked of the agent itself, which says what it has removed.
pub fn collect(node: &Node, valid: &[&Pod]) -> CollectResponse {
    let valid = valid.iter().map(|pod| name(pod)).collect();
    let network = "tombolo".into();
    let request = serde_json::to_vec(&CollectRequest { network, valid }).unwrap();
    let (status, answer) = node.request("POST", "/v1/collect", &request).unwrap();
    assert_eq!(status, 200, "{answer}");
    serde_json::from_value(answer).unwrap()
}

fn name(pod: &Pod) -> AttachmentName {
    AttachmentName {
        container_id: pod.id.clone(),
        ifname: "eth0".into(),
    }
}

#[test]
fn what_is_not_valid_goes_and_other_networks_stay() {
    let node = Node::start(&DUAL);
    let pods: Vec<Pod> = (0..4).map(|_| Pod::new()).collect();
    let added: Vec<Added> = pods.iter().map(|pod| node.add(pod).unwrap()).collect();
    let blue = Pod::new();
    let path = blue.namespace.path();
    let blue_add = Call {
        config: json!({ "name": "blue" }),
        ..Call::new("ADD", &blue.id, &path)
    };
    let blue_added = node.add_by(&blue_add).unwrap();
    // One that nobody named a network for.
    let nameless = Pod::new();
    let request = json!({"containerId": nameless.id, "ifName": "eth0", "netns": nameless.namespace.path()});
    let (status, answer) = node
        .request("POST", "/v1/endpoints", request.to_string().as_bytes())
        .unwrap();
    assert_eq!(status, 200, "{answer}");

    node.gc(&[&pods[0], &pods[2]]).unwrap();
    assert_eq!(
        node.traces().links,
        [&pods[0], &pods[2], &blue, &nameless]
            .map(|pod| host_link_name(&pod.id, "eth0"))
            .into()
    );
    assert_eq!(collect(&node, &[&pods[0], &pods[2]]), CollectResponse::default());
    for (pod, added) in [(&pods[0], &added[0]), (&pods[2], &added[2]), (&blue, &blue_added)] {
        node.check(pod, &added.printed).unwrap();
    }
    node.del(&nameless);
    // By the older key, and of the other network.
    let gc = Call {
        version: "1.1.0",
        config: json!({ "name": "blue", "cni.dev/attachments": [] }),
        ..Call::new("GC", "", Path::new(""))
    };
    silence(&node.call(&gc)).unwrap();
    node.expect_only(&[(&pods[0], &added[0]), (&pods[2], &added[2])]);
    let everything = collect(&node, &[]);
    assert_eq!(
        everything.attachments.into_iter().collect::<BTreeSet<_>>(),
        [name(&pods[0]), name(&pods[2])].into()
    );
    node.expect_only(&[]);
}

/// Leaves of everything something that belongs to nobody.
fn leave_strays(node: &Node) {
    let link = host_link_name("nobody", "eth0");
    let pair = Veth {
        name: &link,
        peer_name: "other",
        ..Veth::default()
    };
    node.namespace.netlink().add_veth(&pair).unwrap();
    with_tables(node, |tables| {
        let stray: std::net::IpAddr = "10.244.1.200".parse().unwrap();
        let row = tombolo_abi::Endpoint {
            ifindex: 77,
            mac: [2; 6],
            mtu: 1450,
            ..tombolo_abi::Endpoint::default()
        };
        tables.endpoints().insert(&stray.into(), &row).unwrap();
        let link = node.namespace.netlink().require_link(&link).unwrap();
        tables
            .attach(tombolo_abi::Hook::FromPod, &link.name, link.index)
            .unwrap();
    });
    std::fs::write(node.state_dir().join("adding/cut-short@eth0"), "").unwrap();
    let id = ContainerId::parse("killed").unwrap();
    released::write(&node.state_dir(), &id, &InterfaceName::parse("eth0").unwrap()).unwrap();
}

#[test]
fn what_belongs_to_nobody_goes_once() {
    let node = Node::start(&DUAL);
    let pod = Pod::new();
    let added = node.add(&pod).unwrap();
    leave_strays(&node);
    let removed = collect(&node, &[&pod]);
    assert_eq!(removed.attachments, []);
    for word in [
        "the row of 10.244.1.200",
        "link tmb",
        "ADD of container \"cut-short\"",
        "DEL of container \"killed\"",
    ] {
        assert!(
            removed.strays.iter().any(|s| s.contains(word)),
            "{word}: {removed:?}"
        );
    }
    node.expect_only(&[(&pod, &added)]);
    assert_eq!(collect(&node, &[&pod]), CollectResponse::default());
}

#[test]
fn it_goes_on_after_errors_and_reports_them_all() {
    let node = Node::start(&DUAL);
    let (stays, goes) = (Pod::new(), Pod::new());
    let added = node.add(&stays).unwrap();
    node.add(&goes).unwrap();
    leave_strays(&node);
    // Folders where files should be cannot be removed as such.
    let folders = ["adding/first@eth0", "released/second@eth0"].map(|f| node.state_dir().join(f));
    for folder in &folders {
        std::fs::create_dir(folder).unwrap();
    }
    let error = node.gc(&[&stays]).unwrap_err();
    assert_eq!(error["code"], json!(103));
    let details = error["details"].as_str().unwrap();
    for word in ["first", "second"] {
        assert!(details.contains(word), "{word} is not in {details:?}");
    }
    for folder in &folders {
        std::fs::remove_dir(folder).unwrap();
    }
    node.expect_only(&[(&stays, &added)]);
    node.gc(&[&stays]).unwrap();
}

#[test]
fn bad_lists_remove_nothing() {
    let node = Node::start(&DUAL);
    let pod = Pod::new();
    let added = node.add(&pod).unwrap();
    let bad: [(Value, u64); 4] = [
        (json!({}), 7),
        (json!({ "cni.dev/valid-attachments": {} }), 6),
        (
            json!({ "cni.dev/valid-attachments": [{ "containerID": pod.id }] }),
            6,
        ),
        (
            json!({ "cni.dev/valid-attachments": [], "cni.dev/attachments": "all" }),
            6,
        ),
    ];
    for (config, code) in bad {
        let gc = Call {
            version: "1.1.0",
            config: config.clone(),
            ..Call::new("GC", "", Path::new(""))
        };
        let error = silence(&node.call(&gc)).unwrap_err();
        assert_eq!(error["code"], json!(code), "{config}: {error}");
        node.expect_only(&[(&pod, &added)]);
    }
}

/// Waits until somebody pauses at the step that was armed.
fn wait_paused(node: &Node) {
    wait_for(DEADLINE, "somebody to pause", || node.paused_file().exists());
}

#[test]
fn an_add_under_way_is_waited_for_and_left_alone() {
    let node = Node::start(&DUAL);
    let (stale, under_way, late) = (Pod::new(), Pod::new(), Pod::new());
    node.add(&stale).unwrap();
    node.arm("AddLinkMade", "pause");
    let (added, added_late) = thread::scope(|scope| {
        let add = scope.spawn(|| node.add(&under_way).unwrap());
        wait_paused(&node);
        let gc = scope.spawn(|| collect(&node, &[]));
        // The GC has all turns, or waits for the last, once others have to wait.
        let late = scope.spawn(|| node.add(&late).unwrap());
        let stands = |pod: &Pod| {
            node.namespace
                .netlink()
                .link(&host_link_name(&pod.id, "eth0"))
                .unwrap()
        };
        for _ in 0..20 {
            assert!(!gc.is_finished(), "GC ran beside an ADD");
            assert!(stands(&stale).is_some(), "GC worked beside an ADD");
            thread::sleep(std::time::Duration::from_millis(10));
        }
        std::fs::remove_file(node.paused_file()).unwrap();
        let removed = gc.join().unwrap();
        assert!(removed.attachments.contains(&name(&stale)));
        assert!(
            !removed.attachments.contains(&name(&under_way)),
            "its ADD was under way"
        );
        (add.join().unwrap(), late.join().unwrap())
    });
    // The other was late, or early and not valid: a GC may come before or after it.
    if node.traces().links.len() == 2 {
        node.expect_only(&[(&under_way, &added), (&late, &added_late)]);
        node.check(&late, &added_late.printed).unwrap();
    } else {
        node.expect_only(&[(&under_way, &added)]);
    }
    node.check(&under_way, &added.printed).unwrap();
}

#[test]
fn an_add_that_nobody_waits_for_is_undone() {
    let node = Node::start(&DUAL);
    let pod = Pod::new();
    node.arm("AddRunning", "pause");
    let path = pod.namespace.path();
    let mut plugin = node.start_plugin(&Call::new("ADD", &pod.id, &path));
    wait_paused(&node);
    plugin.signal(Signal::SIGKILL);
    plugin.wait(DEADLINE);
    thread::scope(|scope| {
        // The runtime follows with a DEL, which waits for its turn.
        let del = scope.spawn(|| node.del(&pod));
        std::fs::remove_file(node.paused_file()).unwrap();
        del.join().unwrap();
    });
    node.expect_only(&[]);

    // And without a DEL.
    node.arm("AddRunning", "pause");
    let mut plugin = node.start_plugin(&Call::new("ADD", &pod.id, &path));
    wait_paused(&node);
    plugin.signal(Signal::SIGKILL);
    plugin.wait(DEADLINE);
    std::fs::remove_file(node.paused_file()).unwrap();
    wait_for(DEADLINE, "the ADD to be undone", || {
        node.traces() == Traces::default()
    });
    node.expect_only(&[]);
}
