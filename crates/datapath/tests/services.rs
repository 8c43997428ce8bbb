//! Services, on crafted packets: what becomes of them, and of what answers.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::{
    bed::Bed,
    cluster::{Cluster, DROP, FAMILIES, NEXT, REDIRECT},
    frame::{Frame, IcmpError, TCP, UDP, ip},
    service::{
        NODE_PORT, PORT, TARGET_PORT, cluster_ip, every_address, frontend_key, publish, set_state, slab,
        slab_of, turn_on, unused_ip,
    },
};
use tombolo_abi::{Addr, BackendState, Frontend, Hook, Outcome, Slab, SourceRangeKey};
use tombolo_datapath::{Packet, Run};

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
const SCTP: u8 = 132;

fn cluster() -> (Cluster, Bed) {
    let bed = Bed::new();
    let cluster = Cluster::new(&bed);
    turn_on(&cluster);
    (cluster, bed)
}

/// Runs a packet at the link of pod B, whose answers the usual test device does not see.
#[track_caller]
fn from_b(cluster: &Cluster, frame: &Frame, action: i32) -> Run {
    let packet = Packet {
        frame: &frame.build(),
        ifindex: cluster.link_b,
        ..Packet::default()
    };
    let run = cluster.datapath.test_run(Hook::FromPod, &packet).unwrap();
    assert_eq!(run.action, action, "{frame:?}\n{}", cluster.state());
    run
}

/// A packet of either protocol.
fn packet(protocol: u8, from: &str, to: &str, ports: [u16; 2], flags: u8) -> Frame {
    if protocol == TCP {
        Frame::tcp(from, to, ports, flags, b"data")
    } else {
        Frame::datagram(from, to, ports)
    }
}

#[track_caller]
fn assert_ends(run: &Run, from: &str, to: &str, ports: [u16; 2], sent: &Frame) -> Frame {
    let frame = Frame::read(&run.frame);
    assert_eq!((frame.source, frame.destination), (ip(from), ip(to)));
    assert_eq!(frame.ports(), ports);
    assert_eq!(frame.ttl, sent.ttl - 1);
    let checksum = if sent.protocol == TCP { 16..18 } else { 6..8 };
    let rest = |f: &Frame| {
        let mut payload = f.payload.clone();
        payload[..4].fill(0);
        payload[checksum.clone()].fill(0);
        payload
    };
    assert_eq!(rest(&frame), rest(sent), "nothing else is different");
    frame
}

#[test]
fn to_a_backend_of_this_node_and_back() {
    let (cluster, _bed) = cluster();
    for f in FAMILIES {
        for (n, protocol) in [(0, TCP), (1, UDP)] {
            let slab = slab(&cluster, n, 10 + n, protocol, &[f.b]);
            publish(&cluster, cluster_ip(f), PORT, protocol, slab);
            for flags in [SYN, ACK] {
                let sent = packet(protocol, f.a, cluster_ip(f), [4000, PORT], flags);
                let run = cluster.expect(Hook::FromPod, &sent, REDIRECT, Outcome::Delivered);
                assert_ends(&run, f.a, f.b, [4000, TARGET_PORT], &sent);
                let answer = packet(protocol, f.b, f.a, [TARGET_PORT, 4000], SYN | ACK);
                let run = from_b(&cluster, &answer, REDIRECT);
                assert_ends(&run, cluster_ip(f), f.a, [PORT, 4000], &answer);
            }
        }
    }
    assert_eq!(cluster.datapath.flows().entries().unwrap().len(), 8);
}

#[test]
fn udp_without_a_checksum_stays_without() {
    let (cluster, _bed) = cluster();
    let f = common::cluster::V4;
    let slab = slab(&cluster, 0, 1, UDP, &[f.b]);
    publish(&cluster, cluster_ip(f), PORT, UDP, slab);
    let mut sent = packet(UDP, f.a, cluster_ip(f), [4000, PORT], 0);
    sent.payload[6..8].fill(0);
    let run = cluster.expect(Hook::FromPod, &sent, REDIRECT, Outcome::Delivered);
    let got = assert_ends(&run, f.a, f.b, [4000, TARGET_PORT], &sent);
    assert_eq!(got.payload[6..8], [0, 0]);
}

#[test]
fn to_backends_of_other_nodes_and_back() {
    let (cluster, _bed) = cluster();
    for f in FAMILIES {
        for (backend, outcome, back) in [
            (f.pod_2, Outcome::Routed, Hook::FromUplink),
            (f.pod_3, Outcome::Encapsulated, Hook::FromUplink),
        ] {
            let slab = slab(&cluster, 0, 1, TCP, &[backend]);
            publish(&cluster, cluster_ip(f), PORT, TCP, slab);
            let port = if backend == f.pod_2 { 4000 } else { 4001 };
            let sent = packet(TCP, f.a, cluster_ip(f), [port, PORT], SYN);
            let run = cluster.expect(Hook::FromPod, &sent, REDIRECT, outcome);
            assert_ends(&run, f.a, backend, [port, TARGET_PORT], &sent);
            let answer = packet(TCP, backend, f.a, [TARGET_PORT, port], SYN | ACK)
                .with_mac(common::cluster::NODE_2_MAC);
            if outcome == Outcome::Encapsulated {
                // What claims to come from there has to come by the tunnel.
                cluster.expect(back, &answer, DROP, Outcome::Unencapsulated);
            } else {
                let run = cluster.expect(back, &answer, REDIRECT, Outcome::Delivered);
                assert_ends(&run, cluster_ip(f), f.a, [PORT, port], &answer);
            }
        }
    }
}

#[test]
fn a_pod_that_is_its_own_backend_sees_the_gateway() {
    let (cluster, _bed) = cluster();
    for (f, gateway) in FAMILIES.into_iter().zip(["169.254.1.1", "fe80::1"]) {
        let slab = slab(&cluster, 0, 1, TCP, &[f.a]);
        publish(&cluster, cluster_ip(f), PORT, TCP, slab);
        let sent = packet(TCP, f.a, cluster_ip(f), [4000, PORT], SYN);
        let run = cluster.expect(Hook::FromPod, &sent, REDIRECT, Outcome::Delivered);
        assert_ends(&run, gateway, f.a, [4000, TARGET_PORT], &sent);
        let answer = packet(TCP, f.a, gateway, [TARGET_PORT, 4000], SYN | ACK);
        let run = cluster.expect(Hook::FromPod, &answer, REDIRECT, Outcome::Delivered);
        assert_ends(&run, cluster_ip(f), f.a, [PORT, 4000], &answer);
    }
}

/// What a TCP sender is told, and by whom.
#[track_caller]
fn assert_reset(run: &Run, from: &str, sent: &Frame) {
    let frame = Frame::read(&run.frame);
    assert_eq!((frame.source, frame.destination), (ip(from), sent.source));
    assert_eq!(frame.ports(), [sent.ports()[1], sent.ports()[0]]);
    let word = |at: usize| u32::from_be_bytes(frame.payload[at..at + 4].try_into().unwrap());
    if sent.payload[13] & ACK != 0 {
        assert_eq!((word(4), word(8), frame.payload[13]), (2000, 0, RST));
    } else {
        // Four bytes of data, and the SYN.
        assert_eq!((word(4), word(8), frame.payload[13]), (0, 1005, RST | ACK));
    }
}

#[test]
fn what_nobody_serves_is_refused() {
    let (cluster, _bed) = cluster();
    for f in FAMILIES {
        let vip = cluster_ip(f);
        for protocol in [TCP, UDP] {
            publish(&cluster, vip, PORT, protocol, Slab::NONE);
        }
        // Another address whose other ports are nobody's, outside of the ranges.
        let lone = if f.v4 { "203.0.113.7" } else { "2001:db8:7::7" };
        publish(&cluster, lone, 0, 0, Slab::NONE);
        for (to, port, reason) in [
            (vip, PORT, Outcome::NoBackend),
            (vip, PORT + 1, Outcome::NoService),
            (unused_ip(f), PORT, Outcome::NoService),
            (lone, PORT, Outcome::NoService),
        ] {
            let sent = packet(TCP, f.a, to, [4000, port], SYN);
            // In the ranges, a Service's other ports are told apart by the range's row alone.
            let run = cluster.expect(Hook::FromPod, &sent, REDIRECT, reason);
            assert_reset(&run, to, &sent);
            let sent = packet(UDP, f.a, to, [4000, port], 0);
            let run = cluster.expect(Hook::FromPod, &sent, REDIRECT, reason);
            let error = IcmpError::read(&run.frame);
            assert_eq!((error.kind, error.code), if f.v4 { (3, 3) } else { (1, 4) });
            assert_eq!(error.destination, ip(f.a));
            assert_eq!(error.quote, sent.build()[14..]);
            // A reset is never answered; to a port that is a Service's it is of no flow in the first place.
            let reset = packet(TCP, f.a, to, [4000, port], RST);
            let reason = if reason == Outcome::NoBackend {
                Outcome::UnknownFlow
            } else {
                reason
            };
            cluster.expect(Hook::FromPod, &reset, DROP, reason);
        }
        let sent = packet(TCP, f.a, vip, [4000, PORT], ACK);
        let slab = slab(&cluster, 0, 1, TCP, &[f.b]);
        publish(&cluster, vip, PORT, TCP, slab);
        let run = cluster.expect(Hook::FromPod, &sent, REDIRECT, Outcome::UnknownFlow);
        assert_reset(&run, vip, &sent);
    }
    assert!(cluster.datapath.flows().entries().unwrap().is_empty());
}

#[test]
fn a_policy_drops_what_others_would_serve() {
    let (cluster, _bed) = cluster();
    for f in FAMILIES {
        let frontend = Frontend {
            flags: Frontend::DROP_INTERNAL,
            ..Frontend::default()
        };
        let key = frontend_key(cluster_ip(f), PORT, TCP);
        cluster.datapath.frontends().insert(&key, &frontend).unwrap();
        let sent = packet(TCP, f.a, cluster_ip(f), [4000, PORT], SYN);
        cluster.expect(Hook::FromPod, &sent, DROP, Outcome::BackendElsewhere);
    }
}

#[test]
fn connections_stay_until_their_backend_is_gone() {
    let (cluster, _bed) = cluster();
    for f in FAMILIES {
        let slab = slab(&cluster, 0, 1, TCP, &[f.b, f.pod_2]);
        publish(&cluster, cluster_ip(f), PORT, TCP, slab_of(&cluster, 0, &[1]));
        let sent = |port, flags| packet(TCP, f.a, cluster_ip(f), [port, PORT], flags);
        cluster.expect(Hook::FromPod, &sent(4000, SYN), REDIRECT, Outcome::Delivered);
        cluster.expect(Hook::FromPod, &sent(4000, ACK), REDIRECT, Outcome::Delivered);
        publish(&cluster, cluster_ip(f), PORT, TCP, slab_of(&cluster, 1, &[2]));
        set_state(&cluster, 1, BackendState::NotServing);
        cluster.expect(Hook::FromPod, &sent(4000, ACK), REDIRECT, Outcome::Delivered);
        cluster.expect(Hook::FromPod, &sent(4001, SYN), REDIRECT, Outcome::Routed);
        set_state(&cluster, 1, BackendState::Gone);
        let last = sent(4000, ACK);
        let run = cluster.expect(Hook::FromPod, &last, REDIRECT, Outcome::BackendGone);
        assert_reset(&run, cluster_ip(f), &last);
        cluster.expect(Hook::FromPod, &last, REDIRECT, Outcome::BackendGone);
        // The port is good for another connection.
        cluster.expect(Hook::FromPod, &sent(4000, SYN), REDIRECT, Outcome::Routed);
        let _ = slab;
    }
}

/// Whoever only reads sends nothing but acknowledgements: by one of them it is told that its backend is gone.
#[test]
fn both_ends_hear_that_a_backend_is_gone() {
    let (cluster, _bed) = cluster();
    for f in FAMILIES {
        slab(&cluster, 0, 1, TCP, &[f.b, f.pod_2]);
        publish(&cluster, cluster_ip(f), PORT, TCP, slab_of(&cluster, 0, &[1]));
        let sent = |port, flags| packet(TCP, f.a, cluster_ip(f), [port, PORT], flags);
        let answer = |port, flags| packet(TCP, f.b, f.a, [TARGET_PORT, port], flags);
        for (port, flags) in [(4000, ACK), (4001, FIN | ACK), (4002, RST)] {
            set_state(&cluster, 1, BackendState::Serving);
            cluster.expect(Hook::FromPod, &sent(port, SYN), REDIRECT, Outcome::Delivered);
            from_b(&cluster, &answer(port, SYN | ACK), REDIRECT);
            cluster.expect(Hook::FromPod, &sent(port, ACK), REDIRECT, Outcome::Delivered);
            set_state(&cluster, 1, BackendState::Gone);
            let last = answer(port, flags);
            let run = from_b(&cluster, &last, REDIRECT);
            assert_ends(&run, cluster_ip(f), f.a, [PORT, port], &last);
            let run = cluster.expect(Hook::FromPod, &sent(port, ACK), REDIRECT, Outcome::BackendGone);
            assert_reset(&run, cluster_ip(f), &sent(port, ACK));
            let run = from_b(&cluster, &answer(port, ACK), REDIRECT);
            assert_reset(&run, f.a, &answer(port, ACK));
        }
    }
}

/// A client that no backend has answered yet asks again, and another one then.
#[test]
fn nobody_hears_of_a_backend_that_is_gone_before_it_answers() {
    let (cluster, _bed) = cluster();
    for f in FAMILIES {
        slab(&cluster, 0, 1, TCP, &[f.b, f.pod_2]);
        publish(&cluster, cluster_ip(f), PORT, TCP, slab_of(&cluster, 0, &[1]));
        let sent = packet(TCP, f.a, cluster_ip(f), [4000, PORT], SYN);
        cluster.expect(Hook::FromPod, &sent, REDIRECT, Outcome::Delivered);
        publish(&cluster, cluster_ip(f), PORT, TCP, slab_of(&cluster, 1, &[2]));
        set_state(&cluster, 1, BackendState::Gone);
        let answer = packet(TCP, f.b, f.a, [TARGET_PORT, 4000], SYN | ACK);
        let run = from_b(&cluster, &answer, REDIRECT);
        assert_reset(&run, f.a, &answer);
        cluster.expect(Hook::FromPod, &sent, REDIRECT, Outcome::Routed);
    }
}

#[test]
fn datagrams_move_on_when_their_backend_no_longer_serves() {
    let (cluster, _bed) = cluster();
    for f in FAMILIES {
        slab(&cluster, 0, 1, UDP, &[f.b, f.pod_2]);
        let both = slab_of(&cluster, 0, &[1]);
        publish(&cluster, cluster_ip(f), PORT, UDP, both);
        let sent = packet(UDP, f.a, cluster_ip(f), [4000, PORT], 0);
        cluster.expect(Hook::FromPod, &sent, REDIRECT, Outcome::Delivered);
        publish(&cluster, cluster_ip(f), PORT, UDP, slab_of(&cluster, 1, &[2]));
        cluster.expect(Hook::FromPod, &sent, REDIRECT, Outcome::Delivered);
        set_state(&cluster, 1, BackendState::NotServing);
        cluster.expect(Hook::FromPod, &sent, REDIRECT, Outcome::Routed);
        set_state(&cluster, 1, BackendState::Serving);
        cluster.expect(Hook::FromPod, &sent, REDIRECT, Outcome::Routed);
    }
}

#[test]
fn a_port_used_again_begins_anew() {
    let (cluster, _bed) = cluster();
    let f = common::cluster::V4;
    slab(&cluster, 0, 1, TCP, &[f.b, f.pod_2]);
    publish(&cluster, cluster_ip(f), PORT, TCP, slab_of(&cluster, 0, &[1]));
    let sent = |flags| packet(TCP, f.a, cluster_ip(f), [4000, PORT], flags);
    cluster.expect(Hook::FromPod, &sent(SYN), REDIRECT, Outcome::Delivered);
    cluster.expect(Hook::FromPod, &sent(FIN | ACK), REDIRECT, Outcome::Delivered);
    publish(&cluster, cluster_ip(f), PORT, TCP, slab_of(&cluster, 1, &[2]));
    // One side has ended, not the other.
    cluster.expect(Hook::FromPod, &sent(SYN), REDIRECT, Outcome::Delivered);
    from_b(
        &cluster,
        &packet(TCP, f.b, f.a, [TARGET_PORT, 4000], FIN | ACK),
        REDIRECT,
    );
    cluster.expect(Hook::FromPod, &sent(SYN), REDIRECT, Outcome::Routed);
    assert_eq!(cluster.datapath.flows().entries().unwrap().len(), 2);
}

#[test]
fn two_services_lead_a_clients_port_to_one_backend() {
    let (cluster, _bed) = cluster();
    for f in FAMILIES {
        let slab = slab(&cluster, 0, 1, TCP, &[f.b]);
        for vip in [cluster_ip(f), unused_ip(f)] {
            publish(&cluster, vip, PORT, TCP, slab);
        }
        let first = packet(TCP, f.a, cluster_ip(f), [4000, PORT], SYN);
        let run = cluster.expect(Hook::FromPod, &first, REDIRECT, Outcome::Delivered);
        assert_eq!(Frame::read(&run.frame).ports(), [4000, TARGET_PORT]);
        let second = packet(TCP, f.a, unused_ip(f), [4000, PORT], SYN);
        let run = cluster.expect(Hook::FromPod, &second, REDIRECT, Outcome::Delivered);
        let [other, _] = Frame::read(&run.frame).ports();
        assert!(other >= 40_960, "{other}");
        for (port, vip) in [(4000, cluster_ip(f)), (other, unused_ip(f))] {
            let answer = packet(TCP, f.b, f.a, [TARGET_PORT, port], SYN | ACK);
            let run = from_b(&cluster, &answer, REDIRECT);
            assert_ends(&run, vip, f.a, [PORT, 4000], &answer);
        }
    }
}

#[test]
fn only_clients_of_the_source_ranges_are_let_in() {
    let (cluster, _bed) = cluster();
    for (n, f) in FAMILIES.into_iter().enumerate() {
        let slab = slab(&cluster, 0, 1, TCP, &[f.b]);
        let frontend = Frontend {
            internal: slab,
            source_ranges: 5 + n as u32,
            ..Frontend::default()
        };
        cluster
            .datapath
            .frontends()
            .insert(&frontend_key(cluster_ip(f), PORT, TCP), &frontend)
            .unwrap();
        let sent = packet(TCP, f.a, cluster_ip(f), [4000, PORT], SYN);
        cluster.expect(Hook::FromPod, &sent, DROP, Outcome::SourceRange);
        let allow = |ranges: u32| {
            let key = SourceRangeKey {
                prefix_len: 32 + 120,
                ranges: ranges.to_be(),
                address: Addr::from(ip(f.a)).masked(120),
            };
            cluster.datapath.source_ranges().insert(&key, &1).unwrap();
        };
        allow(99);
        cluster.expect(Hook::FromPod, &sent, DROP, Outcome::SourceRange);
        allow(5 + n as u32);
        cluster.expect(Hook::FromPod, &sent, REDIRECT, Outcome::Delivered);
    }
}

#[test]
fn sctp_goes_where_its_port_stays() {
    let (cluster, _bed) = cluster();
    for f in FAMILIES {
        let slab = slab(&cluster, 0, 1, SCTP, &[f.b]);
        for port in [PORT, TARGET_PORT] {
            publish(&cluster, cluster_ip(f), port, SCTP, slab);
        }
        let sent = |port: u16| {
            let ports = [4000_u16.to_be_bytes(), port.to_be_bytes()].concat();
            Frame::udp(f.a, cluster_ip(f)).protocol(SCTP, &[&ports[..], b"tag.sum.rest"].concat())
        };
        cluster.expect(Hook::FromPod, &sent(PORT), DROP, Outcome::SctpPort);
        let run = cluster.expect(Hook::FromPod, &sent(TARGET_PORT), REDIRECT, Outcome::Delivered);
        let got = Frame::read(&run.frame);
        assert_eq!(
            (got.destination, &got.payload),
            (ip(f.b), &sent(TARGET_PORT).payload)
        );
    }
}

#[test]
fn fragments_follow_their_first() {
    let (cluster, _bed) = cluster();
    for f in FAMILIES {
        let slab = slab(&cluster, 0, 1, UDP, &[f.b]);
        publish(&cluster, cluster_ip(f), PORT, UDP, slab);
        let first = packet(UDP, f.a, cluster_ip(f), [4000, PORT], 0).fragment(0);
        let first = Frame {
            more_fragments: true,
            ..first
        };
        let later = Frame::udp(f.a, cluster_ip(f))
            .protocol(UDP, b"the rest")
            .fragment(16);
        // Nothing is known of it yet.
        cluster.expect(Hook::FromPod, &later, DROP, Outcome::UnknownFragment);
        cluster.expect(Hook::FromPod, &first, REDIRECT, Outcome::Delivered);
        let run = cluster.expect(Hook::FromPod, &later, REDIRECT, Outcome::Delivered);
        let got = Frame::read(&run.frame);
        assert_eq!((got.source, got.destination), (ip(f.a), ip(f.b)));
        assert_eq!(got.payload, later.payload);
        // As does an answer.
        let first = packet(UDP, f.b, f.a, [TARGET_PORT, 4000], 0).fragment(0);
        let first = Frame {
            more_fragments: true,
            ..first
        };
        from_b(&cluster, &first, REDIRECT);
        let later = Frame::udp(f.b, f.a).protocol(UDP, b"the rest").fragment(16);
        let run = from_b(&cluster, &later, REDIRECT);
        assert_eq!(Frame::read(&run.frame).source, ip(cluster_ip(f)));
    }
}

/// A client outside may send more at once than a pod takes. Its stack cuts that, and must have each part.
#[test]
fn fragments_from_outside_stay_together() {
    let (cluster, _bed) = cluster();
    let f = FAMILIES.into_iter().find(|f| f.v4).unwrap();
    let here = slab(&cluster, 0, 1, UDP, &[f.b]);
    publish(&cluster, every_address(f), NODE_PORT, UDP, here);
    let large = packet(UDP, f.outside, f.node, [50_000, NODE_PORT], 0);
    let large = Frame {
        more_fragments: true,
        ..large.sized(1500).fragment(0)
    };
    let last = Frame::udp(f.outside, f.node)
        .protocol(UDP, b"the rest")
        .fragment(1480);
    for frame in [large, last] {
        let run = cluster.expect(Hook::FromUplink, &frame, NEXT, Outcome::ToStack);
        let got = Frame::read(&run.frame);
        assert_eq!((got.source, got.destination), (ip(f.outside), ip(f.b)));
    }
}

#[test]
fn the_nodes_own_backends_answer_through_its_stack() {
    let (cluster, _bed) = cluster();
    for f in FAMILIES {
        let slab = slab(&cluster, 0, 1, TCP, &[f.node]);
        publish(&cluster, cluster_ip(f), PORT, TCP, slab);
        let sent = packet(TCP, f.a, cluster_ip(f), [4000, PORT], SYN);
        let run = cluster.expect(Hook::FromPod, &sent, NEXT, Outcome::ToStack);
        assert_eq!(Frame::read(&run.frame).destination, ip(f.node));
        let answer = packet(TCP, f.node, f.a, [TARGET_PORT, 4000], SYN | ACK);
        let run = cluster.expect(Hook::ToPod, &answer, NEXT, Outcome::Delivered);
        let got = Frame::read(&run.frame);
        assert_eq!((got.source, got.ports()), (ip(cluster_ip(f)), [PORT, 4000]));
    }
}

#[test]
fn from_outside_to_a_node_port() {
    let (cluster, _bed) = cluster();
    for f in FAMILIES {
        // A backend here sees the client itself.
        let here = slab(&cluster, 0, 1, TCP, &[f.b]);
        publish(&cluster, every_address(f), NODE_PORT, TCP, here);
        let sent = packet(TCP, f.outside, f.node, [50_000, NODE_PORT], SYN);
        let run = cluster.expect(Hook::FromUplink, &sent, REDIRECT, Outcome::Delivered);
        assert_ends(&run, f.outside, f.b, [50_000, TARGET_PORT], &sent);
        // One elsewhere sees this node, to which it answers.
        let there = slab(&cluster, 1, 2, TCP, &[f.pod_2]);
        publish(&cluster, every_address(f), NODE_PORT, TCP, there);
        let sent = packet(TCP, f.outside, f.node, [50_001, NODE_PORT], SYN);
        let run = cluster.expect(Hook::FromUplink, &sent, REDIRECT, Outcome::Routed);
        assert_ends(&run, f.node, f.pod_2, [50_001, TARGET_PORT], &sent);
        // A port below those that the node's own connections are kept out of is not taken.
        let sent = packet(TCP, f.outside, f.node, [4000, NODE_PORT], SYN);
        let run = cluster.expect(Hook::FromUplink, &sent, REDIRECT, Outcome::Routed);
        assert!(Frame::read(&run.frame).ports()[0] >= 40_960);
        // The node's other ports are its own.
        let other = packet(TCP, f.outside, f.node, [50_001, NODE_PORT + 1], SYN);
        cluster.expect(Hook::FromUplink, &other, NEXT, Outcome::NotOurs);
        // So are connections that nobody has begun here: its stack knows them, or resets them.
        let other = packet(TCP, f.outside, f.node, [50_002, NODE_PORT], ACK);
        cluster.expect(Hook::FromUplink, &other, NEXT, Outcome::NotOurs);
        let other = packet(TCP, f.a, f.node, [50_002, NODE_PORT], ACK);
        cluster.expect(Hook::FromPod, &other, NEXT, Outcome::ToStack);
        // A pod's address is believed only where that pod's packets come from.
        let forged = packet(TCP, f.pod_3, f.node, [4000, NODE_PORT], SYN);
        cluster.expect(Hook::FromUplink, &forged, DROP, Outcome::Unencapsulated);
        // The Service ranges are no way through the node.
        let vip = packet(UDP, f.outside, unused_ip(f), [4000, PORT], 0);
        cluster.expect(Hook::FromUplink, &vip, DROP, Outcome::NoService);
    }
}
