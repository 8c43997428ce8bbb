//! STATUS: 50 where no pod could be added, 51 where those that run may suffer too; each with its reason.

use nix::sys::signal::Signal;
use serde_json::json;
use tombolo_abi::Hook;
use tombolo_cni::host_link_name;
use tombolo_testkit::wait_for_some;

use super::check::{forget, with_tables};
use crate::DUAL;
use crate::common::{Added, DEADLINE, Node, Pod};

/// The answer's code and details; 0 where all is well.
fn status(node: &Node) -> (u64, String) {
    match node.status() {
        Ok(()) => (0, String::new()),
        Err(error) => (
            error["code"].as_u64().unwrap(),
            error["details"].as_str().unwrap_or_default().to_owned(),
        ),
    }
}

#[track_caller]
fn expect(node: &Node, code: u64, words: &[&str]) {
    let (found, details) = status(node);
    assert_eq!(found, code, "{details}");
    for word in words {
        assert!(details.contains(word), "{word:?} is not in {details:?}");
    }
}

#[test]
fn a_node_that_can_take_pods_says_nothing() {
    let mut node = Node::start(&DUAL);
    expect(&node, 0, &[]);
    let pod = Pod::new();
    let added = node.add(&pod).unwrap();
    expect(&node, 0, &[]);
    // A pod that has ended and is not deleted yet is no fault of the node's.
    let ended = Pod::new();
    node.add(&ended).unwrap();
    let name = host_link_name(&ended.id, "eth0");
    node.namespace.netlink().delete_link(&name).unwrap();
    expect(&node, 0, &[]);
    node.del(&ended);
    node.end_agent(Signal::SIGTERM);
    expect(&node, 50, &["agent.sock"]);
    node.start_agent();
    node.wait_ready();
    expect(&node, 0, &[]);
    node.expect_only(&[(&pod, &added)]);
}

#[test]
fn a_node_without_a_block_or_without_settings_cannot() {
    let mut node = Node::new(&[]);
    node.start_agent();
    let details = wait_for_some(DEADLINE, "an answer", || {
        let (code, details) = status(&node);
        (code == 50 && details.contains("no block of pod addresses")).then_some(details)
    });
    assert!(details.contains("operator"), "{details}");

    let mut lost = Node::new(&DUAL);
    lost.lose_api_server();
    lost.start_agent();
    wait_for_some(DEADLINE, "an answer", || {
        let (code, details) = status(&lost);
        (code == 50 && details.contains("has not read the Network")).then_some(())
    });
}

#[test]
fn a_family_without_an_address_is_enough_to_say_so() {
    // Three of four, as the first is never given; and many of the other family.
    let node = Node::start(&["10.244.1.0/30", "fd00:10:244::1:0/112"]);
    let pods: Vec<Pod> = (0..3).map(|_| Pod::new()).collect();
    let added: Vec<Added> = pods.iter().map(|pod| node.add(pod).unwrap()).collect();
    expect(
        &node,
        50,
        &["no IPv4 address is left", "10.244.1.0/30", "3 in use"],
    );
    let error = node.add(&Pod::new()).unwrap_err();
    assert_eq!(error["code"], json!(101), "STATUS was right");
    // A freed address rests, and cannot be given either.
    node.del(&pods[0]);
    expect(&node, 50, &["2 in use and 1 resting"]);
    for (pod, added) in pods.iter().zip(&added).skip(1) {
        node.check(pod, &added.printed).unwrap();
    }
}

#[test]
fn pods_whose_rows_or_programs_are_broken_are_told_as_impaired() {
    let node = Node::start(&DUAL);
    let (pod, other) = (Pod::new(), Pod::new());
    let added = node.add(&pod).unwrap();
    node.add(&other).unwrap();
    let key = added.address(true).into();
    with_tables(&node, |tables| {
        assert!(tables.endpoints().remove(&key).unwrap());
    });
    let row = format!("no row of {}", added.address(true));
    expect(&node, 51, &[&pod.id, &row]);
    node.del(&pod);
    expect(&node, 0, &[]);

    forget(&node, &other, Hook::FromPod);
    forget(&node, &other, Hook::ToPod);
    expect(
        &node,
        51,
        &[&other.id, "no program from_pod", "no program to_pod"],
    );
}

#[test]
fn a_state_folder_that_is_not_there_is_told() {
    let node = Node::start(&DUAL);
    let away = node.state_dir().with_extension("away");
    std::fs::rename(node.state_dir(), &away).unwrap();
    expect(&node, 50, &["state folder"]);
    std::fs::rename(&away, node.state_dir()).unwrap();
    expect(&node, 0, &[]);
}
