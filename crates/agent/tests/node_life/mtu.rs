//! The MTU of an uplink changes.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use tombolo_netlink::LinkChange;
use tombolo_testkit::wait_for;

use crate::common::fabric::Fabric;
use crate::common::{DEADLINE, Node, Pod};
use crate::{Conversation, Running};

/// A transfer between two pods that runs until it is told to end; each byte is checked.
struct Bulk {
    received: AtomicU64,
    end: AtomicBool,
}

impl Bulk {
    fn run(&self, from: &Pod, to: &Pod, at: IpAddr) {
        let listener = to.namespace.run(|| TcpListener::bind((at, 0)).unwrap());
        let target = listener.local_addr().unwrap();
        let mut sender = from.namespace.run(|| TcpStream::connect(target).unwrap());
        let (mut receiver, _) = listener.accept().unwrap();
        receiver.set_read_timeout(Some(DEADLINE)).unwrap();
        sender.set_write_timeout(Some(DEADLINE)).unwrap();
        // A length that is prime to everything, so that a byte out of place shows.
        let pattern: Vec<u8> = (0..65_521_u32).map(|n| (n % 251) as u8).collect();
        thread::scope(|scope| {
            scope.spawn(|| {
                while !self.end.load(Ordering::Relaxed) {
                    sender.write_all(&pattern).unwrap();
                }
                sender.shutdown(std::net::Shutdown::Write).unwrap();
            });
            let mut buffer = vec![0; 1 << 16];
            let mut at = 0;
            loop {
                let length = receiver.read(&mut buffer).unwrap();
                if length == 0 {
                    break;
                }
                for &byte in &buffer[..length] {
                    assert_eq!(byte, pattern[at]);
                    at = (at + 1) % pattern.len();
                }
                self.received.fetch_add(length as u64, Ordering::Relaxed);
            }
        });
    }

    /// Waits for another two megabytes.
    #[track_caller]
    fn must_go_on(&self, what: &str, deadline: Duration) {
        let before = self.received.load(Ordering::Relaxed);
        wait_for(deadline, what, || {
            self.received.load(Ordering::Relaxed) > before + (2 << 20)
        });
    }
}

/// Changes the MTU of a node's wire, at both its ends.
fn set_mtu(fabric: &Fabric, node: &Node, mtu: u32) {
    for (namespace, device) in [(&node.namespace, "eth0"), (&*fabric.router, "port1")] {
        let mut netlink = namespace.netlink();
        let index = netlink.require_link(device).unwrap().index;
        let change = LinkChange {
            mtu: Some(mtu),
            ..LinkChange::default()
        };
        netlink.set_link(index, &change).unwrap();
    }
}

/// The path MTU that a node has for the pods of another.
fn path_mtu(node: &Node, to: &str) -> Vec<u64> {
    let routes = node.get("/v1/routes");
    let routes = routes.as_array().unwrap().iter();
    let to_pods = routes.filter(|r| r["kind"] == "pods" && r["node"] == to);
    to_pods.map(|r| r["mtu"].as_u64().unwrap()).collect()
}

fn changes(routing: &str, overhead: u64) {
    let fabric = Fabric::new(routing);
    let (one, two) = (fabric.node(1), fabric.node(2));
    let (a, b) = (Running::on(&one), Running::on(&two));
    let bulks: Vec<(Bulk, &Pod, &Pod, IpAddr)> = [(&a, &b), (&b, &a)]
        .into_iter()
        .flat_map(|(from, to)| [true, false].map(|v4| (from, to, v4)))
        .map(|(from, to, v4)| {
            let bulk = Bulk {
                received: AtomicU64::new(0),
                end: AtomicBool::new(false),
            };
            (bulk, &from.pod, &to.pod, to.address(v4))
        })
        .collect();
    thread::scope(|scope| {
        for (bulk, from, to, at) in &bulks {
            scope.spawn(|| bulk.run(from, to, *at));
        }
        let all = |what: &str, deadline| {
            bulks
                .iter()
                .for_each(|(bulk, ..)| bulk.must_go_on(what, deadline))
        };
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            all("the transfers to flow", DEADLINE);
            for mtu in [1400, 1500, 1340] {
                set_mtu(&fabric, &one, mtu);
                // Far less than the minutes after which TCP would look for a smaller path by itself (RFC 4821).
                all("the transfers to flow again", Duration::from_secs(10));
                let wanted = u64::from(mtu) - overhead;
                for (node, to) in [(&one, "node-2"), (&two, "node-1")] {
                    wait_for(DEADLINE, "the path MTU to follow", || {
                        path_mtu(node, to) == [wanted, wanted]
                    });
                }
                // New pods have it.
                let pod = Pod::new();
                one.add(&pod).unwrap();
                let eth0 = pod.namespace.netlink().require_link("eth0").unwrap();
                assert_eq!(u64::from(eth0.mtu), wanted);
                one.del(&pod);
                let status = one.api.node(one.name()).status.unwrap();
                assert_eq!((u64::from(status.pod_mtu), status.uplinks[0].mtu), (wanted, mtu));
            }
        }));
        for (bulk, ..) in &bulks {
            bulk.end.store(true, Ordering::Relaxed);
        }
        checked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    // Those that run keep theirs, and were told of the smaller path.
    let eth0 = a.pod.namespace.netlink().require_link("eth0").unwrap();
    assert_eq!(u64::from(eth0.mtu), 1500 - overhead);
    let drops = one.get("/v1/drops");
    let told = drops.as_array().unwrap().iter();
    let told = told.filter(|d| d["hook"] == "from_pod" && d["reason"] == "too_big");
    assert!(
        told.map(|d| d["packets"].as_u64().unwrap()).sum::<u64>() > 0,
        "{drops}"
    );
}

#[test]
fn transfers_go_on_when_the_mtu_changes_direct() {
    changes("direct", 0);
}

#[test]
fn transfers_go_on_when_the_mtu_changes_in_the_overlay() {
    changes("vxlan", 50);
}

#[test]
fn an_mtu_that_ipv6_cannot_live_with_is_said_and_costs_ipv4_nothing() {
    let fabric = Fabric::new("vxlan");
    let (one, two) = (fabric.node(1), fabric.node(2));
    let (a, b) = (Running::on(&one), Running::on(&two));
    let [mut v4, mut v6] = Conversation::between(&a, &b);
    set_mtu(&fabric, &one, 1300);
    wait_for(DEADLINE, "the node to be told of as not ready", || {
        let health = one.api.node(one.name()).status.unwrap().health;
        !health.ready && health.message.contains("IPv6 needs 1280")
    });
    assert_eq!(one.add(&Pod::new()).unwrap_err()["code"], 11);
    assert_eq!(path_mtu(&one, "node-2"), [1250, 1250]);
    v4.must_go_on("IPv4 between pods that run");
    set_mtu(&fabric, &one, 1500);
    one.wait_ready();
    v4.must_go_on("IPv4 after the MTU was raised again");
    v6.must_go_on("IPv6 after the MTU was raised again");
    one.add(&Pod::new()).unwrap();
}
