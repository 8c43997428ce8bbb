//! Pods have no L2: a pod knows its gateway and nobody else, nobody answers what it asks its link, and
//! what it shouts reaches nobody.
#![allow(clippy::unwrap_used, reason = "what panics here fails the test")]

mod common;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use common::{Node, Pod};
use serde_json::Value;
use tombolo_testkit::{Packet, Server, Tap, ask_udp};

const DUAL: [&str; 2] = ["10.244.1.0/24", "fd00:10:244::1:0/112"];
const GATEWAY_MAC: [u8; 6] = [0x02, 0x74, 0x6f, 0x6d, 0x62, 0x01];
const BROADCAST_MAC: [u8; 6] = [0xff; 6];
const OWN_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x0a];

const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
/// Neighbour solicitation and advertisement (RFC 4861, section 4).
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// Who has `target`? Tell `sender` (RFC 826).
fn arp_request(sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = [BROADCAST_MAC, OWN_MAC].concat();
    frame.extend(ETHERTYPE_ARP);
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(OWN_MAC);
    frame.extend(sender.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}

/// A neighbour solicitation to the target's solicited-node multicast address (RFC 4291, section 2.7.1).
fn solicitation(sender: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let [.., a, b, c] = target.octets();
    let group = Ipv6Addr::new(
        0xff02,
        0,
        0,
        0,
        0,
        1,
        0xff00 | u16::from(a),
        u16::from_be_bytes([b, c]),
    );
    let message = [&[SOLICITATION, 0, 0, 0, 0, 0, 0, 0][..], &target.octets()].concat();
    Packet::new(sender.into(), group.into())
        .ttl(255)
        .macs(OWN_MAC, [0x33, 0x33, 0xff, a, b, c])
        .payload(58.into(), &message)
}

fn is_arp(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&ETHERTYPE_ARP)
}

fn is_neighbour_discovery(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[0x86, 0xdd])
        && matches!(frame.get(54), Some(&(SOLICITATION | ADVERTISEMENT)) if frame.get(20) == Some(&58))
}

fn dropped(node: &Node, reason: &str) -> u64 {
    let drops = node.get("/v1/drops");
    let rows = drops.as_array().unwrap().iter();
    rows.filter(|row| row["hook"] == "from_pod" && row["reason"] == reason)
        .map(|row| row["packets"].as_u64().unwrap())
        .sum()
}

#[test]
fn pods_have_no_l2() {
    let node = Node::start(&DUAL);
    let (a, b) = (Pod::new(), Pod::new());
    let (added_a, added_b) = (node.add(&a).unwrap(), node.add(&b).unwrap());
    let servers =
        [true, false].map(|v4| Server::start(&b.namespace, SocketAddr::new(added_b.address(v4), 0)));
    for server in &servers {
        ask_udp(&a.namespace, server.address(), b"hello").unwrap();
    }
    // Each has met the other, and knows its gateways only.
    for pod in [&a, &b] {
        // The kernel keeps the groups that it sends to as well: they are computed, and nobody was asked.
        let known = pod.namespace.netlink().neighbours().unwrap();
        let known = known.iter().filter(|n| !n.address.is_multicast());
        let known: BTreeSet<_> = known.map(|n| (n.address, n.mac, n.permanent)).collect();
        let gateways: [IpAddr; 2] = ["169.254.1.1".parse().unwrap(), "fe80::1".parse().unwrap()];
        assert_eq!(known, gateways.map(|g| (g, Some(GATEWAY_MAC), true)).into());
    }

    let (IpAddr::V4(a4), IpAddr::V6(a6)) = (added_a.address(true), added_a.address(false)) else {
        unreachable!("asked by family")
    };
    let (IpAddr::V4(b4), IpAddr::V6(b6)) = (added_b.address(true), added_b.address(false)) else {
        unreachable!("asked by family")
    };
    let before = ["not_ip", "not_routable"].map(|reason| dropped(&node, reason));
    let (tap_a, tap_b) = (Tap::open(&a.namespace, "eth0"), Tap::open(&b.namespace, "eth0"));
    let shout = |to: &str| {
        let packet = Packet::new(a4.into(), to.parse().unwrap()).macs(OWN_MAC, BROADCAST_MAC);
        packet.udp(7, 7, b"is anybody there?")
    };
    let asked = [
        arp_request(a4, b4),
        arp_request(a4, Ipv4Addr::new(169, 254, 1, 1)),
        solicitation(a6, b6),
        solicitation(a6, "fe80::1".parse().unwrap()),
        shout("255.255.255.255"),
        shout("224.0.0.1"),
    ];
    for frame in &asked {
        tap_a.send(frame);
    }
    // What is sent after them arrives, and is answered: all that came of them would have come before.
    let marker = b"after all that";
    ask_udp(&a.namespace, servers[0].address(), marker).unwrap();
    for (tap, own) in [(&tap_a, &asked[..]), (&tap_b, &[])] {
        let mut heard = Vec::new();
        let last = tap.receive(Duration::from_secs(5), |frame| {
            heard.push(frame.to_vec());
            frame.ends_with(marker)
        });
        assert!(last.is_some(), "the marker never came");
        // A packet socket also hears what its own pod sends.
        heard.retain(|frame| !own.contains(frame));
        heard.retain(|frame| {
            is_arp(frame) || is_neighbour_discovery(frame) || frame.ends_with(b"is anybody there?")
        });
        assert!(heard.is_empty(), "{heard:02x?}");
    }
    let after = ["not_ip", "not_routable"].map(|reason| dropped(&node, reason));
    let drops: Value = node.get("/v1/drops");
    assert_eq!(after[0] - before[0], 2, "{drops}");
    assert!(after[1] - before[1] >= 4, "{drops}");
}
