//! The agent ends, is killed, and comes back: nothing is leaked, nothing given twice, no packet lost.
#![allow(clippy::unwrap_used, reason = "what panics here fails the test")]

mod common;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{Added, DEADLINE, Node, Pod};
use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};
use proptest::prelude::*;
use tombolo_cni::host_link_name;
use tombolo_testkit::{Server, ask_tcp, wait_for};

const DUAL: [&str; 2] = ["10.244.1.0/24", "fd00:10:244::1:0/112"];

/// Sends numbered datagrams from one pod to another until it is told to end; gives how many it
/// sent, and the numbers of those that did not come.
fn flood(from: &Pod, to: &Pod, at: IpAddr, end: &AtomicBool) -> (u32, Vec<u32>) {
    let receiver = to
        .namespace
        .run(|| UdpSocket::bind(SocketAddr::new(at, 0)).unwrap());
    setsockopt(&receiver, sockopt::RcvBufForce, &(8 << 20)).unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let target = receiver.local_addr().unwrap();
    let any = if at.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let sender = from.namespace.run(|| UdpSocket::bind(any).unwrap());
    let sent = AtomicU32::new(0);
    let came = thread::scope(|scope| {
        scope.spawn(|| {
            while !end.load(Ordering::Relaxed) {
                let number = sent.fetch_add(1, Ordering::Relaxed);
                sender.send_to(&number.to_be_bytes(), target).unwrap();
                thread::sleep(Duration::from_micros(40));
            }
        });
        let mut came = BTreeSet::new();
        let mut number = [0; 4];
        // After the last one comes nothing for as long as the time-out.
        while receiver.recv(&mut number).is_ok() {
            came.insert(u32::from_be_bytes(number));
        }
        came
    });
    let sent = sent.into_inner();
    (sent, (0..sent).filter(|number| !came.contains(number)).collect())
}

#[test]
fn no_packet_is_lost_while_the_agent_is_ended_killed_and_replaced() {
    let mut node = Node::start(&DUAL);
    let (a, b) = (Pod::new(), Pod::new());
    let (added_a, added_b) = (node.add(&a).unwrap(), node.add(&b).unwrap());
    let end = AtomicBool::new(false);
    thread::scope(|scope| {
        let floods: Vec<_> = [true, false]
            .map(|v4| {
                let (a, b, end, at) = (&a, &b, &end, added_b.address(v4));
                scope.spawn(move || flood(a, b, at, end))
            })
            .into_iter()
            .collect();
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            node.end_agent(signal);
            node.start_agent();
            node.wait_ready();
        }
        end.store(true, Ordering::Relaxed);
        for flood in floods {
            let (sent, lost) = flood.join().unwrap();
            assert!(sent > 100, "{sent} packets are no flood");
            assert!(
                lost.is_empty(),
                "of {sent} packets {lost:?} were lost; counted: {}",
                node.metrics()
            );
        }
    });
    node.expect_only(&[(&a, &added_a), (&b, &added_b)]);
}

#[test]
fn what_happened_without_an_agent_is_settled() {
    let mut node = Node::start(&DUAL);
    let pods: Vec<Pod> = (0..4).map(|_| Pod::new()).collect();
    let added: Vec<Added> = pods.iter().map(|p| node.add(p).unwrap()).collect();
    let [stays, deleted, vanished, _] = [0, 1, 2, 3];
    node.end_agent(Signal::SIGTERM);
    // One is deleted through the plugin, one loses its link, one its row, route and programs.
    node.del(&pods[deleted]);
    let mut netlink = node.namespace.netlink();
    netlink
        .delete_link(&host_link_name(&pods[vanished].id, "eth0"))
        .unwrap();
    let damaged = host_link_name(&pods[3].id, "eth0");
    let link = netlink.require_link(&damaged).unwrap();
    for address in &added[3].addresses {
        netlink.delete_neighbour(link.index, *address).unwrap();
    }
    for route in netlink.routes(tombolo_netlink::ROUTE_PROTOCOL).unwrap() {
        if route.ifindex == Some(link.index) {
            netlink.delete_route(&route).unwrap();
        }
    }
    for hook in ["from_pod", "to_pod"] {
        std::fs::remove_file(node.pins().join(format!("links/{damaged}-{hook}"))).unwrap();
    }
    // And something of our scheme is there that nobody knows.
    let stray = host_link_name("nobody", "eth0");
    let pair = tombolo_netlink::Veth {
        name: &stray,
        peer_name: "other",
        ..Default::default()
    };
    netlink.add_veth(&pair).unwrap();

    node.start_agent();
    node.wait_ready();
    node.expect_only(&[(&pods[stays], &added[stays]), (&pods[3], &added[3])]);
    let server = Server::start(&pods[3].namespace, SocketAddr::new(added[3].address(true), 0));
    let seen = ask_tcp(&pods[stays].namespace, server.address(), b"hello").unwrap();
    assert_eq!(seen.ip(), added[stays].address(true));
}

#[test]
fn after_a_reboot_all_addresses_are_free() {
    let mut node = Node::start(&DUAL);
    let pods: Vec<Pod> = (0..3).map(|_| Pod::new()).collect();
    for pod in &pods {
        node.add(pod).unwrap();
    }
    node.end_agent(Signal::SIGKILL);
    // Nothing of the kernel is left, and everything of the disk.
    drop(pods);
    let mut netlink = node.namespace.netlink();
    wait_for(DEADLINE, "the pods' links to go", || {
        !netlink
            .links()
            .unwrap()
            .iter()
            .any(|l| l.name.starts_with(tombolo_cni::HOST_LINK_PREFIX))
    });
    tombolo_datapath::remove(&node.pins()).unwrap();
    node.start_agent();
    node.wait_ready();
    node.expect_only(&[]);
}

#[test]
fn pods_come_and_go_while_the_api_server_is_away() {
    let mut node = Node::start(&DUAL);
    let before = Pod::new();
    let added = node.add(&before).unwrap();
    node.end_agent(Signal::SIGTERM);
    node.lose_api_server();
    node.start_agent();
    node.wait_ready();
    let pod = Pod::new();
    let second = node.add(&pod).unwrap();
    let server = Server::start(&before.namespace, SocketAddr::new(added.address(false), 0));
    let seen = ask_tcp(&pod.namespace, server.address(), b"hello").unwrap();
    assert_eq!(seen.ip(), second.address(false));
    node.del(&before);
    node.expect_only(&[(&pod, &second)]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

    /// The agent is killed at any moment while twelve ADDs and DELs run. The runtime follows each failed ADD with
    /// a DEL, as the specification has it.
    #[test]
    fn killed_at_any_moment(microseconds in prop::collection::vec(0u64..40_000, 3)) {
        let mut node = Node::start(&DUAL);
        common::plugin();
        let mut alive: Vec<(Pod, Added)> = Vec::new();
        let mut ever: BTreeSet<IpAddr> = BTreeSet::new();
        for wait in microseconds {
            let fresh: Vec<Pod> = (0..8).map(|_| Pod::new()).collect();
            let going: Vec<(Pod, Added)> = alive.drain(..alive.len().min(4)).collect();
            let id = node.agent_id();
            let results: Vec<_> = thread::scope(|scope| {
                let node = &node;
                let adds: Vec<_> = fresh.iter().map(|pod| scope.spawn(move || node.add(pod))).collect();
                for (pod, _) in &going {
                    scope.spawn(move || node.plugin("DEL", &pod.id, &pod.namespace.path()));
                }
                let start = Instant::now();
                while start.elapsed() < Duration::from_micros(wait) {
                    std::hint::spin_loop();
                }
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(id as i32), Signal::SIGKILL).unwrap();
                adds.into_iter().map(|add| add.join().unwrap()).collect()
            });
            node.end_agent(Signal::SIGKILL);
            node.start_agent();
            node.wait_ready();
            for (pod, result) in fresh.into_iter().zip(results) {
                match result {
                    Ok(added) => {
                        for address in &added.addresses {
                            prop_assert!(ever.insert(*address), "{address} was given twice");
                        }
                        alive.push((pod, added));
                    }
                    Err(_) => node.del(&pod),
                }
            }
            for (pod, _) in &going {
                node.del(pod);
            }
            node.expect_only(&alive.iter().map(|(p, a)| (p, a)).collect::<Vec<_>>());
        }
    }
}

#[test]
fn an_add_that_was_cut_short_is_undone_without_a_del() {
    let mut node = Node::start(&DUAL);
    common::plugin();
    for wait in [1_000, 2_000, 3_000, 4_000, 6_000, 8_000] {
        let pod = Pod::new();
        let id = node.agent_id();
        let result = thread::scope(|scope| {
            let add = scope.spawn(|| node.add(&pod));
            thread::sleep(Duration::from_micros(wait));
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(id as i32), Signal::SIGKILL).unwrap();
            add.join().unwrap()
        });
        node.end_agent(Signal::SIGKILL);
        let cut_short = node.traces().files.len();
        node.start_agent();
        node.wait_ready();
        match result {
            Ok(added) => node.expect_only(&[(&pod, &added)]),
            // Either it was not begun, or it is undone, or it was complete and only the answer was lost.
            Err(_) if cut_short > 0 => node.expect_only(&[]),
            Err(_) => {}
        }
        node.del(&pod);
        node.expect_only(&[]);
    }
}
