//! Somebody shapes or filters a pod's link, as others may after our ADD: the agent notices, and the pod's packets
//! meet what was put there. `crates/cli/tests/chaining.rs` has the reference plugins themselves.
#![allow(clippy::unwrap_used, reason = "what panics here fails the test")]

mod common;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use common::{Added, DEADLINE, Node, Pod};
use nix::sys::signal::Signal;
use serde_json::json;
use tombolo_abi::{Addr, Endpoint};
use tombolo_cni::host_link_name;
use tombolo_testkit::{Packet, Server, Tap, ask_tcp, ask_udp, wait_for};

const DUAL: [&str; 2] = ["10.244.1.0/24", "fd00:10:244::1:0/112"];

/// A filter for all packets that does nothing.
const FILTER: &str = "u32 match u32 0 0 flowid 1:1";

/// A pod that is connected, and its link.
struct Connected {
    pod: Pod,
    added: Added,
    link: String,
}

impl Connected {
    fn new(node: &Node) -> Self {
        let pod = Pod::new();
        let added = node.add(&pod).unwrap();
        let link = host_link_name(&pod.id, "eth0");
        Self { pod, added, link }
    }

    /// The flags of its rows, which must be the same.
    fn flags(&self, node: &Node) -> u32 {
        let tables = tombolo_datapath::open_readonly(&node.pins()).unwrap();
        let rows = tables.endpoints();
        let flags = self.added.addresses.iter();
        let flags: BTreeSet<u32> = flags
            .map(|&a| rows.get(&Addr::from(a)).unwrap().unwrap().flags)
            .collect();
        // Of two rows that are being written, one may be of before.
        if flags.len() == 1 {
            flags.into_iter().next().unwrap()
        } else {
            u32::MAX
        }
    }

    #[track_caller]
    fn wait_flags(&self, node: &Node, wanted: u32, what: &str) {
        let description = format!("flags {wanted} after {what}");
        wait_for(DEADLINE, &description, || self.flags(node) == wanted);
    }

    /// Packets that left by the host side of its link.
    fn transmitted(&self, node: &Node) -> u64 {
        let output = node
            .namespace
            .command("ip")
            .args(["-s", "-j", "link", "show", "dev", &self.link])
            .output();
        let links: serde_json::Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
        links[0]["stats64"]["tx"]["packets"].as_u64().unwrap()
    }
}

fn tc(node: &Node, text: &str) {
    let status = node
        .namespace
        .command("tc")
        .args(text.split(' '))
        .status()
        .unwrap();
    assert!(status.success(), "tc {text}");
}

/// Asks a pod from another in both families, and gives the number of packets that met the link of the one asked.
fn ask(node: &Node, from: &Connected, to: &Connected) -> u64 {
    let before = to.transmitted(node);
    for v4 in [true, false] {
        let server = Server::start(&to.pod.namespace, SocketAddr::new(to.added.address(v4), 0));
        let seen = [
            ask_udp(&from.pod.namespace, server.address(), b"hello").unwrap(),
            ask_tcp(&from.pod.namespace, server.address(), &[7; 100_000]).unwrap(),
        ];
        assert_eq!(seen.map(|s| s.ip()), [from.added.address(v4); 2]);
    }
    to.transmitted(node) - before
}

#[test]
fn the_agent_notices_who_shapes_or_filters_a_link() {
    let node = Node::start(&DUAL);
    let [a, b] = [(); 2].map(|()| Connected::new(&node));
    assert_eq!(ask(&node, &a, &b), 0, "packets on the short way met the link");
    for (place, what, flags) in [
        (
            "root",
            "qdisc _ dev LINK root tbf rate 1gbit burst 1mb latency 50ms",
            Endpoint::SLOW_INGRESS,
        ),
        (
            "egress",
            "filter _ dev LINK egress protocol all prio 49000",
            Endpoint::SLOW_INGRESS,
        ),
        (
            "ingress",
            "filter _ dev LINK ingress protocol all prio 49000",
            Endpoint::SLOW_EGRESS,
        ),
    ] {
        let what = what.replace("LINK", &b.link);
        let filter = if place == "root" {
            String::new()
        } else {
            format!(" {FILTER}")
        };
        tc(&node, &(what.replace('_', "add") + &filter));
        b.wait_flags(&node, flags, &what);
        assert_eq!(a.flags(&node), 0, "the other pod is not concerned");
        let (met, answers) = (ask(&node, &a, &b), ask(&node, &b, &a));
        assert_eq!(met > 0, flags == Endpoint::SLOW_INGRESS, "{what}: {met}");
        // What the stack sends on leaves by the link of the one that it is for.
        assert_eq!(answers > 0, flags == Endpoint::SLOW_EGRESS, "{what}: {answers}");
        let root = format!("qdisc del dev {} root", b.link);
        tc(
            &node,
            &(if place == "root" {
                root
            } else {
                what.replace('_', "del")
            }),
        );
        b.wait_flags(&node, 0, "its removal");
        assert_eq!(ask(&node, &a, &b), 0, "{what} is gone");
    }
}

#[test]
fn what_changed_without_an_agent_counts_from_its_start_on() {
    let mut node = Node::start(&DUAL);
    let [a, b] = [(); 2].map(|()| Connected::new(&node));
    let tbf = format!("dev {} root tbf rate 1gbit burst 1mb latency 50ms", b.link);
    node.end_agent(Signal::SIGKILL);
    tc(&node, &format!("qdisc add {tbf}"));
    node.start_agent();
    node.wait_ready();
    // No event tells of it.
    assert_eq!(b.flags(&node), Endpoint::SLOW_INGRESS);
    assert!(ask(&node, &a, &b) > 0);
    node.end_agent(Signal::SIGTERM);
    node.start_agent();
    node.wait_ready();
    assert_eq!(b.flags(&node), Endpoint::SLOW_INGRESS);
    node.end_agent(Signal::SIGTERM);
    tc(&node, &format!("qdisc del dev {} root", b.link));
    node.start_agent();
    node.wait_ready();
    assert_eq!(b.flags(&node), 0);
    assert_eq!(ask(&node, &a, &b), 0);
}

/// Whether a packet of the pod with another pod's source is refused.
fn refuses_lies(node: &Node, liar: &Connected, other: &Connected) -> bool {
    let spoofed = || -> u64 {
        let drops = node.get("/v1/drops");
        let rows = drops.as_array().unwrap().iter();
        rows.filter(|row| row["hook"] == "from_pod" && row["reason"] == "spoofed_source")
            .map(|row| row["packets"].as_u64().unwrap())
            .sum()
    };
    let before = spoofed();
    let lie = Packet::new(
        other.added.address(true),
        common::NODE_ADDRESSES[0].parse().unwrap(),
    );
    let gateway = [0x02, 0x74, 0x6f, 0x6d, 0x62, 0x01];
    Tap::open(&liar.pod.namespace, "eth0").send(&lie.macs([2; 6], gateway).udp(7, 7, b"a lie"));
    spoofed() == before + 1
}

#[test]
fn the_ingress_qdisc_of_a_link_can_be_somebody_elses() {
    let mut node = Node::start(&DUAL);
    let a = Connected::new(&node);
    let pod = Pod::new();
    let request = json!({
        "containerId": pod.id, "ifName": "eth0", "netns": pod.namespace.path(), "egressLimit": true,
    });
    let (status, answer) = node
        .request("POST", "/v1/endpoints", request.to_string().as_bytes())
        .unwrap();
    assert_eq!(status, 200, "{answer}");
    let addresses = answer["addresses"].as_array().unwrap().iter();
    let addresses = addresses.map(|a| {
        let address = a["address"].as_str().unwrap();
        address.split('/').next().unwrap().parse().unwrap()
    });
    let added = Added {
        addresses: addresses.collect(),
        printed: answer.clone(),
    };
    let link = host_link_name(&pod.id, "eth0");
    let b = Connected { pod, added, link };
    tc(&node, &format!("qdisc add dev {} ingress", b.link));
    tc(
        &node,
        &format!(
            "filter add dev {} parent ffff: protocol all prio 1 {FILTER}",
            b.link
        ),
    );
    b.wait_flags(&node, Endpoint::SLOW_EGRESS, "the filter");
    ask(&node, &b, &a);
    assert!(refuses_lies(&node, &b, &a));
    // An agent that finds nothing of its own at the link cannot have that qdisc.
    node.end_agent(Signal::SIGTERM);
    for hook in ["from_pod", "to_pod"] {
        std::fs::remove_file(node.pins().join(format!("links/{}-{hook}", b.link))).unwrap();
    }
    node.start_agent();
    node.wait_ready();
    assert_eq!(b.flags(&node), Endpoint::SLOW_EGRESS);
    ask(&node, &b, &a);
    assert!(refuses_lies(&node, &b, &a));
}

#[test]
fn programs_that_somebody_removes_come_back() {
    let node = Node::start(&DUAL);
    let [a, b] = [(); 2].map(|()| Connected::new(&node));
    tc(&node, &format!("qdisc del dev {} clsact", b.link));
    wait_for(DEADLINE, "lies to be refused again", || {
        refuses_lies(&node, &b, &a)
    });
    tc(&node, &format!("filter del dev {} ingress", b.link));
    wait_for(DEADLINE, "lies to be refused again", || {
        refuses_lies(&node, &b, &a)
    });
    assert_eq!(ask(&node, &a, &b), 0);
    assert_eq!(ask(&node, &b, &a), 0);
}
