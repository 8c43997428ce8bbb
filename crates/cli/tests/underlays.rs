//! Underlays that are not all alike: nodes with different MTUs, nodes with more than one address.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use serde_json::{Value, json};
use support::Lab;

/// A datagram of exactly `packet` bytes of IP that nobody may fragment.
fn unfragmented(address: &str, packet: usize) -> Value {
    let headers = if address.contains(':') { 48 } else { 28 };
    json!([{"id": "a", "protocol": "udp", "address": address, "size": packet - headers, "dontFragment": true}])
}

/// How often node1 has told a pod of its own that a packet is too big.
fn too_big_answers(lab: &Lab) -> u64 {
    let drops = support::succeed(&mut lab.exec("node1", &[support::TOMBOLO, "get", "drops", "--json"]));
    let drops: Value = serde_json::from_str(&drops).unwrap();
    let rows = drops.as_array().unwrap().iter();
    rows.filter(|row| row["hook"] == "from_pod" && row["reason"] == "too_big")
        .map(|row| row["packets"].as_u64().unwrap())
        .sum()
}

fn mtu_is_discovered(routing: &str, own: usize, path: usize) {
    let lab = Lab::up(2, &["--routing", routing, "--node-mtu", "node2=1400"]);
    // Before the matrix, from which the pods learn the same.
    let mut answered = 0;
    for address in lab.addresses("a2") {
        // The first one leaves, for it fits the pod's own link; the answer of node1 tells what fits the path.
        let report = lab.check("a1", &unfragmented(&address, own));
        let result = &report["results"][0];
        assert_eq!(
            result["failure"]["kind"],
            "too-big",
            "{result}\n{}",
            lab.datapath()
        );
        assert_eq!(result["failure"]["pathMtu"], path, "{result}");
        answered += 1;
        assert_eq!(
            too_big_answers(&lab),
            answered,
            "it must have left the pod\n{}",
            lab.datapath()
        );
        let report = lab.check("a1", &unfragmented(&address, path));
        assert!(
            report["results"][0]["success"].is_object(),
            "{report}\n{}",
            lab.datapath()
        );
    }
    lab.assert_connected();
}

#[test]
fn a_smaller_mtu_past_the_own_link_is_answered_and_discovered_direct() {
    mtu_is_discovered("direct", 1500, 1400);
}

#[test]
fn a_smaller_mtu_past_the_own_link_is_answered_and_discovered_in_the_overlay() {
    mtu_is_discovered("vxlan", 1450, 1350);
}

#[test]
fn addresses_that_only_their_node_lists_are_reached_without_nat() {
    let extra = ["172.20.1.200", "172.20.77.5", "fd00:20:1::200"];
    let lab = Lab::up(
        2,
        &[
            "--node-address",
            "node2=172.20.1.200/24",
            "--node-address",
            "node2=172.20.77.5/32",
            "--node-address",
            "node2=fd00:20:1::200/64",
        ],
    );
    let report = lab.assert_connected();
    for address in extra {
        for pod in ["a1", "b1", "a2", "b2"] {
            let checks = report["checks"].as_array().unwrap().iter();
            let tried = checks
                .filter(|one| one["source"] == pod && one["address"] == address)
                .count();
            assert_eq!(tried, 9, "{pod} to {address}");
        }
    }
    // Nobody else is told of them: the Node object has the primary addresses only.
    let node = support::succeed(&mut lab.kubectl(&["get", "node", "node2", "-o", "json"]));
    assert!(extra.iter().all(|address| !node.contains(address)), "{node}");
}

#[test]
fn direct_routing_past_a_router_is_warned_of() {
    let lab = Lab::named(support::unique_name());
    let options = ["--routing", "direct", "--segments", "2", "--timeout", "30"];
    let output = support::run(&mut lab.up_command(2, &options));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    for (node, other, router) in [("node1", "node2", "172.20.1.1"), ("node2", "node1", "172.20.2.1")] {
        let warning = format!("warning: {node}: node {other} is past the router {router}");
        assert!(said.contains(&warning), "{said}");
    }
    let status = support::succeed(&mut lab.lab(&["status"]));
    assert!(
        status.contains("yes, but: node node2 is past the router"),
        "{status}"
    );
    let of_node = support::succeed(&mut lab.exec("node1", &[support::TOMBOLO, "status"]));
    assert!(of_node.contains("past the router 172.20.1.1"), "{of_node}");
}
