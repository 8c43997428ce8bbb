//! Flows end by themselves, in the kernel.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::collections::BTreeMap;

use common::{
    bed::{Bed, eventually},
    cluster::{Cluster, FAMILIES, REDIRECT, V4},
    frame::{Frame, TCP},
};
use tombolo_abi::{Direction, FlowKey, FlowState, Hook, Outcome, Timeouts};
use tombolo_datapath::{Datapath, Options};

const MILLISECOND: u64 = 1_000_000;
/// Longer than any test.
const NEVER: u64 = 3_600_000 * MILLISECOND;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// A cluster whose flows are tracked, and end when a test says so.
fn cluster(timeouts: Timeouts) -> (Cluster, Bed) {
    let bed = Bed::new();
    for pair in ["tmba pod_a", "tmbb pod_b", "up0 wire0", "tombolo_vxlan x"] {
        let (one, other) = pair.split_once(' ').unwrap();
        common::bed::run(&format!("ip link add {one} type veth peer name {other}"));
    }
    let options = Options {
        track_flows: true,
        timeouts,
        ..bed.options()
    };
    (Cluster::on_devices(Datapath::load(&options).unwrap()), bed)
}

fn all_but(change: impl FnOnce(&mut Timeouts)) -> Timeouts {
    let mut timeouts = Timeouts {
        established: NEVER,
        half_open: NEVER,
        closing: NEVER,
        stream: NEVER,
        other: NEVER,
    };
    change(&mut timeouts);
    timeouts
}

fn flows(cluster: &Cluster) -> BTreeMap<FlowKey, FlowState> {
    cluster.datapath.flows().entries().unwrap()
}

#[track_caller]
fn forgotten(cluster: &Cluster) {
    eventually("the end of the flow", || {
        let flows = flows(cluster);
        if flows.is_empty() {
            Ok(())
        } else {
            Err(format!("{flows:?}"))
        }
    });
}

/// A TCP segment between the pods of the node.
fn segment(from: &str, to: &str, ports: [u16; 2], flags: u8) -> Frame {
    let mut header = vec![0; 20];
    header[0..2].copy_from_slice(&ports[0].to_be_bytes());
    header[2..4].copy_from_slice(&ports[1].to_be_bytes());
    header[12] = 5 << 4;
    header[13] = flags;
    Frame::udp(from, to).protocol(TCP, &header)
}

fn send(cluster: &Cluster, frame: &Frame) {
    // Answers come from the other pod, by the other link.
    let from_b = FAMILIES.iter().any(|f| frame.source == common::frame::ip(f.b));
    let packet = tombolo_datapath::Packet {
        frame: &frame.build(),
        ifindex: if from_b { cluster.link_b } else { cluster.link_a },
        ..Default::default()
    };
    assert_eq!(
        cluster.datapath.test_run(Hook::FromPod, &packet).unwrap().action,
        REDIRECT
    );
}

#[test]
fn without_packets() {
    for f in FAMILIES {
        let (cluster, _bed) = cluster(all_but(|t| t.other = 200 * MILLISECOND));
        cluster.expect(Hook::FromPod, &Frame::udp(f.a, f.b), REDIRECT, Outcome::Delivered);
        assert_eq!(flows(&cluster).len(), 2, "both directions");
        forgotten(&cluster);
    }
}

#[test]
fn not_as_long_as_either_side_sends() {
    let (cluster, _bed) = cluster(all_but(|t| {
        t.other = 150 * MILLISECOND;
        t.stream = 150 * MILLISECOND;
    }));
    let mut answer = Frame::udp(V4.b, V4.a);
    answer.payload[..4].copy_from_slice(&[0, 53, 0x12, 0x34]);
    send(&cluster, &Frame::udp(V4.a, V4.b));
    let begun = std::time::Instant::now();
    while begun.elapsed() < std::time::Duration::from_millis(600) {
        send(&cluster, &answer);
        assert_eq!(flows(&cluster).len(), 2);
    }
    forgotten(&cluster);
}

#[test]
fn tcp_by_its_state() {
    let short = 150 * MILLISECOND;
    let ports = [4000, 80];
    let back = [80, 4000];
    type Step = (bool, u8);
    let opening: [Step; 3] = [(true, SYN), (false, SYN | ACK), (true, ACK)];
    let closing: [Step; 4] = [(true, FIN | ACK), (false, ACK), (false, FIN | ACK), (true, ACK)];
    let run = |timeouts: Timeouts, steps: &[Step]| {
        let (cluster, bed) = cluster(timeouts);
        for (forth, flags) in steps {
            send(
                &cluster,
                &if *forth {
                    segment(V4.a, V4.b, ports, *flags)
                } else {
                    segment(V4.b, V4.a, back, *flags)
                },
            );
        }
        (cluster, bed)
    };
    let stays = |(cluster, _bed): &(Cluster, Bed)| {
        // Past the timer's first time, and some.
        std::thread::sleep(std::time::Duration::from_nanos(3 * short));
        assert_eq!(flows(cluster).len(), 2);
    };
    // Half open: also when the server has answered, and the client has not.
    let half_open = all_but(|t| t.half_open = short);
    forgotten(&run(half_open, &opening[..1]).0);
    forgotten(&run(half_open, &opening[..2]).0);
    stays(&run(half_open, &opening));
    // Over: when both have said so, or one has broken off.
    let over = all_but(|t| t.closing = short);
    forgotten(&run(over, &[&opening[..], &closing[..]].concat()).0);
    forgotten(&run(over, &[&opening[..], &[(false, RST)]].concat()).0);
    stays(&run(over, &[&opening[..], &closing[..2]].concat()));
    // Open.
    let open = all_but(|t| {
        t.half_open = short;
        t.established = 2 * short;
    });
    forgotten(&run(open, &opening).0);
}

#[test]
fn rows_that_were_written_from_outside_wait_for_their_timers() {
    // As those that another ABI version has left: the tests of upgrades look at what becomes of them.
    let (cluster, _bed) = cluster(all_but(|t| t.other = 10 * MILLISECOND));
    let row = FlowState {
        direction: Direction {
            original: 1,
            ..Direction::default()
        },
        ..FlowState::default()
    };
    cluster
        .datapath
        .flows()
        .insert(&FlowKey::default(), &row)
        .unwrap();
    assert_eq!(flows(&cluster).len(), 1);
}
