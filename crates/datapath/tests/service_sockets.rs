//! Services between real sockets over real devices: the source that the backend saw, the peer that the client saw.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use common::{
    bed::{Other, eventually, run},
    cluster::{FAMILIES, Family},
    frame::{TCP, UDP, ip},
    node::{Node, listen, next, timed},
    service::{NODE_PORT, PORT, TARGET_PORT, cluster_ip, every_address, publish, slab, turn_on},
};
use tombolo_abi::{Hook, Outcome};
use tombolo_datapath::Attach;

/// A TCP server that tells its client whom it sees, and then sends back all that comes.
fn serve(place: &Other, address: &'static str) -> std::thread::JoinHandle<()> {
    let listener = place.run(move || TcpListener::bind((ip(address), TARGET_PORT)).unwrap());
    std::thread::spawn(move || {
        let (mut stream, peer) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        writeln!(stream, "{}", peer.ip()).unwrap();
        let mut bytes = vec![0; 1 << 16];
        loop {
            match stream.read(&mut bytes).unwrap() {
                0 => return,
                len => stream.write_all(&bytes[..len]).unwrap(),
            }
        }
    })
}

/// Connects, and sends more than fits any packet both ways; returns whom the server saw.
fn exchange(place: &Other, from: &'static str, to: &'static str, port: u16) -> IpAddr {
    place.run(move || {
        let socket = nix_bound(from);
        let to = SocketAddr::new(ip(to), port);
        let mut stream = connect(socket, to);
        assert_eq!(stream.peer_addr().unwrap(), to);
        let mut seen = Vec::new();
        let mut byte = [0];
        while byte != *b"\n" {
            stream.read_exact(&mut byte).unwrap();
            seen.push(byte[0]);
        }
        let sent: Vec<u8> = (0..300_000_u32).map(|n| n as u8).collect();
        let mut half = stream.try_clone().unwrap();
        let copy = sent.clone();
        let writer = std::thread::spawn(move || half.write_all(&copy).unwrap());
        let mut got = vec![0; sent.len()];
        stream.read_exact(&mut got).unwrap();
        writer.join().unwrap();
        assert!(got == sent);
        let seen = String::from_utf8(seen).unwrap();
        let seen: IpAddr = seen.trim().split('%').next().unwrap().parse().unwrap();
        seen
    })
}

fn nix_bound(from: &str) -> std::os::fd::OwnedFd {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, socket};
    use std::os::fd::AsRawFd as _;
    let family = if ip(from).is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(
        socket.as_raw_fd(),
        &SockaddrStorage::from(SocketAddr::new(ip(from), 0)),
    )
    .unwrap();
    socket
}

fn connect(socket: std::os::fd::OwnedFd, to: SocketAddr) -> TcpStream {
    use nix::sys::socket::{SockaddrStorage, connect};
    use std::os::fd::AsRawFd as _;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
    connect(stream.as_raw_fd(), &SockaddrStorage::from(to)).unwrap();
    stream
}

#[test]
fn tcp_from_a_pod() {
    let node = Node::new(Attach::Auto);
    turn_on(&node.cluster);
    for f in FAMILIES {
        let vip = cluster_ip(f);
        let gateway = if f.v4 { "169.254.1.1" } else { "fe80::1" };
        for (place, backend, seen) in [
            (&node.pod_b, f.b, f.a),
            (&node.wire, f.pod_2, f.a),
            (&node.pod_a, f.a, gateway),
        ] {
            let slab = slab(&node.cluster, 0, 1, TCP, &[backend]);
            publish(&node.cluster, vip, PORT, TCP, slab);
            let server = serve(place, backend);
            assert_eq!(exchange(&node.pod_a, f.a, vip, PORT), ip(seen), "{backend}");
            server.join().unwrap();
        }
    }
}

#[test]
fn udp_from_a_pod() {
    let node = Node::new(Attach::Auto);
    turn_on(&node.cluster);
    // Otherwise its first large datagram is lost, and tells it of the smaller MTU.
    node.wire.commands(&["ip link set wire0 mtu 1450"]);
    for f in FAMILIES {
        let vip = cluster_ip(f);
        for (place, backend) in [(&node.pod_b, f.b), (&node.wire, f.pod_2)] {
            let slab = slab(&node.cluster, 0, 1, UDP, &[backend]);
            publish(&node.cluster, vip, PORT, UDP, slab);
            let server = listen(place, backend, TARGET_PORT);
            let client = node
                .pod_a
                .run(move || timed(UdpSocket::bind((ip(f.a), 0)).unwrap()));
            client.connect((ip(vip), PORT)).unwrap();
            // The second is cut into fragments.
            for size in [10, 4000] {
                client.send(&vec![7; size]).unwrap();
                let (bytes, from) = next(&server);
                assert_eq!((bytes.len(), from), (size, client.local_addr().unwrap()));
                server.send_to(&vec![8; size], from).unwrap();
                let (bytes, from) = next(&client);
                assert_eq!((bytes.len(), from), (size, SocketAddr::new(ip(vip), PORT)));
            }
        }
    }
}

#[test]
fn nobody_serves_and_the_client_knows_at_once() {
    let node = Node::new(Attach::Auto);
    turn_on(&node.cluster);
    for f in FAMILIES {
        node.pod_a.run(move || {
            let to = SocketAddr::new(ip(cluster_ip(f)), PORT);
            let error = TcpStream::connect_timeout(&to, Duration::from_secs(5)).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
            let socket = timed(UdpSocket::bind((ip(f.a), 0)).unwrap());
            socket.connect(to).unwrap();
            socket.send(b"x").unwrap();
            let error = socket.recv(&mut [0; 8]).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        });
    }
}

#[test]
fn a_backend_has_closed_its_port_and_the_client_knows_at_once() {
    let node = Node::new(Attach::Auto);
    turn_on(&node.cluster);
    for f in FAMILIES {
        for backend in [f.b, f.pod_2] {
            let slab = slab(&node.cluster, 0, 1, UDP, &[backend]);
            publish(&node.cluster, cluster_ip(f), PORT, UDP, slab);
            node.pod_a.run(move || {
                let socket = UdpSocket::bind((ip(f.a), 0)).unwrap();
                socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
                socket.connect((ip(cluster_ip(f)), PORT)).unwrap();
                // Neither datagrams nor errors are sent again by themselves.
                eventually("the client is told", || {
                    let told = socket.send(b"x").and_then(|_| socket.recv(&mut [0; 8]));
                    match told {
                        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Ok(()),
                        other => Err(format!("of {backend}: {other:?}")),
                    }
                });
            });
        }
    }
}

/// Somebody out there, who is no node.
const fn client(f: Family) -> &'static str {
    if f.v4 { "172.20.1.50" } else { "fd00:20:1::50" }
}

fn with_client() -> Node {
    let node = Node::new(Attach::Auto);
    turn_on(&node.cluster);
    node.wire.commands(&[
        "ip addr add 172.20.1.50/24 dev wire0",
        "ip -6 addr add fd00:20:1::50/64 dev wire0 nodad",
    ]);
    node
}

#[test]
fn answers_are_made_to_fit_the_way_out() {
    let node = with_client();
    // The client takes more than the uplink, so that the backend has to learn it.
    node.wire.commands(&[
        "ip link set wire0 mtu 1300",
        "ip route add 172.20.1.11/32 dev wire0 src 172.20.1.50 advmss 1460",
        "ip -6 route add fd00:20:1::11/128 dev wire0 src fd00:20:1::50 advmss 1440",
    ]);
    run("ip link set up0 mtu 1300");
    for f in FAMILIES {
        let slab = slab(&node.cluster, 0, 1, TCP, &[f.b]);
        publish(&node.cluster, every_address(f), NODE_PORT, TCP, slab);
        let server = serve(&node.pod_b, f.b);
        let before = node.counted(Hook::FromPod).get(&Outcome::TooBig).copied();
        assert_eq!(exchange(&node.wire, client(f), f.node, NODE_PORT), ip(client(f)));
        server.join().unwrap();
        let after = node.counted(Hook::FromPod).get(&Outcome::TooBig).copied();
        assert!(after > before, "{after:?}");
    }
}

#[test]
fn tcp_from_outside_to_a_node_port() {
    let node = with_client();
    for f in FAMILIES {
        let client = client(f);
        for (place, backend, seen) in [(&node.pod_b, f.b, client), (&node.wire, f.pod_2, f.node)] {
            let slab = slab(&node.cluster, 0, 1, TCP, &[backend]);
            publish(&node.cluster, every_address(f), NODE_PORT, TCP, slab);
            let server = serve(place, backend);
            assert_eq!(
                exchange(&node.wire, client, f.node, NODE_PORT),
                ip(seen),
                "{backend}"
            );
            server.join().unwrap();
        }
    }
}
