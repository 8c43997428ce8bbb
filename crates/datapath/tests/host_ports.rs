//! Host ports: at which addresses packets and sockets find them, and what loopback addresses are to whom.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::{
    io::Read as _,
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use common::{
    bed::{Bed, Other},
    cluster::{Cluster, DROP, FAMILIES, Family, NEXT, REDIRECT},
    frame::{Frame, TCP, UDP, ip},
    hooked::Hooked,
    node::{listen, next, timed},
    service::{NODE_PORT, TARGET_PORT, every_address, frontend_key, slab, turn_on},
};
use tombolo_abi::{Frontend, Hook, Outcome, Route, RouteKind, Way};

const SYN: u8 = 2;
const SCTP: u8 = 132;
const SECONDS: Duration = Duration::from_secs(5);

const fn loopback(f: Family) -> &'static str {
    if f.v4 { "127.0.0.1" } else { "::1" }
}

/// Has a port of the node lead to a pod; `flags` of its row.
fn publish(cluster: &Cluster, address: &str, port: u16, protocol: u8, backend: &str, flags: u32) {
    let slab = slab(cluster, 0, 1, protocol, &[backend]);
    let row = Frontend {
        internal: slab,
        external: slab,
        flags,
        ..Frontend::default()
    };
    let key = frontend_key(address, port, protocol);
    cluster.datapath.frontends().insert(&key, &row).unwrap();
}

/// The node's own addresses take no node ports.
fn without_node_ports(cluster: &Cluster) {
    let mut routes = cluster.datapath.routes().entries().unwrap();
    let own = |route: &&mut Route| route.kind == RouteKind::Node as u8 && route.way == Way::Local as u8;
    routes.values_mut().filter(own).for_each(|route| route.flags = 0);
    cluster.datapath.routes().reconcile(&routes).unwrap();
}

#[test]
fn all_addresses_of_the_node_have_them() {
    let bed = Bed::new();
    let cluster = Cluster::new(&bed);
    turn_on(&cluster);
    without_node_ports(&cluster);
    for f in FAMILIES {
        publish(&cluster, every_address(f), NODE_PORT, TCP, f.b, 0);
        let sent = Frame::tcp(f.outside, f.node, [50_000, NODE_PORT], SYN, b"");
        cluster.expect(Hook::FromUplink, &sent, NEXT, Outcome::NotOurs);
        publish(
            &cluster,
            every_address(f),
            NODE_PORT,
            TCP,
            f.b,
            Frontend::HOST_PORT,
        );
        for (hook, client) in [(Hook::FromUplink, f.outside), (Hook::FromPod, f.a)] {
            let sent = Frame::tcp(client, f.node, [50_000, NODE_PORT], SYN, b"");
            let run = cluster.expect(hook, &sent, REDIRECT, Outcome::Delivered);
            let frame = Frame::read(&run.frame);
            assert_eq!((frame.source, frame.destination), (ip(client), ip(f.b)));
            assert_eq!(frame.ports(), [50_000, TARGET_PORT]);
        }
        // SCTP, whose checksum covers its ports, at the pod's own.
        for (port, action, outcome) in [
            (TARGET_PORT, REDIRECT, Outcome::Delivered),
            (NODE_PORT, DROP, Outcome::SctpPort),
        ] {
            publish(&cluster, every_address(f), port, SCTP, f.b, Frontend::HOST_PORT);
            let mut sent = Frame::datagram(f.outside, f.node, [50_000, port]);
            sent.protocol = SCTP;
            cluster.expect(Hook::FromUplink, &sent, action, outcome);
        }
        // Another node's address is not this one's.
        let other = Frame::tcp(f.a, f.node_2, [50_000, NODE_PORT], SYN, b"");
        cluster.expect(Hook::FromPod, &other, REDIRECT, Outcome::Routed);
    }
}

/// Whoever sends a packet to a loopback address has made it up.
#[test]
fn no_packet_finds_one_at_a_loopback_address() {
    let bed = Bed::new();
    let cluster = Cluster::new(&bed);
    turn_on(&cluster);
    for f in FAMILIES {
        let address = loopback(f);
        for protocol in [TCP, UDP] {
            publish(&cluster, address, NODE_PORT, protocol, f.b, Frontend::HOST_PORT);
            publish(
                &cluster,
                every_address(f),
                NODE_PORT,
                protocol,
                f.b,
                Frontend::HOST_PORT,
            );
            let to_it = |from: &str| {
                if protocol == TCP {
                    Frame::tcp(from, address, [50_000, NODE_PORT], SYN, b"")
                } else {
                    Frame::datagram(from, address, [50_000, NODE_PORT])
                }
            };
            cluster.expect(Hook::FromPod, &to_it(f.a), DROP, Outcome::NotRoutable);
            cluster.expect(Hook::FromUplink, &to_it(f.outside), NEXT, Outcome::NotOurs);
        }
    }
    assert!(cluster.datapath.flows().entries().unwrap().is_empty());
}

/// A server that says who has connected, once.
fn serve(place: &Other, address: &'static str, port: u16) -> std::thread::JoinHandle<()> {
    let listener = place.run(move || TcpListener::bind((ip(address), port)).unwrap());
    std::thread::spawn(move || {
        use std::io::Write as _;
        let (mut stream, peer) = listener.accept().unwrap();
        write!(stream, "{}", peer.ip()).unwrap();
    })
}

fn ask(place: &Other, to: SocketAddr) -> String {
    place.run(move || {
        let mut stream = TcpStream::connect_timeout(&to, SECONDS).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), to);
        stream.set_read_timeout(Some(SECONDS)).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    })
}

#[test]
fn the_nodes_sockets_find_them_at_loopback_addresses_and_a_pods_do_not() {
    let node = Hooked::new();
    for f in FAMILIES {
        let to = SocketAddr::new(ip(loopback(f)), NODE_PORT);
        // At all addresses, and then at that alone, which goes before.
        for (address, place, backend) in [
            (every_address(f), &node.pod_b, f.b),
            (loopback(f), &node.pod_a, f.a),
        ] {
            publish(
                &node.cluster,
                address,
                NODE_PORT,
                TCP,
                backend,
                Frontend::HOST_PORT,
            );
            let server = serve(place, backend, TARGET_PORT);
            let said = node.counts(Hook::SockConnect, Outcome::Translated, || ask(&node.own, to));
            assert_eq!(said, f.node, "{to} at {backend}");
            server.join().unwrap();

            publish(
                &node.cluster,
                address,
                NODE_PORT,
                UDP,
                backend,
                Frontend::HOST_PORT,
            );
            let server = listen(place, backend, TARGET_PORT);
            let any = if f.v4 { "0.0.0.0" } else { "::" };
            let client = node
                .own
                .run(move || timed(UdpSocket::bind((ip(any), 0)).unwrap()));
            client.send_to(b"question", to).unwrap();
            let (_, from) = next(&server);
            assert_eq!(from.ip(), ip(f.node));
            server.send_to(b"answer", from).unwrap();
            assert_eq!(next(&client), (b"answer".to_vec(), to));
        }
        // What a pod finds there is the pod's own.
        node.pod_a.commands(&["ip link set lo up"]);
        let server = serve(&node.pod_a, loopback(f), NODE_PORT);
        assert_eq!(ask(&node.pod_a, to), loopback(f));
        server.join().unwrap();

        // A Service's node port is none of the host's own.
        for address in [every_address(f), loopback(f)] {
            let key = frontend_key(address, NODE_PORT, TCP);
            node.cluster.datapath.frontends().remove(&key).unwrap();
        }
        publish(&node.cluster, every_address(f), NODE_PORT, TCP, f.b, 0);
        let failed = node
            .own
            .run(move || TcpStream::connect_timeout(&to, SECONDS).is_err());
        assert!(failed, "{to}");
    }
}
