//! Services when there is no more room, or nobody who may take a packet.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::{
    bed::Bed,
    cluster::{Cluster, DROP, FAMILIES, REDIRECT, V4},
    frame::{Frame, TCP, ip},
    service::{
        NODE_PORT, PORT, TARGET_PORT, cluster_ip, every_address, frontend_key, publish, slab, turn_on,
    },
};
use tombolo_abi::{Addr, FlowKey, FlowState, Frontend, Hook, Outcome, Slab, capacity};

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

fn cluster() -> (Cluster, Bed) {
    let bed = Bed::new();
    let cluster = Cluster::new(&bed);
    turn_on(&cluster);
    (cluster, bed)
}

#[test]
fn a_full_table_of_flows_refuses_new_ones_only() {
    let (cluster, _bed) = cluster();
    let slab = slab(&cluster, 0, 1, TCP, &[V4.pod_2]);
    publish(&cluster, cluster_ip(V4), PORT, TCP, slab);
    let sent = |port, flags| Frame::tcp(V4.a, cluster_ip(V4), [port, PORT], flags, b"");
    cluster.expect(Hook::FromPod, &sent(4000, SYN), REDIRECT, Outcome::Routed);
    // Room for one of a flow's two rows.
    let others = |range: std::ops::Range<usize>| -> Vec<(FlowKey, FlowState)> {
        range
            .map(|n| {
                let key = FlowKey {
                    source: Addr([n as u32, 0, 0, 1]),
                    ..FlowKey::default()
                };
                (key, FlowState::default())
            })
            .collect()
    };
    let flows = cluster.datapath.flows();
    flows.insert_all(&others(0..capacity::FLOWS - 3)).unwrap();
    for port in 4001..4004 {
        cluster.expect(Hook::FromPod, &sent(port, SYN), DROP, Outcome::FlowTableFull);
    }
    flows
        .insert_all(&others(capacity::FLOWS - 3..capacity::FLOWS - 2))
        .unwrap();
    cluster.expect(Hook::FromPod, &sent(4001, SYN), DROP, Outcome::FlowTableFull);
    // What is there goes on, both ways.
    cluster.expect(Hook::FromPod, &sent(4000, ACK), REDIRECT, Outcome::Routed);
    let answer =
        Frame::tcp(V4.pod_2, V4.a, [TARGET_PORT, 4000], SYN | ACK, b"").with_mac(common::cluster::NODE_2_MAC);
    cluster.expect(Hook::FromUplink, &answer, REDIRECT, Outcome::Delivered);
    // And when there is room again, flows begin.
    let two: Vec<FlowKey> = others(0..2).into_iter().map(|(key, _)| key).collect();
    flows.remove_all(&two).unwrap();
    cluster.expect(Hook::FromPod, &sent(4001, SYN), REDIRECT, Outcome::Routed);
    assert_eq!(flows.entries().unwrap().len(), capacity::FLOWS);
}

#[test]
fn a_backend_without_a_free_port_takes_no_more() {
    let (cluster, _bed) = cluster();
    for f in FAMILIES {
        let slab = slab(&cluster, 0, 1, TCP, &[f.pod_2]);
        publish(&cluster, every_address(f), NODE_PORT, TCP, slab);
        // All answers of the backend to this node are somebody's.
        let answers: Vec<(FlowKey, FlowState)> = (40_960..=u16::MAX)
            .map(|port| {
                let key = FlowKey {
                    source: ip(f.pod_2).into(),
                    destination: ip(f.node).into(),
                    source_port: TARGET_PORT.to_be(),
                    destination_port: port.to_be(),
                    protocol: TCP,
                    ..FlowKey::default()
                };
                (key, FlowState::default())
            })
            .collect();
        let flows = cluster.datapath.flows();
        flows.insert_all(&answers).unwrap();
        let sent = |port| Frame::tcp(f.outside, f.node, [port, NODE_PORT], SYN, b"");
        cluster.expect(Hook::FromUplink, &sent(50_000), DROP, Outcome::NoSourcePort);
        cluster.expect(Hook::FromUplink, &sent(4000), DROP, Outcome::NoSourcePort);
        let before = flows.entries().unwrap().len();
        assert!(flows.remove(&answers[50_000 - 40_960].0).unwrap());
        let run = cluster.expect(Hook::FromUplink, &sent(50_000), REDIRECT, Outcome::Routed);
        assert_eq!(Frame::read(&run.frame).ports(), [50_000, TARGET_PORT]);
        assert_eq!(flows.entries().unwrap().len(), before + 1);
    }
}

#[test]
fn the_port_of_a_connection_that_is_over_is_given_anew() {
    let (cluster, _bed) = cluster();
    for f in FAMILIES {
        let slab = slab(&cluster, 0, 1, TCP, &[f.pod_2]);
        publish(&cluster, every_address(f), NODE_PORT, TCP, slab);
        let rows = || cluster.datapath.flows().entries().unwrap().len();
        let others = rows();
        let sent = |client, flags| Frame::tcp(client, f.node, [50_000, NODE_PORT], flags, b"");
        let neighbour = if f.v4 { "198.51.100.77" } else { "2001:db8:100::77" };
        cluster.expect(Hook::FromUplink, &sent(f.outside, SYN), REDIRECT, Outcome::Routed);
        let run = cluster.expect(Hook::FromUplink, &sent(neighbour, SYN), REDIRECT, Outcome::Routed);
        assert_ne!(
            Frame::read(&run.frame).ports()[0],
            50_000,
            "it is the first client's"
        );
        assert_eq!(rows(), others + 4);
        cluster.expect(Hook::FromUplink, &sent(f.outside, RST), REDIRECT, Outcome::Routed);
        let third = if f.v4 { "198.51.100.78" } else { "2001:db8:100::78" };
        let run = cluster.expect(Hook::FromUplink, &sent(third, SYN), REDIRECT, Outcome::Routed);
        assert_eq!(Frame::read(&run.frame).ports(), [50_000, TARGET_PORT]);
        assert_eq!(rows(), others + 4, "the first connection's are gone");
    }
}

#[test]
fn a_port_that_a_service_had_may_go_to_its_backend_next() {
    let (cluster, _bed) = cluster();
    for f in FAMILIES {
        let vip = cluster_ip(f);
        let slab = slab(&cluster, 0, 1, TCP, &[f.pod_2]);
        publish(&cluster, vip, PORT, TCP, slab);
        let by_service = |flags| Frame::tcp(f.a, vip, [4000, PORT], flags, b"");
        let direct = |flags| Frame::tcp(f.a, f.pod_2, [4000, TARGET_PORT], flags, b"");
        let answer = |flags| {
            Frame::tcp(f.pod_2, f.a, [TARGET_PORT, 4000], flags, b"").with_mac(common::cluster::NODE_2_MAC)
        };
        let from = |run: tombolo_datapath::Run| Frame::read(&run.frame).source;
        cluster.expect(Hook::FromPod, &by_service(SYN), REDIRECT, Outcome::Routed);
        cluster.expect(Hook::FromPod, &by_service(FIN | ACK), REDIRECT, Outcome::Routed);
        let run = cluster.expect(Hook::FromUplink, &answer(FIN | ACK), REDIRECT, Outcome::Delivered);
        assert_eq!(from(run), ip(vip));
        cluster.expect(Hook::FromPod, &direct(SYN), REDIRECT, Outcome::Routed);
        let run = cluster.expect(Hook::FromUplink, &answer(SYN | ACK), REDIRECT, Outcome::Delivered);
        assert_eq!(from(run), ip(f.pod_2), "the backend itself answers");
    }
}

#[test]
fn clients_outside_are_refused_or_dropped_as_the_policy_says() {
    let (cluster, _bed) = cluster();
    for f in FAMILIES {
        publish(&cluster, every_address(f), NODE_PORT, TCP, Slab::NONE);
        let sent = Frame::tcp(f.outside, f.node, [4000, NODE_PORT], SYN, b"data");
        // The answer would leave by the kernel's routes, of which there are none here.
        let run = cluster.expect(Hook::FromUplink, &sent, DROP, Outcome::NoBackend);
        let reset = Frame::read(&run.frame);
        assert_eq!((reset.source, reset.destination), (ip(f.node), ip(f.outside)));
        assert_eq!(reset.ports(), [NODE_PORT, 4000]);
        assert_eq!(reset.payload[13], RST | ACK);
        // Policy Local, and all backends are on other nodes, for which a client of the cluster has no such limit.
        let frontend = Frontend {
            internal: slab(&cluster, 0, 1, TCP, &[f.pod_2]),
            flags: Frontend::DROP_EXTERNAL,
            ..Frontend::default()
        };
        let key = frontend_key(every_address(f), NODE_PORT, TCP);
        cluster.datapath.frontends().insert(&key, &frontend).unwrap();
        let run = cluster.expect(Hook::FromUplink, &sent, DROP, Outcome::BackendElsewhere);
        assert_eq!(run.frame, sent.build(), "nobody is told");
        let sent = Frame::tcp(f.a, f.node, [4000, NODE_PORT], SYN, b"data");
        cluster.expect(Hook::FromPod, &sent, REDIRECT, Outcome::Routed);
    }
}
