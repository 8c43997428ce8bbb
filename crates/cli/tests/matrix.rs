//! The matrix of the network model over routing, IP families and node count, pairwise: every pair of two
//! settings is in one of the nine. With bulk transfers, and a look at the path that packets take.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use serde_json::{Value, json};
use support::{Lab, TOMBOLO, succeed};

fn holds(nodes: usize, routing: &[&str], families: &str) {
    let options = [routing, &["--families", families]].concat();
    let lab = Lab::up(nodes, &options);
    let report = lab.assert_connected();
    assert_is_complete(&report, nodes, families);
    assert_refused_at_the_node(&lab, &report);
    for target in ["b1", &format!("a{nodes}")] {
        bulk(
            &lab,
            target,
            routing.contains(&"vxlan") && nodes > 1 && target != "b1",
        );
    }
}

/// A report of less than everything would also be good: count what it must have.
fn assert_is_complete(report: &Value, nodes: usize, families: &str) {
    let of_rule = |name: &str| {
        report["rules"]
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["rule"] == name)
            .unwrap()["checks"]
            .as_u64()
            .unwrap() as usize
    };
    let (pods, families) = (2 * nodes, if families == "dual" { 2 } else { 1 });
    let forms = 9 * families;
    assert_eq!(of_rule("itself"), pods * forms);
    assert_eq!(of_rule("same-node"), pods * forms);
    assert_eq!(of_rule("other-node"), pods * (pods - 2) * forms);
    assert_eq!(of_rule("node-to-pod"), nodes * pods * forms);
    assert_eq!(of_rule("pod-to-node"), nodes * pods * forms);
    assert_eq!(of_rule("pod-to-outside"), pods * forms);
    assert_eq!(of_rule("outside-to-pod"), pods * 3 * families);
    assert_eq!(of_rule("own-address"), pods);
    assert_eq!(of_rule("localhost"), 6 * families);
}

/// Silence alone could also be that of a packet that never came: every node has counted what it refused.
fn assert_refused_at_the_node(lab: &Lab, report: &Value) {
    let status = lab.status();
    let pods = status["pods"].as_array().unwrap();
    for node in status["nodes"].as_array().unwrap() {
        let name = &node["name"];
        let is_here = |pod: &&Value| pod["node"] == *name;
        let here: Vec<&Value> = pods.iter().filter(is_here).map(|pod| &pod["name"]).collect();
        let checks = report["checks"].as_array().unwrap().iter();
        let tried = checks
            .filter(|check| check["rule"] == "outside-to-pod" && here.contains(&&check["target"]))
            .count() as u64;
        assert!(tried >= 3, "nobody outside tried to reach pods of {name}");
        let words = [TOMBOLO, "get", "drops", "--json"];
        let drops: Value =
            serde_json::from_str(&succeed(&mut lab.exec(name.as_str().unwrap(), &words))).unwrap();
        let refused: u64 = drops
            .as_array()
            .unwrap()
            .iter()
            .filter(|row| row["hook"] == "from_uplink" && row["reason"] == "external_to_pod")
            .map(|row| row["packets"].as_u64().unwrap())
            .sum();
        assert!(
            refused >= tried,
            "{name} refused {refused} packets of {tried} attempts: {drops}"
        );
    }
}

/// 16 MiB there and back from a1, every byte compared, each family; and whether they crossed the overlay.
fn bulk(lab: &Lab, target: &str, in_overlay: bool) {
    let before = overlay_packets(lab);
    let checks: Vec<Value> = lab
        .addresses(target)
        .iter()
        .map(|address| {
            json!({"id": address, "protocol": "tcp", "address": address, "size": 16 << 20, "deadlineMs": 30_000})
        })
        .collect();
    let report = lab.check("a1", &json!(checks));
    for result in report["results"].as_array().unwrap() {
        assert_eq!(
            result["success"]["seen"],
            result["success"]["local"],
            "{result}\n{}",
            lab.datapath()
        );
        assert!(
            result["success"]["local"].is_string(),
            "{result}\n{}",
            lab.datapath()
        );
    }
    let crossed = overlay_packets(lab) - before;
    if in_overlay {
        assert!(
            crossed > 100,
            "only {crossed} packets came by the overlay\n{}",
            lab.datapath()
        );
    } else {
        assert!(
            crossed < 10,
            "{crossed} packets came by the overlay\n{}",
            lab.datapath()
        );
    }
}

/// Packets that node1 has got out of its overlay; 0 without one. (Most that it sends are encapsulated without the
/// device.)
fn overlay_packets(lab: &Lab) -> u64 {
    let path = "/sys/class/net/tombolo_vxlan/statistics/rx_packets";
    let text = succeed(&mut lab.exec(
        "node1",
        &["sh", "-c", &format!("cat {path} 2>/dev/null || echo 0")],
    ));
    text.trim().parse().unwrap()
}

#[test]
fn direct_v4_5_nodes() {
    holds(5, &["--routing", "direct"], "v4");
}

#[test]
fn direct_v6_2_nodes_over_an_ipv6_only_underlay() {
    holds(2, &["--routing", "direct"], "v6");
}

#[test]
fn direct_dual_1_node() {
    holds(1, &["--routing", "direct"], "dual");
}

#[test]
fn vxlan_v4_2_nodes() {
    holds(2, &["--routing", "vxlan"], "v4");
}

#[test]
fn vxlan_v6_1_node() {
    holds(1, &["--routing", "vxlan"], "v6");
}

#[test]
fn vxlan_dual_5_nodes() {
    holds(5, &["--routing", "vxlan"], "dual");
}

#[test]
fn auto_v4_1_node_of_two_segments() {
    holds(1, &["--routing", "auto", "--segments", "2"], "v4");
}

#[test]
fn auto_v6_5_nodes_on_two_segments_over_an_ipv6_only_underlay() {
    let lab = Lab::up(5, &["--routing", "auto", "--segments", "2", "--families", "v6"]);
    assert_is_complete(&lab.assert_connected(), 5, "v6");
    // node2 is past the router, node5 on node1's segment.
    bulk(&lab, "a2", true);
    bulk(&lab, "a5", false);
}

#[test]
fn auto_dual_2_nodes_on_two_segments() {
    let lab = Lab::up(2, &["--routing", "auto", "--segments", "2", "--families", "dual"]);
    assert_is_complete(&lab.assert_connected(), 2, "dual");
    bulk(&lab, "a2", true);
}
