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

fn mtu_is_discovered(routing: &str, own: usize, path: usize) {
    let lab = Lab::up(2, &["--routing", routing, "--node-mtu", "node2=1400"]);
    lab.assert_connected();
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
        assert!(
            result["attempts"].as_u64() >= Some(2),
            "the first one must have left the pod: {result}"
        );
        let report = lab.check("a1", &unfragmented(&address, path));
        assert!(
            report["results"][0]["success"].is_object(),
            "{report}\n{}",
            lab.datapath()
        );
    }
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
