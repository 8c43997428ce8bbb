//! Services at sockets: what processes connect and send to, whom they are told they speak with, and what servers see.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use common::{
    bed::{Other, eventually},
    cluster::{FAMILIES, Family, V4, V6},
    frame::{TCP, UDP, ip},
    hooked::Hooked,
    node::{listen, next, timed},
    service::{
        NODE_PORT, PORT, TARGET_PORT, cluster_ip, every_address, frontend_key, publish, set_state, slab,
        slab_of, unused_ip,
    },
};
use tombolo_abi::{Backend, BackendState, Frontend, Hook, Outcome, SOURCE_PORTS, Slab};

/// How a process writes addresses: those of a family, or those of IPv4 by a socket of IPv6.
const WAYS: [(Family, bool); 3] = [(V4, false), (V6, false), (V4, true)];

/// More than anything takes that comes.
const SECONDS: Duration = Duration::from_secs(5);

/// An address as a socket has it.
fn name(address: &str, mapped: bool) -> IpAddr {
    match ip(address) {
        IpAddr::V4(v4) if mapped => v4.to_ipv6_mapped().into(),
        address => address,
    }
}

/// Any address of the family that an address is written in.
fn any(like: SocketAddr) -> SocketAddr {
    let any = if like.is_ipv4() { "0.0.0.0" } else { "::" };
    SocketAddr::new(ip(any), 0)
}

/// The next datagram that one of several servers takes, which of them, and where it came from.
fn taken(servers: &[UdpSocket]) -> (usize, (Vec<u8>, SocketAddr)) {
    let mut taker = None;
    eventually("a server gets it", || {
        taker = servers.iter().position(|server| {
            server.set_nonblocking(true).unwrap();
            let is_there = server.peek(&mut [0]).is_ok();
            server.set_nonblocking(false).unwrap();
            is_there
        });
        taker.map(drop).ok_or_else(|| "nobody has".to_owned())
    });
    (taker.unwrap(), next(&servers[taker.unwrap()]))
}

/// A server that tells who has connected, `count` times.
fn serve(place: &Other, address: &'static str, port: u16, count: usize) -> std::thread::JoinHandle<()> {
    let listener = place.run(move || TcpListener::bind((ip(address), port)).unwrap());
    std::thread::spawn(move || {
        for _ in 0..count {
            let (mut stream, peer) = listener.accept().unwrap();
            write!(stream, "{} {port}", peer.ip()).unwrap();
        }
    })
}

/// Connects; returns what the server says, and whom the socket is connected with.
fn ask(place: &Other, to: SocketAddr) -> (String, SocketAddr) {
    place.run(move || {
        let mut stream = TcpStream::connect_timeout(&to, SECONDS).unwrap();
        stream.set_read_timeout(Some(SECONDS)).unwrap();
        let peer = stream.peer_addr().unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        (text, peer)
    })
}

/// What a process is told that cannot connect.
fn refusal(place: &Other, to: SocketAddr, patience: Duration) -> ErrorKind {
    place.run(move || TcpStream::connect_timeout(&to, patience).unwrap_err().kind())
}

#[test]
fn tcp_connects_to_a_backend_itself() {
    let node = Hooked::new();
    for (f, mapped) in WAYS {
        let to = SocketAddr::new(name(cluster_ip(f), mapped), PORT);
        for (client, place, backend, seen) in [
            (&node.pod_a, &node.pod_b, f.b, f.a),
            (&node.pod_a, &node.wire, f.pod_2, f.a),
            (&node.pod_a, &node.pod_a, f.a, f.a),
            (&node.own, &node.pod_b, f.b, f.node),
            (&node.own, &node.wire, f.pod_2, f.node),
        ] {
            publish(
                &node.cluster,
                cluster_ip(f),
                PORT,
                TCP,
                slab(&node.cluster, 0, 1, TCP, &[backend]),
            );
            let server = serve(place, backend, TARGET_PORT, 1);
            let (said, peer) = node.counts(Hook::SockConnect, Outcome::Translated, || ask(client, to));
            assert_eq!(said, format!("{seen} {TARGET_PORT}"), "{to} at {backend}");
            assert_eq!(peer, to, "{to} at {backend}");
            server.join().unwrap();
            let flows = node.cluster.datapath.flows().entries().unwrap();
            assert!(flows.is_empty(), "no packet is translated: {flows:?}");
        }
    }
}

/// What was connected to a Service, and then to the same backend by its own address, is not taken for the Service.
#[test]
fn a_socket_that_connects_anew_is_known_by_what_it_asked_for_last() {
    let node = Hooked::new();
    let vip = SocketAddr::new(ip(cluster_ip(V4)), PORT);
    let slab = slab(&node.cluster, 0, 1, UDP, &[V4.b]);
    publish(&node.cluster, cluster_ip(V4), PORT, UDP, slab);
    for client in [&node.own, &node.pod_a] {
        client.run(move || {
            let backend = SocketAddr::new(ip(V4.b), TARGET_PORT);
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.send_to(b"x", vip).unwrap();
            for to in [vip, backend, vip] {
                socket.connect(to).unwrap();
                assert_eq!(socket.peer_addr().unwrap(), to);
            }
        });
    }
}

#[test]
fn unconnected_udp_keeps_its_backend_while_that_serves() {
    let node = Hooked::new();
    for (f, mapped) in WAYS {
        let slab = slab(&node.cluster, 0, 1, UDP, &[f.b, f.pod_2]);
        publish(&node.cluster, cluster_ip(f), PORT, UDP, slab);
        let servers = [
            listen(&node.pod_b, f.b, TARGET_PORT),
            listen(&node.wire, f.pod_2, TARGET_PORT),
        ];
        let to = SocketAddr::new(name(cluster_ip(f), mapped), PORT);
        for (client, address) in [(&node.pod_a, f.a), (&node.own, f.node)] {
            let socket = client.run(move || timed(UdpSocket::bind(any(to)).unwrap()));
            let mut takers = Vec::new();
            for round in 0..12 {
                if round == 6 {
                    // The backend that it has.
                    set_state(&node.cluster, takers[0] as u32 + 1, BackendState::NotServing);
                }
                node.counts(Hook::SockSendmsg, Outcome::Translated, || {
                    socket.send_to(&[round], to).unwrap();
                });
                let (taker, (bytes, from)) = taken(&servers);
                assert_eq!((bytes, from.ip()), (vec![round], ip(address)));
                servers[taker].send_to(b"answer", from).unwrap();
                let (bytes, from) = next(&socket);
                assert_eq!((&bytes[..], from), (&b"answer"[..], to));
                takers.push(taker);
            }
            let first = takers[0];
            assert_eq!(takers, [[first; 6], [1 - first; 6]].concat());
            for id in [1, 2] {
                set_state(&node.cluster, id, BackendState::Serving);
            }
        }
        let flows = node.cluster.datapath.flows().entries().unwrap();
        assert!(flows.is_empty(), "no packet is translated: {flows:?}");
    }
}

/// A backend that serves another Service still.
#[test]
fn unconnected_udp_leaves_a_backend_that_its_service_no_longer_has() {
    let node = Hooked::new();
    for (f, mapped) in WAYS {
        let servers = [
            listen(&node.pod_b, f.b, TARGET_PORT),
            listen(&node.wire, f.pod_2, TARGET_PORT),
        ];
        let both = slab(&node.cluster, 0, 1, UDP, &[f.b, f.pod_2]);
        publish(&node.cluster, cluster_ip(f), PORT + 1, UDP, both);
        publish(&node.cluster, cluster_ip(f), 0, 0, Slab::NONE);
        let to = SocketAddr::new(name(cluster_ip(f), mapped), PORT);
        for client in [&node.pod_a, &node.own] {
            let socket = client.run(move || timed(UdpSocket::bind(any(to)).unwrap()));
            for (taker, only) in [(0, f.b), (1, f.pod_2)] {
                let slab = slab(&node.cluster, 1, 1 + taker as u32, UDP, &[only]);
                publish(&node.cluster, cluster_ip(f), PORT, UDP, slab);
                for _ in 0..2 {
                    socket.send_to(b"x", to).unwrap();
                    assert_eq!(taken(&servers).0, taker, "{to}");
                }
            }
            let key = frontend_key(cluster_ip(f), PORT, UDP);
            assert!(node.cluster.datapath.frontends().remove(&key).unwrap());
            let refused = socket.send_to(b"x", to).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{to}");
        }
    }
}

#[test]
fn what_a_pod_connects_by_udp_stays_with_the_packets() {
    let node = Hooked::new();
    for f in FAMILIES {
        let slab = slab(&node.cluster, 0, 1, UDP, &[f.b]);
        publish(&node.cluster, cluster_ip(f), PORT, UDP, slab);
        let server = listen(&node.pod_b, f.b, TARGET_PORT);
        let to = SocketAddr::new(ip(cluster_ip(f)), PORT);
        let client = node.counts(Hook::SockConnect, Outcome::NotOurs, || {
            node.pod_a.run(move || {
                let socket = timed(UdpSocket::bind((ip(f.a), 0)).unwrap());
                socket.connect(to).unwrap();
                socket
            })
        });
        for names_it in [false, true] {
            if names_it {
                client.send_to(b"x", to).unwrap();
            } else {
                client.send(b"x").unwrap();
            }
            let (_, from) = next(&server);
            server.send_to(b"y", from).unwrap();
            assert_eq!(next(&client), (b"y".to_vec(), to));
        }
        let flows = node.cluster.datapath.flows().entries().unwrap();
        assert_eq!(flows.len(), 2, "{flows:?}");
        node.cluster
            .datapath
            .flows()
            .remove_all(&flows.into_keys().collect::<Vec<_>>())
            .unwrap();
    }
}

/// Answers are not taken for those of a Service that a connected socket has asked by the same port before.
#[test]
fn a_port_that_packets_were_translated_for_is_anothers_now() {
    let node = Hooked::new();
    for f in FAMILIES {
        let slab = slab(&node.cluster, 0, 1, UDP, &[f.b]);
        let [before, now] = [cluster_ip(f), unused_ip(f)].map(|address| {
            publish(&node.cluster, address, PORT, UDP, slab);
            SocketAddr::new(ip(address), PORT)
        });
        let server = listen(&node.pod_b, f.b, TARGET_PORT);
        let bind = |port| {
            let bound = move || timed(UdpSocket::bind((ip(f.a), port)).unwrap());
            node.pod_a.run(bound)
        };
        let connected = bind(0);
        let port = connected.local_addr().unwrap().port();
        let exchange = |client: &UdpSocket, to| {
            client.send_to(b"x", to).unwrap();
            let (_, from) = next(&server);
            server.send_to(b"y", from).unwrap();
            assert_eq!(next(client), (b"y".to_vec(), to));
        };
        connected.connect(before).unwrap();
        exchange(&connected, before);
        drop(connected);
        exchange(&bind(port), now);
    }
}

#[test]
fn what_the_node_connects_by_udp_ends_with_its_backend() {
    let node = Hooked::new();
    for (f, mapped) in WAYS {
        let slab = slab(&node.cluster, 0, 1, UDP, &[f.b]);
        publish(&node.cluster, cluster_ip(f), PORT, UDP, slab);
        let server = listen(&node.pod_b, f.b, TARGET_PORT);
        let vip = SocketAddr::new(name(cluster_ip(f), mapped), PORT);
        let backend = SocketAddr::new(name(f.b, mapped), TARGET_PORT);
        let [ends, stays] = [vip, backend].map(|to| {
            node.own.run(move || {
                let socket = timed(UdpSocket::bind(any(to)).unwrap());
                socket.connect(to).unwrap();
                socket
            })
        });
        let exchange = |client: &UdpSocket, to: SocketAddr| {
            assert_eq!(client.peer_addr().unwrap(), to);
            client.send(b"x").unwrap();
            let (_, from) = next(&server);
            assert_eq!(from.ip(), ip(f.node));
            server.send_to(b"y", from).unwrap();
            assert_eq!(next(client), (b"y".to_vec(), to));
        };
        exchange(&ends, vip);
        exchange(&stays, backend);
        let end = || node.cluster.datapath.end_sockets().unwrap();
        assert_eq!(end(), 0);
        set_state(&node.cluster, 1, BackendState::Gone);
        assert_eq!(end(), 1);
        set_state(&node.cluster, 1, BackendState::Serving);
        let error = ends.recv(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
        ends.connect(vip).unwrap();
        exchange(&ends, vip);
        exchange(&stays, backend);
    }
}

#[test]
fn nobody_serves_and_the_process_knows_at_once() {
    let node = Hooked::new();
    for (f, mapped) in WAYS {
        for protocol in [TCP, UDP] {
            publish(&node.cluster, cluster_ip(f), PORT, protocol, Slab::NONE);
        }
        publish(&node.cluster, cluster_ip(f), 0, 0, Slab::NONE);
        let unbacked = SocketAddr::new(name(cluster_ip(f), mapped), PORT);
        let other_port = SocketAddr::new(name(cluster_ip(f), mapped), PORT + 1);
        let nobodys = SocketAddr::new(name(unused_ip(f), mapped), PORT);
        for (client, to, reason) in [
            (&node.pod_a, unbacked, Outcome::NoBackend),
            (&node.own, unbacked, Outcome::NoBackend),
            (&node.pod_a, other_port, Outcome::NoService),
            (&node.own, other_port, Outcome::NoService),
            (&node.own, nobodys, Outcome::NoService),
        ] {
            let error = node.counts(Hook::SockConnect, reason, || refusal(client, to, SECONDS));
            assert_eq!(error, ErrorKind::ConnectionRefused, "{to}");
            let error = node.counts(Hook::SockSendmsg, reason, || {
                client.run(move || UdpSocket::bind(any(to)).unwrap().send_to(b"x", to).unwrap_err())
            });
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{to}");
        }
        // By its packet, and as soon.
        assert_eq!(
            refusal(&node.pod_a, nobodys, SECONDS),
            ErrorKind::ConnectionRefused
        );
    }
}

#[test]
fn what_a_policy_drops_is_dropped_with_the_packets() {
    let node = Hooked::new();
    for f in FAMILIES {
        let frontend = Frontend {
            flags: Frontend::DROP_INTERNAL,
            ..Frontend::default()
        };
        let key = frontend_key(cluster_ip(f), PORT, TCP);
        node.cluster.datapath.frontends().insert(&key, &frontend).unwrap();
        let to = SocketAddr::new(ip(cluster_ip(f)), PORT);
        for (client, hook, reason) in [
            (&node.pod_a, Hook::FromPod, Outcome::BackendElsewhere),
            (&node.own, Hook::ToUplink, Outcome::NoService),
        ] {
            let before = node.count(hook, reason);
            assert_eq!(
                refusal(client, to, Duration::from_millis(300)),
                ErrorKind::TimedOut
            );
            assert!(node.count(hook, reason) > before, "{}", node.cluster.state());
        }
    }
}

#[test]
fn a_client_keeps_its_backend_on_both_paths() {
    let node = Hooked::new();
    let datapath = &node.cluster.datapath;
    for f in FAMILIES {
        let ports = 8081_u16..8085;
        let backends: Vec<(u32, Backend)> = (1..)
            .zip(ports.clone())
            .map(|(id, port)| {
                let backend = Backend {
                    address: ip(f.b).into(),
                    port: port.to_be(),
                    protocol: TCP,
                    state: BackendState::Serving as u8,
                };
                (id, backend)
            })
            .collect();
        datapath.backends().write(&backends).unwrap();
        let frontend = Frontend {
            internal: slab_of(&node.cluster, 0, &[1, 2, 3, 4]),
            affinity: 7,
            affinity_timeout: 1000,
            ..Frontend::default()
        };
        datapath
            .frontends()
            .insert(&frontend_key(cluster_ip(f), PORT, TCP), &frontend)
            .unwrap();
        for port in ports {
            // As many as there may be; they end with the test.
            drop(serve(&node.pod_b, f.b, port, 1000));
        }
        let to = SocketAddr::new(ip(cluster_ip(f)), PORT);
        for round in 0..8 {
            let mut said = Vec::new();
            for hooked in [round % 2 == 0, round % 2 == 1, true, false] {
                if hooked {
                    datapath.attach_sockets(node.cgroup.path()).unwrap();
                } else {
                    datapath.detach_sockets().unwrap();
                }
                let before = node.count(Hook::SockConnect, Outcome::Translated);
                said.push(ask(&node.pod_a, to).0);
                let translated = node.count(Hook::SockConnect, Outcome::Translated) - before;
                assert_eq!(translated, u64::from(hooked));
            }
            assert!(said.iter().all(|one| *one == said[0]), "{said:?}");
            let kept = datapath.affinity().entries().unwrap();
            assert_eq!(kept.len(), 1, "one client: {kept:?}");
            datapath
                .affinity()
                .remove_all(&kept.into_keys().collect::<Vec<_>>())
                .unwrap();
        }
    }
}

#[test]
fn node_ports_of_this_node_and_of_others() {
    let node = Hooked::new();
    for f in FAMILIES {
        let slab = slab(&node.cluster, 0, 1, TCP, &[f.b]);
        publish(&node.cluster, every_address(f), NODE_PORT, TCP, slab);
        let to = SocketAddr::new(ip(f.node), NODE_PORT);
        for (client, seen) in [(&node.pod_a, f.a), (&node.own, f.node)] {
            let server = serve(&node.pod_b, f.b, TARGET_PORT, 1);
            let (said, peer) = node.counts(Hook::SockConnect, Outcome::Translated, || ask(client, to));
            assert_eq!((said, peer), (format!("{seen} {TARGET_PORT}"), to));
            server.join().unwrap();
        }
        // Another node's own policy counts there; and what is for the process's own host is not the network's.
        let any = if f.v4 { "0.0.0.0" } else { "::" };
        for (client, address) in [(&node.pod_a, f.node_2), (&node.own, f.node_2), (&node.own, any)] {
            let to = SocketAddr::new(ip(address), NODE_PORT);
            let error = node.counts(Hook::SockConnect, Outcome::NotOurs, || {
                refusal(client, to, SECONDS)
            });
            assert_eq!(error, ErrorKind::ConnectionRefused, "{to}");
        }
    }
}

#[test]
fn namespaces_that_are_not_known_are_left_alone() {
    let node = Hooked::new();
    let slab = slab(&node.cluster, 0, 1, TCP, &[V4.b]);
    publish(&node.cluster, cluster_ip(V4), PORT, TCP, slab);
    let stranger = Other::new();
    let path = node.cgroup.path().to_owned();
    stranger.run(move || common::cgroup::Cgroup::join(&path));
    let to = SocketAddr::new(ip(cluster_ip(V4)), PORT);
    let error = node.counts(Hook::SockConnect, Outcome::NotOurs, || {
        refusal(&stranger, to, SECONDS)
    });
    assert_eq!(error, ErrorKind::NetworkUnreachable);
    drop(stranger);
}

#[test]
fn a_port_that_a_translated_flow_has_is_in_use() {
    let node = Hooked::new();
    // Somebody out there, whose flow to a backend there has this node's address.
    node.wire.commands(&[
        "ip addr add 172.20.1.50/24 dev wire0",
        "ip -6 addr add fd00:20:1::50/64 dev wire0 nodad",
    ]);
    for f in FAMILIES {
        let client = if f.v4 { "172.20.1.50" } else { "fd00:20:1::50" };
        let slab = slab(&node.cluster, 0, 1, UDP, &[f.pod_2]);
        publish(&node.cluster, every_address(f), NODE_PORT, UDP, slab);
        let server = listen(&node.wire, f.pod_2, TARGET_PORT);
        node.wire.run(move || {
            let socket = UdpSocket::bind((ip(client), 0)).unwrap();
            socket.send_to(b"x", (ip(f.node), NODE_PORT)).unwrap();
        });
        let (_, from) = next(&server);
        assert_eq!(from.ip(), ip(f.node));
        let (taken, other) = (from.port(), from.port() ^ 1);
        assert!(SOURCE_PORTS.contains(&taken));
        let any = if f.v4 { "0.0.0.0" } else { "::" };
        for address in [f.node, any, f.node] {
            let at = move |port| SocketAddr::new(ip(address), port);
            let error = node.counts(Hook::SockBind, Outcome::PortInUse, || {
                node.own.run(move || UdpSocket::bind(at(taken)).unwrap_err())
            });
            assert_eq!(error.kind(), ErrorKind::AddrInUse);
            // Another port, another protocol.
            node.own.run(move || {
                binds(|| UdpSocket::bind(at(other)));
                binds(|| TcpListener::bind(at(taken)));
            });
        }
        // Another namespace; and when the flow has ended.
        node.pod_a
            .run(move || binds(|| UdpSocket::bind(SocketAddr::new(ip(f.a), taken))));
        let flows = node.cluster.datapath.flows();
        let keys: Vec<_> = flows.entries().unwrap().into_keys().collect();
        flows.remove_all(&keys).unwrap();
        node.own
            .run(move || binds(|| UdpSocket::bind(SocketAddr::new(ip(any), taken))));
    }
}

/// Where somebody has been bound until just now, which what other tests start keeps up for a moment.
fn binds<T>(bind: impl Fn() -> io::Result<T>) {
    eventually("binding a socket", || {
        bind().map(drop).map_err(|error| error.to_string())
    });
}
