//! ICMP errors about translated packets: whoever sent such a packet is told of the one that it sent.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::{
    bed::{Bed, run},
    cluster::{Cluster, DROP, FAMILIES, Family, NEXT, NODE_2_MAC, REDIRECT, ROUTER_MAC},
    frame::{Frame, IcmpError, TCP, UDP, ip},
    service::{NODE_PORT, PORT, TARGET_PORT, cluster_ip, every_address, publish, slab, turn_on},
};
use tombolo_abi::{Hook, Outcome};
use tombolo_datapath::{Packet, Run};

const SYN: u8 = 2;

/// On the way to other nodes, and none of the cluster's.
const fn router(f: Family) -> &'static str {
    if f.v4 { "192.0.2.254" } else { "2001:db8:ff::fe" }
}

fn cluster() -> (Cluster, Bed) {
    let bed = Bed::new();
    let cluster = Cluster::new(&bed);
    turn_on(&cluster);
    (cluster, bed)
}

/// A packet of either protocol.
fn packet(protocol: u8, from: &str, to: &str, ports: [u16; 2]) -> Frame {
    if protocol == TCP {
        Frame::tcp(from, to, ports, SYN, b"data")
    } else {
        Frame::datagram(from, to, ports)
    }
}

/// Errors of either family, by their types: unreachable, time exceeded.
const ERRORS: [(u8, u8); 2] = [(3, 1), (11, 3)];

/// Somebody complains of a packet as it arrived there, quoting this many bytes of it.
fn error(kind: (u8, u8), from: &str, about: &[u8], quoted: usize) -> Frame {
    let arrived = Frame::read(about);
    let quote = &about[14..about.len().min(14 + quoted)];
    let mut message = vec![0, 0, 0, 0, 0, 0, 5, 0];
    message.extend(quote);
    let frame = Frame::udp(from, &arrived.source.to_string());
    frame.icmp(kind.0, kind.1).icmp_message(message)
}

/// The error says what it said, from whom it should be to whom the packet was from, of the very packet that was sent.
/// The way has counted its hops, and what changes with that.
#[track_caller]
fn assert_tells(run: &Run, from: &str, sent: &Frame, wanted: &Frame) {
    let error = IcmpError::read(&run.frame);
    assert_eq!((error.source, error.destination), (ip(from), sent.source));
    assert_eq!(error.kind, wanted.payload[0]);
    let original = &sent.clone().ttl(sent.ttl - 1).build()[14..];
    assert_eq!(error.quote, original[..error.quote.len()]);
}

#[track_caller]
fn from_b(cluster: &Cluster, frame: &Frame) -> Run {
    let packet = Packet {
        frame: &frame.build(),
        ifindex: cluster.link_b,
        ..Packet::default()
    };
    let run = cluster.datapath.test_run(Hook::FromPod, &packet).unwrap();
    assert_eq!(run.action, REDIRECT, "{frame:?}\n{}", cluster.state());
    run
}

#[test]
fn of_a_backend_of_this_node() {
    let (cluster, _bed) = cluster();
    for f in FAMILIES {
        for (n, protocol) in [(0, TCP), (1, UDP)] {
            let slab = slab(&cluster, n, 10 + n, protocol, &[f.b]);
            publish(&cluster, cluster_ip(f), PORT, protocol, slab);
            let sent = packet(protocol, f.a, cluster_ip(f), [4000, PORT]);
            let there = cluster.expect(Hook::FromPod, &sent, REDIRECT, Outcome::Delivered);
            for kind in ERRORS {
                // All of it, or as little as has to be quoted.
                for quoted in [1000, if f.v4 { 28 } else { 48 }] {
                    let error = error(kind, f.b, &there.frame, quoted);
                    let run = from_b(&cluster, &error);
                    assert_tells(&run, cluster_ip(f), &sent, &error);
                }
            }
        }
    }
}

#[test]
fn of_backends_elsewhere_and_of_routers_on_the_way() {
    let (cluster, _bed) = cluster();
    for f in FAMILIES {
        let slab = slab(&cluster, 0, 1, TCP, &[f.pod_2]);
        publish(&cluster, cluster_ip(f), PORT, TCP, slab);
        let sent = packet(TCP, f.a, cluster_ip(f), [4000, PORT]);
        let there = cluster.expect(Hook::FromPod, &sent, REDIRECT, Outcome::Routed);
        for kind in ERRORS {
            let from_backend = error(kind, f.pod_2, &there.frame, 1000).with_mac(NODE_2_MAC);
            let run = cluster.expect(Hook::FromUplink, &from_backend, REDIRECT, Outcome::Delivered);
            assert_tells(&run, cluster_ip(f), &sent, &from_backend);
            let from_node = error(kind, f.node_2, &there.frame, 1000).with_mac(NODE_2_MAC);
            let run = cluster.expect(Hook::FromUplink, &from_node, REDIRECT, Outcome::Delivered);
            assert_tells(&run, f.node_2, &sent, &from_node);
            let from_router = error(kind, router(f), &there.frame, 1000).with_mac(ROUTER_MAC);
            let run = cluster.expect(Hook::FromUplink, &from_router, REDIRECT, Outcome::Delivered);
            assert_tells(&run, router(f), &sent, &from_router);
        }
    }
}

#[test]
fn only_about_flows_that_are_there() {
    let (cluster, _bed) = cluster();
    for f in FAMILIES {
        let slab = slab(&cluster, 0, 1, TCP, &[f.pod_2]);
        publish(&cluster, cluster_ip(f), PORT, TCP, slab);
        let sent = packet(TCP, f.a, cluster_ip(f), [4000, PORT]);
        let there = cluster.expect(Hook::FromPod, &sent, REDIRECT, Outcome::Routed);
        // Of another port.
        let other = packet(TCP, f.a, f.pod_2, [4001, TARGET_PORT]).build();
        let error_of = |from, about: &[u8]| error((3, 1), from, about, 1000).with_mac(ROUTER_MAC);
        let forged = error_of(router(f), &other);
        cluster.expect(Hook::FromUplink, &forged, DROP, Outcome::ExternalToPod);
        // To another pod than that which has sent the packet.
        let mut forged = error_of(router(f), &there.frame);
        forged.destination = ip(f.b);
        let forged = forged.resummed_icmp();
        cluster.expect(Hook::FromUplink, &forged, DROP, Outcome::ExternalToPod);
        // Who claims to be a pod comes the way that its packets take.
        let forged = error_of(f.pod_3, &there.frame);
        cluster.expect(Hook::FromUplink, &forged, DROP, Outcome::Unencapsulated);
        // What is no error, and what is cut short.
        let mut echo = error_of(router(f), &there.frame);
        echo.payload[0] = if f.v4 { 8 } else { 128 };
        cluster.expect(
            Hook::FromUplink,
            &echo.resummed_icmp(),
            DROP,
            Outcome::ExternalToPod,
        );
        let short = error((3, 1), router(f), &there.frame, 12).with_mac(ROUTER_MAC);
        cluster.expect(Hook::FromUplink, &short, DROP, Outcome::ExternalToPod);
    }
}

#[test]
fn of_clients_about_answers() {
    let (cluster, _bed) = cluster();
    for f in FAMILIES {
        let slab = slab(&cluster, 0, 1, UDP, &[f.b]);
        publish(&cluster, cluster_ip(f), PORT, UDP, slab);
        let sent = packet(UDP, f.a, cluster_ip(f), [4000, PORT]);
        cluster.expect(Hook::FromPod, &sent, REDIRECT, Outcome::Delivered);
        let answer = packet(UDP, f.b, f.a, [TARGET_PORT, 4000]);
        let back = from_b(&cluster, &answer);
        // The client's port is closed meanwhile.
        let error = error((3, 1), f.a, &back.frame, 1000);
        let run = cluster.expect(Hook::FromPod, &error, REDIRECT, Outcome::Delivered);
        assert_tells(&run, f.a, &answer, &error);
    }
}

#[test]
fn about_what_came_to_a_node_port() {
    let (cluster, _bed) = cluster();
    // What is for clients outside leaves by the kernel's routes.
    for command in [
        "sysctl -q -w net.ipv4.conf.all.forwarding=1 net.ipv6.conf.all.forwarding=1",
        "ip link set wire0 up",
        "ip addr add 172.20.1.11/24 dev up0",
        "ip addr add fd00:20:1::11/64 dev up0 nodad",
        "ip link set up0 up",
        "ip route add default via 172.20.1.1",
        "ip -6 route add default via fd00:20:1::1",
    ] {
        run(command);
    }
    for f in FAMILIES {
        // With a backend elsewhere, which sees this node.
        let there = slab(&cluster, 0, 1, TCP, &[f.pod_2]);
        publish(&cluster, every_address(f), NODE_PORT, TCP, there);
        let sent = packet(TCP, f.outside, f.node, [50_000, NODE_PORT]);
        let there = cluster.expect(Hook::FromUplink, &sent, REDIRECT, Outcome::Routed);
        for (from, seen) in [(f.pod_2, f.node), (router(f), router(f))] {
            let error = error((3, 1), from, &there.frame, 1000).with_mac(NODE_2_MAC);
            let run = cluster.expect(Hook::FromUplink, &error, REDIRECT, Outcome::Routed);
            assert_tells(&run, seen, &sent, &error);
        }
        // The client about an answer of the backend's.
        let answer = packet(TCP, f.pod_2, f.node, [TARGET_PORT, 50_000]).with_mac(NODE_2_MAC);
        let back = cluster.expect(Hook::FromUplink, &answer, REDIRECT, Outcome::Routed);
        let error = error((11, 3), f.outside, &back.frame, 1000).with_mac(ROUTER_MAC);
        let run = cluster.expect(Hook::FromUplink, &error, REDIRECT, Outcome::Routed);
        assert_tells(&run, f.node, &answer, &error);
        // What is about the node's own packets is the node's.
        let own = packet(TCP, f.node, f.outside, [50_001, 80]).build();
        let own = self::error((3, 1), router(f), &own, 1000).with_mac(ROUTER_MAC);
        cluster.expect(Hook::FromUplink, &own, NEXT, Outcome::NotOurs);
    }
}
