//! Which of its backends a Service's flow goes to.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::{collections::BTreeMap, net::Ipv4Addr};

use common::{
    bed::Bed,
    cluster::{Cluster, REDIRECT, V4},
    frame::{Frame, TCP, UDP, ip},
    service::{
        NODE_PORT, PORT, cluster_ip, every_address, frontend_key, maglev, publish, set_state, slab, slab_of,
        turn_on,
    },
};
use tombolo_abi::{Addr, Affinity, AffinityKey, BackendState, Frontend, Hook, Outcome, Slab};
use tombolo_datapath::Packet;

const SYN: u8 = 2;

fn cluster() -> (Cluster, Bed) {
    let bed = Bed::new();
    let cluster = Cluster::new(&bed);
    turn_on(&cluster);
    (cluster, bed)
}

/// Backends on node 2.
fn pods(count: u8) -> Vec<String> {
    (0..count).map(|n| format!("10.244.2.{}", 10 + n)).collect()
}

fn references(addresses: &[String]) -> Vec<&str> {
    addresses.iter().map(String::as_str).collect()
}

/// Where a packet goes.
#[track_caller]
fn taken(cluster: &Cluster, hook: Hook, frame: &Frame) -> String {
    let packet = Packet {
        frame: &frame.build(),
        ifindex: cluster.device(hook),
        ..Packet::default()
    };
    let run = cluster.datapath.test_run(hook, &packet).unwrap();
    assert_eq!(run.action, REDIRECT, "{frame:?}\n{}", cluster.state());
    Frame::read(&run.frame).destination.to_string()
}

/// The statistic of Pearson's test, of how often each backend was found, and should have been.
fn chi_square(found: &[(f64, f64)]) -> f64 {
    found
        .iter()
        .map(|(found, expected)| (found - expected).powi(2) / expected)
        .sum()
}

#[test]
fn connections_of_a_pod_are_spread_as_chance_has_it() {
    /// Six degrees of freedom: chance alone goes beyond it once in a million times.
    const BOUND: f64 = 38.26;
    const CONNECTIONS: u16 = 10_000;
    let (cluster, _bed) = cluster();
    let pods = pods(7);
    let slab = slab(&cluster, 0, 1, TCP, &references(&pods));
    publish(&cluster, cluster_ip(V4), PORT, TCP, slab);
    let mut counts: BTreeMap<String, f64> = BTreeMap::new();
    for port in 1024..1024 + CONNECTIONS {
        let sent = Frame::tcp(V4.a, cluster_ip(V4), [port, PORT], SYN, b"");
        *counts.entry(taken(&cluster, Hook::FromPod, &sent)).or_default() += 1.0;
    }
    let expected = f64::from(CONNECTIONS) / 7.0;
    let found: Vec<_> = pods
        .iter()
        .map(|pod| (counts.get(pod).copied().unwrap_or_default(), expected))
        .collect();
    let chi_square = chi_square(&found);
    assert!(chi_square < BOUND, "{chi_square}: {counts:?}");
}

/// Where each of some flows from outside goes, none of which has been there before.
fn from_outside(cluster: &Cluster, flows: u16) -> Vec<String> {
    let flows_of = cluster.datapath.flows();
    let known: Vec<_> = flows_of.entries().unwrap().into_keys().collect();
    flows_of.remove_all(&known).unwrap();
    (0..flows)
        .map(|n| {
            let [hi, lo] = n.to_be_bytes();
            let client = Ipv4Addr::new(198, 18, hi, lo).to_string();
            let sent = Frame::tcp(&client, V4.node, [41_000 + n, NODE_PORT], SYN, b"");
            taken(cluster, Hook::FromUplink, &sent)
        })
        .collect()
}

fn publish_maglev(cluster: &Cluster, slab: Slab) {
    let frontend = Frontend {
        external: slab,
        flags: Frontend::MAGLEV_EXTERNAL,
        ..Frontend::default()
    };
    let key = frontend_key(every_address(V4), NODE_PORT, TCP);
    cluster.datapath.frontends().insert(&key, &frontend).unwrap();
}

/// Every node has the same table, so that a router which sends a flow to another node changes nothing; and when one of
/// 100 backends goes, its flows move, and less than one of 50 of all others.
#[test]
fn flows_from_outside_stay_where_they_are_when_a_backend_goes() {
    const FLOWS: u16 = 10_000;
    const GONE: u32 = 42;
    /// 99 degrees of freedom: chance alone goes beyond it once in a million times.
    const BOUND: f64 = 181.0;
    let (cluster, _bed) = cluster();
    let pods = pods(100);
    slab(&cluster, 0, 1, TCP, &references(&pods));
    let all: Vec<u32> = (1..=100).collect();
    publish_maglev(&cluster, slab_of(&cluster, 100, &maglev(&all, 16_381)));
    let before = from_outside(&cluster, FLOWS);
    assert_eq!(before, from_outside(&cluster, FLOWS), "nothing in it is chance");
    let found: Vec<_> = pods
        .iter()
        .map(|pod| {
            let count = before.iter().filter(|backend| *backend == pod).count();
            (count as f64, f64::from(FLOWS) / 100.0)
        })
        .collect();
    let chi_square = chi_square(&found);
    assert!(chi_square < BOUND, "{chi_square}: {found:?}");

    let rest: Vec<u32> = all.iter().copied().filter(|id| *id != GONE).collect();
    publish_maglev(&cluster, slab_of(&cluster, 2000, &maglev(&rest, 16_381)));
    let after = from_outside(&cluster, FLOWS);
    let gone = &pods[GONE as usize - 1];
    assert!(!after.contains(gone));
    let moved = before
        .iter()
        .zip(&after)
        .filter(|(was, is)| *was != gone && was != is)
        .count();
    assert!(moved < usize::from(FLOWS) / 50, "{moved} of {FLOWS}");
}

#[test]
fn affinity_keeps_a_clients_backend_as_long_as_it_is_one() {
    let (cluster, _bed) = cluster();
    let pods = pods(40);
    let slab = slab(&cluster, 0, 100, UDP, &references(&pods));
    publish(&cluster, cluster_ip(V4), PORT, UDP, slab);
    let chosen = |ports: std::ops::Range<u16>| {
        let chosen: std::collections::BTreeSet<_> = ports
            .map(|port| {
                let sent = Frame::datagram(V4.a, cluster_ip(V4), [port, PORT]);
                taken(&cluster, Hook::FromPod, &sent)
            })
            .collect();
        chosen.len()
    };
    assert!(chosen(1000..1400) > 35);
    let frontend = |internal| Frontend {
        internal,
        affinity: 7,
        affinity_timeout: 3600,
        ..Frontend::default()
    };
    let key = frontend_key(cluster_ip(V4), PORT, UDP);
    let (frontends, affinity) = (cluster.datapath.frontends(), cluster.datapath.affinity());
    frontends.insert(&key, &frontend(slab)).unwrap();
    assert_eq!(chosen(2000..2100), 1);
    let kept = affinity.entries().unwrap();
    let [(client, kept)] = kept.iter().collect::<Vec<_>>()[..] else {
        panic!("{kept:?}");
    };
    assert_eq!((client.client, client.affinity), (Addr::from(ip(V4.a)), 7));
    // One that is not of the slab any more is not kept.
    let others: Vec<u32> = (100..140).filter(|id| *id != kept.backend).collect();
    let slab = slab_of(&cluster, 10, &others);
    frontends.insert(&key, &frontend(slab)).unwrap();
    assert_eq!(chosen(2100..2200), 1);
    let now = affinity.get(client).unwrap().unwrap();
    assert_ne!(now.backend, kept.backend);
    // Nor one that does not serve.
    set_state(&cluster, now.backend, BackendState::NotServing);
    assert_eq!(chosen(2200..2300), 1);
    assert_ne!(affinity.get(client).unwrap().unwrap().backend, now.backend);
}

/// A Service's port has one affinity, and backends for clients outside that may be others.
#[test]
fn affinity_keeps_to_the_backends_that_a_client_may_have() {
    let (cluster, _bed) = cluster();
    let pods = pods(3);
    let internal = slab(&cluster, 0, 1, TCP, &references(&pods));
    let frontend = Frontend {
        internal,
        external: slab_of(&cluster, 10, &maglev(&[1, 2], 251)),
        affinity: 7,
        affinity_timeout: 3600,
        flags: Frontend::MAGLEV_EXTERNAL,
        ..Frontend::default()
    };
    let key = frontend_key(every_address(V4), NODE_PORT, TCP);
    cluster.datapath.frontends().insert(&key, &frontend).unwrap();
    let client = AffinityKey {
        client: ip(V4.outside).into(),
        affinity: 7,
    };
    let sent = |port| Frame::tcp(V4.outside, V4.node, [port, NODE_PORT], SYN, b"");
    let first = taken(&cluster, Hook::FromUplink, &sent(50_000));
    let chosen = cluster.datapath.affinity().get(&client).unwrap().unwrap();
    for (kept, wanted) in [
        (3 - chosen.backend, &pods[2 - chosen.backend as usize]),
        // For clients of the cluster only: the choice is made anew.
        (3, &first),
    ] {
        let row = Affinity {
            backend: kept,
            ..chosen
        };
        cluster.datapath.affinity().insert(&client, &row).unwrap();
        let port = 50_000 + kept as u16;
        assert_eq!(&taken(&cluster, Hook::FromUplink, &sent(port)), wanted);
    }
    let counters = cluster.packets();
    assert_eq!(counters.get(&(Hook::FromUplink, Outcome::Routed)), Some(&3));
}
