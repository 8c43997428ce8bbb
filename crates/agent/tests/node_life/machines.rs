//! Machines are replaced, come back, and lose their place.

use nix::sys::signal::Signal;
use serde_json::json;
use tombolo_testkit::{ask_tcp, wait_for};

use crate::common::fabric::{Fabric, addresses};
use crate::common::{DEADLINE, Node, Pod};
use crate::{Conversation, Running, ips};

/// Waits until a node's pods can be spoken with from another node's, which does so by the node's addresses of now.
#[track_caller]
fn wait_reached(from: &Running, to: &Running) {
    for v4 in [true, false] {
        wait_for(DEADLINE, "a pod to be reached", || {
            ask_tcp(&from.pod.namespace, to.server(v4), b"hello")
                .is_ok_and(|seen| seen.ip() == from.address(v4))
        });
    }
}

fn messages(node: &Node) -> String {
    node.get("/v1/status")["messages"].to_string()
}

#[test]
fn a_new_machine_takes_the_place_of_the_old_one_for_good() {
    let fabric = Fabric::new("direct");
    let (mut old, two) = (fabric.node(1), fabric.node(2));
    let b = Running::on(&two);
    let before = Running::on(&old);
    wait_reached(&b, &before);
    let spec = old.api.node("node-1").spec;

    // The old one dies, and another one with other addresses and MACs is put in its place. The pods that it
    // starts get the same addresses, as the block is the same.
    old.end_agent(Signal::SIGKILL);
    let mut new = fabric.machine("node-1", "port9", &addresses(1, 99));
    new.start_agent();
    new.wait_ready();
    let after = Running::on(&new);
    assert_eq!(after.added.addresses, before.added.addresses);
    wait_reached(&b, &after);
    let mut talks = Conversation::between(&b, &after);
    let object = new.api.node("node-1");
    assert_eq!(object.spec, spec, "index and blocks are the operator's");
    assert_eq!(object.status.unwrap().addresses, ips(&addresses(1, 99)));

    // The old one comes back, with all that it had: once as if the network had been cut off from it, once
    // rebooted. It stands back, and says so.
    for reboot in [false, true] {
        if reboot {
            old.end_agent(Signal::SIGKILL);
            old.reboot(vec![]);
            fabric.plug("port1", &old, "eth0");
            old.settle("eth0", &addresses(1, 11));
        }
        old.start_agent();
        wait_for(DEADLINE, "the old machine to stand back", || {
            old.request("GET", "/v1/status", b"")
                .is_ok_and(|(_, status)| status["ready"] == json!(false) && status["messages"] != json!([]))
        });
        let said = messages(&old);
        assert!(said.contains("another machine is node node-1 now"), "{said}");
        assert!(said.contains("delete"), "{said} does not say what to do");
        let error = old.add(&Pod::new()).unwrap_err();
        assert_eq!(error["code"], json!(11), "{error}");
        for talk in &mut talks {
            assert!(talk.goes_on(), "the new machine's pods notice nothing");
        }
        let object = new.api.node("node-1");
        assert_eq!(object.status.unwrap().addresses, ips(&addresses(1, 99)));
    }
    // Both rest: nobody writes the same object by turns.
    let api = new.api.clone();
    let version = || api.node("node-1").metadata.resource_version;
    let settled = version();
    new.end_agent(Signal::SIGTERM);
    new.start_agent();
    new.wait_ready();
    assert_eq!(version(), settled);
    // Whoever wants the old one back says so.
    new.end_agent(Signal::SIGTERM);
    old.end_agent(Signal::SIGTERM);
    std::fs::remove_file(old.state_dir().join("machine")).unwrap();
    old.start_agent();
    old.wait_ready();
    wait_for(DEADLINE, "the old machine to be the node again", || {
        old.api.node("node-1").status.unwrap().addresses == ips(&addresses(1, 11))
    });
}

#[test]
fn a_node_is_deleted_and_added_again() {
    let fabric = Fabric::new("vxlan");
    let (one, two) = (fabric.node(1), fabric.node(2));
    let (a, b) = (Running::on(&one), Running::on(&two));
    wait_reached(&b, &a);

    one.api.delete_node("node-1");
    wait_for(DEADLINE, "the node to be out of the cluster", || {
        !two.get("/v1/routes").to_string().contains("10.244.1.0")
    });
    // Its block may be given to another node now: no pod gets an address of it.
    wait_for(DEADLINE, "the node to know", || {
        one.get("/v1/status")["ready"] == json!(false)
    });
    let refused = one.add(&Pod::new()).unwrap_err();
    assert_eq!(refused["code"], json!(11), "{refused}");
    assert!(
        messages(&one).contains("NodeNetwork node-1"),
        "{}",
        messages(&one)
    );
    // Not after a restart either, when all that the agent has is what it kept.
    one.expect_only(&[(&a.pod, &a.added)]);

    // It comes back with another block, as the operator has given the old one to a third node. What ran, ran with
    // addresses that are not the node's any more; what starts now has others.
    one.api.create_node("node-3", 3, &["10.244.1.0/24"]);
    one.api
        .create_node("node-1", 1, &["10.244.7.0/24", "fd00:10:244::7:0/112"]);
    one.wait_ready();
    let fresh = Running::on(&one);
    assert!(fresh.address(true).to_string().starts_with("10.244.7."));
    wait_reached(&b, &fresh);
    assert!(messages(&one).contains("outside"), "{}", messages(&one));
    one.del(&a.pod);
    one.expect_only(&[(&fresh.pod, &fresh.added)]);
}
