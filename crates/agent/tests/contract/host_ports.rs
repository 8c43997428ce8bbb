//! Host ports: there when ADD answers and gone when DEL does, whoever restarts, with and without the API server.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::Signal;
use serde_json::json;
use tombolo_testkit::{Server, ask_tcp, ask_udp, wait_for};

use super::collect::collect;
use crate::DUAL;
use crate::common::{Added, DEADLINE, NODE_ADDRESSES, Node, Pod};

const PORT: u16 = 8080;

/// A pod that serves at its port 80, and has host ports of TCP and UDP that lead there.
fn serving(node: &Node) -> (Pod, Added, Vec<Server>) {
    let pod = Pod::new();
    let added = node
        .add_with(&pod, &[(PORT, 80, "", "tcp"), (PORT, 80, "", "udp")])
        .unwrap();
    let start = |address: &IpAddr| Server::start(&pod.namespace, SocketAddr::new(*address, 80));
    let servers = added.addresses.iter().map(start).collect();
    (pod, added, servers)
}

fn places(port: u16) -> [SocketAddr; 2] {
    NODE_ADDRESSES.map(|a| SocketAddr::new(a.parse().unwrap(), port))
}

/// Somebody outside gets an answer at the node's port by both protocols, in both families, and is seen by its own address.
#[track_caller]
fn assert_reached(node: &Node, port: u16) {
    for to in places(port) {
        let own = if to.is_ipv4() {
            "172.20.1.1"
        } else {
            "fd00:20:1::1"
        };
        let seen = [
            ask_tcp(&node.outside, to, b"question"),
            ask_udp(&node.outside, to, b"question"),
        ];
        let seen = seen.map(|seen| seen.unwrap_or_else(|error| panic!("{to}: {error}")).ip());
        assert_eq!(seen, [own.parse::<IpAddr>().unwrap(); 2], "{to}");
    }
}

#[track_caller]
fn assert_refused(node: &Node, port: u16) {
    for to in places(port) {
        ask_tcp(&node.outside, to, b"question").expect_err("somebody answered");
    }
}

#[test]
fn they_are_there_from_add_to_del() {
    let node = Node::start(&DUAL);
    for _ in 0..3 {
        let (pod, added, _servers) = serving(&node);
        assert_reached(&node, PORT);
        node.check(&pod, &added.printed).unwrap();
        let endpoints = node.get("/v1/endpoints");
        let shown = json!({"protocol": "tcp", "hostPort": PORT, "containerPort": 80});
        assert_eq!(endpoints[0]["hostPorts"][0], shown);
        node.del(&pod);
        assert_refused(&node, PORT);
    }
    let (pod, _added, _servers) = serving(&node);
    let removed = collect(&node, &[]);
    assert_eq!(removed.attachments.len(), 1, "{removed:?}");
    assert_refused(&node, PORT);
    node.del(&pod);
    node.expect_only(&[]);
    assert!(node.traces().host_ports.is_empty());
}

#[test]
fn they_outlast_the_agent_and_the_api_server() {
    let mut node = Node::start(&DUAL);
    let (stays, added, _servers) = serving(&node);
    let goes = Pod::new();
    node.add_with(&goes, &[(PORT + 1, 80, "", "tcp")]).unwrap();
    let before = node.traces().host_ports;
    node.lose_api_server();
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        node.end_agent(signal);
        assert_reached(&node, PORT);
        let agent = thread::scope(|scope| {
            let asking = scope.spawn(|| (0..50).for_each(|_| assert_reached(&node, PORT)));
            let agent = node.another_agent();
            asking.join().unwrap();
            agent
        });
        node.run_agent(agent);
        wait_for(DEADLINE, "the agent to answer", || {
            node.request("GET", "/v1/status", b"").is_ok()
        });
        assert_reached(&node, PORT);
        assert_eq!(node.traces().host_ports, before);
    }
    // A pod goes while nobody is there to see, and the next agent cannot ask anybody.
    node.end_agent(Signal::SIGTERM);
    node.del(&goes);
    node.start_agent();
    wait_for(DEADLINE, "the agent to answer", || {
        node.request("GET", "/v1/status", b"").is_ok()
    });
    node.expect_only(&[(&stays, &added)]);
    assert_eq!(
        node.traces().host_ports,
        added.addresses.iter().copied().collect()
    );
    // Another one comes, and the first goes.
    let next = Pod::new();
    let added_next = node.add_with(&next, &[(PORT + 1, 80, "", "tcp")]).unwrap();
    node.del(&stays);
    assert_refused(&node, PORT);
    node.expect_only(&[(&next, &added_next)]);
    assert_eq!(
        node.traces().host_ports,
        added_next.addresses.iter().copied().collect()
    );
}

#[test]
fn no_two_pods_have_the_same() {
    let node = Node::start(&DUAL);
    let (holder, added, _servers) = serving(&node);
    let second = Pod::new();
    for ports in [
        [(PORT, 81, "", "tcp"), (PORT + 1, 81, "", "tcp")],
        [(PORT + 1, 81, "", "tcp"), (PORT, 81, "172.20.1.11", "udp")],
        [(PORT + 1, 81, "", "tcp"), (PORT, 81, "::", "udp")],
    ] {
        let error = node.add_with(&second, &ports).unwrap_err();
        assert_eq!(error["code"], json!(106), "{error}");
        let details = error["details"].as_str().unwrap();
        assert!(details.contains(&format!("pod shop/{}", holder.id)), "{details}");
        node.expect_only(&[(&holder, &added)]);
        assert_reached(&node, PORT);
    }
    for ports in [
        &[(PORT, 81, "", "sctp")][..],
        &[(PORT + 1, 81, "", "tcp"), (PORT + 1, 82, "127.0.0.1", "tcp")],
    ] {
        node.add_with(&second, ports).unwrap();
        node.del(&second);
    }
    node.del(&holder);
    let again = node.add_with(&second, &[(PORT, 80, "", "tcp")]).unwrap();
    node.expect_only(&[(&second, &again)]);
}

#[test]
fn what_cannot_be_had_is_said() {
    let node = Node::start(&["10.244.1.0/24"]);
    let pod = Pod::new();
    let error = node
        .add_with(&pod, &[(PORT, 80, "fd00:20:1::11", "tcp")])
        .unwrap_err();
    assert_eq!(error["code"], json!(7), "{error}");
    for (port, ip, protocol) in [(0, "", "icmp"), (PORT, "", "icmp"), (PORT, "here", "tcp")] {
        match node.add_with(&pod, &[(port, 80, ip, protocol)]) {
            // Without a host port, nobody asks for anything.
            Ok(_) => {
                assert_eq!(port, 0);
                node.del(&pod);
            }
            Err(error) => assert_eq!(error["code"], json!(7), "{error}"),
        }
    }
    node.expect_only(&[]);
}

/// Whether the agent knows of a pod whose address is not the node's.
fn is_told(node: &Node) -> bool {
    node.get("/v1/status")["messages"]
        .to_string()
        .contains("the node does not have 172.20.1.77 now")
}

/// An address that is not the node's is not given to a pod, and may become the node's later.
#[test]
fn an_address_leads_to_a_pod_as_long_as_it_is_the_nodes() {
    let node = Node::start(&DUAL);
    let later: IpAddr = "172.20.1.77".parse().unwrap();
    let pod = Pod::new();
    let added = node.add_with(&pod, &[(PORT, 80, "172.20.1.77", "tcp")]).unwrap();
    let _server = Server::start(&pod.namespace, SocketAddr::new(added.address(true), 80));
    assert!(node.traces().host_ports.is_empty());
    node.check(&pod, &added.printed).unwrap();
    let told = || is_told(&node);
    wait_for(DEADLINE, "the status to say so", told);
    let mut netlink = node.namespace.netlink();
    let uplink = netlink.require_link("eth0").unwrap().index;
    netlink
        .add_address(uplink, "172.20.1.77/32".parse().unwrap())
        .unwrap();
    wait_for(DEADLINE, "the host port", || !node.traces().host_ports.is_empty());
    let seen = ask_tcp(&node.outside, SocketAddr::new(later, PORT), b"question").unwrap();
    assert_eq!(seen.ip(), "172.20.1.1".parse::<IpAddr>().unwrap());
    node.check(&pod, &added.printed).unwrap();
    assert!(!told());
    let mut remove = node.namespace.command("ip");
    remove.args(["address", "delete", "172.20.1.77/32", "dev", "eth0"]);
    assert!(remove.status().unwrap().success());
    wait_for(DEADLINE, "no host port", || node.traces().host_ports.is_empty());
    wait_for(DEADLINE, "the status to say so", told);
}

/// Whoever looks at the node's addresses first, all pods' host ports are where these are now.
#[test]
fn a_check_and_an_add_of_another_pod_do_not_hide_a_change_of_addresses() {
    let node = Node::start(&DUAL);
    let (waits, other) = (Pod::new(), Pod::new());
    let added = node
        .add_with(&waits, &[(PORT, 80, "172.20.1.77", "tcp")])
        .unwrap();
    let _server = Server::start(&waits.namespace, SocketAddr::new(added.address(true), 80));
    let place = SocketAddr::new("172.20.1.77".parse().unwrap(), PORT);
    let checked = node.add_with(&other, &[(PORT + 1, 80, "", "tcp")]).unwrap();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _raise = Raise(&over);
        for _ in 0..3 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    node.check(&other, &checked.printed).unwrap();
                }
            });
        }
        for _ in 0..20 {
            for (change, is_there) in [("add", true), ("delete", false)] {
                let mut command = node.namespace.command("ip");
                command.args(["address", change, "172.20.1.77/32", "dev", "eth0"]);
                assert!(command.status().unwrap().success());
                let added = Pod::new();
                node.add_with(&added, &[(PORT + 2, 80, "", "tcp")]).unwrap();
                wait_for(DEADLINE, "the host port to follow", || is_told(&node) != is_there);
                if is_there {
                    ask_tcp(&node.outside, place, b"question").unwrap();
                }
                node.del(&added);
            }
        }
    });
}

/// Is raised when it goes, also by a panic: other threads end by it.
struct Raise<'a>(&'a AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
