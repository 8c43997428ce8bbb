//! Real frames on real devices: what a test run cannot carry, and what arrives where.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    os::fd::{AsRawFd as _, OwnedFd},
};

use common::{
    bed::{attach_ways, eventually, ifindex, run},
    cluster::{FAMILIES, Family, OVERLAY_PORT, V4, V6},
    frame::{Frame, IcmpError, ip},
    node::{Node, listen, next, timed},
};
use tombolo_abi::{Hook, Outcome};
use tombolo_datapath::Attach;

/// The next inner frame that the wire gets, whoever it is for; it must be of the overlay.
fn next_inner(socket: &UdpSocket) -> Vec<u8> {
    let (bytes, _) = next(socket);
    assert_eq!(bytes[..8], [8, 0, 0, 0, 0, 0, 1, 0], "flags and VNI");
    bytes[8..].to_vec()
}

fn outer(f: Family) -> [&'static str; 2] {
    // Inner and outer family are independent of each other.
    if f.v4 {
        [V4.node_3, V6.node_3]
    } else {
        [V6.node_3, V4.node_3]
    }
}

#[test]
fn overlay_packets_of_the_nodes_arrive_in_the_pod() {
    let node = Node::new(Attach::Auto);
    for f in FAMILIES {
        let pod = listen(&node.pod_a, f.a, 53);
        for outer in outer(f) {
            let frame = Frame::udp(f.pod_3, f.a).summed();
            node.expect(Hook::FromOverlay, Outcome::Delivered, "delivery", || {
                node.send_encapsulated(outer, 1, &frame.build());
            });
            let (data, from) = next(&pod);
            assert_eq!((&data[..], from.ip()), (&b"data"[..], ip(f.pod_3)));
        }
        // From the node itself.
        node.expect(Hook::FromOverlay, Outcome::Delivered, "delivery", || {
            node.send_encapsulated(V4.node_3, 1, &Frame::udp(f.node_3, f.a).summed().build());
        });
        assert_eq!(next(&pod).1.ip(), ip(f.node_3));
        // To the node itself.
        let here = timed(UdpSocket::bind((ip(f.node), 53)).unwrap());
        node.expect(Hook::FromOverlay, Outcome::ToStack, "the stack", || {
            node.send_encapsulated(V4.node_3, 1, &Frame::udp(f.pod_3, f.node).summed().build());
        });
        assert_eq!(next(&here).1.ip(), ip(f.pod_3));
    }
}

#[test]
fn overlay_packets_that_must_not_be() {
    let node = Node::new(Attach::Auto);
    let refused = |outer: &str, vni: u32, frame: &[u8], reason: Outcome, what: &str| {
        node.expect(Hook::FromOverlay, reason, what, || {
            node.send_encapsulated(outer, vni, frame)
        });
    };
    let known = V4.node_3;
    for f in FAMILIES {
        let good = Frame::udp(f.pod_3, f.a).summed().build();
        for stranger in ["172.20.9.9", "172.20.1.1", "fd00:20:1::1"] {
            refused(stranger, 1, &good, Outcome::UnknownNode, "a stranger");
        }
        for vni in [0, 2, 0x100, 0xff_ffff] {
            refused(known, vni, &good, Outcome::WrongVni, "a VNI");
        }
        for source in [f.pod_2, f.node_2, f.b, f.node, f.outside] {
            let frame = Frame::udp(source, f.a).build();
            refused(
                known,
                1,
                &frame,
                Outcome::UnknownNode,
                "a source that is not that node's",
            );
        }
        refused(
            known,
            1,
            &Frame::udp(f.pod_3, f.nobody).build(),
            Outcome::UnknownEndpoint,
            "nobody",
        );
        for destination in [f.pod_2, f.pod_3, f.node_2, f.outside] {
            let frame = Frame::udp(f.pod_3, destination).build();
            refused(known, 1, &frame, Outcome::NotLocal, "not here");
        }
        let header = if f.v4 { 20 } else { 40 };
        // The kernel's own decapsulation refuses cut headers before any program sees them.
        for len in [14 + header, 14 + header + 5, good.len() - 1] {
            refused(
                known,
                1,
                &good[..len],
                Outcome::Malformed,
                &format!("cut to {len}"),
            );
        }
        let mut version = good.clone();
        version[14] ^= 0x20;
        refused(known, 1, &version, Outcome::Malformed, "a version");
        let mut arp = good.clone();
        arp[12..14].copy_from_slice(&[8, 6]);
        refused(known, 1, &arp, Outcome::NotIp, "ARP");
    }
    let mut mapped = Frame::udp(V6.pod_3, V6.a).build();
    mapped[22..38].copy_from_slice(
        &"::ffff:10.244.3.5"
            .parse::<std::net::Ipv6Addr>()
            .unwrap()
            .octets(),
    );
    refused(known, 1, &mapped, Outcome::MappedAddress, "mapped");
}

#[test]
fn errors_about_overlay_packets_go_back_through_the_tunnel() {
    let node = Node::new(Attach::Auto);
    let wire = listen(&node.wire, V4.node_3, OVERLAY_PORT);
    for f in FAMILIES {
        let frame = Frame::udp(f.pod_3, f.a).summed().ttl(1);
        node.expect(Hook::FromOverlay, Outcome::TtlExceeded, "refusal", || {
            node.send_encapsulated(V4.node_3, 1, &frame.build());
        });
        let error = IcmpError::read(&next_inner(&wire));
        assert_eq!((error.source, error.destination), (ip(f.node), ip(f.pod_3)));
        assert_eq!(error.quote, frame.build()[14..]);
    }
    assert_eq!(node.counted(Hook::ToOverlay), [(Outcome::Encapsulated, 2)].into());
}

#[test]
fn pods_and_the_node_reach_overlay_nodes() {
    let ways = attach_ways().into_iter().map(|attach| (attach, false));
    for (attach, underlay_known) in ways.chain([(Attach::Auto, true)]) {
        std::thread::spawn(move || {
            let node = Node::new(attach);
            if underlay_known {
                node.cluster.know_the_underlay();
            }
            let wire = listen(&node.wire, V4.node_3, OVERLAY_PORT);
            for f in FAMILIES {
                let to = SocketAddr::new(ip(f.pod_3), 9);
                node.pod_a.run(move || {
                    UdpSocket::bind((ip(f.a), 99))
                        .unwrap()
                        .send_to(b"of a pod", to)
                        .unwrap()
                });
                let inner = next_inner(&wire);
                assert_eq!(&inner[inner.len() - 8..], b"of a pod");
                let (ttl, source) = if f.v4 { (22, 26..30) } else { (21, 22..38) };
                assert_eq!(inner[ttl], 63, "one hop");
                let wanted = Frame::udp(f.a, f.pod_3).build();
                assert_eq!(inner[source.clone()], wanted[source.clone()], "its own address");
                UdpSocket::bind((ip(f.node), 0))
                    .unwrap()
                    .send_to(b"of the node", to)
                    .unwrap();
                let inner = next_inner(&wire);
                assert_eq!(&inner[inner.len() - 11..], b"of the node");
                assert_eq!(
                    inner[source.clone()],
                    Frame::udp(f.node, f.pod_3).build()[source],
                    "its own address"
                );
            }
            assert_eq!(node.counted(Hook::FromPod), [(Outcome::Encapsulated, 2)].into());
            // What a program has encapsulated does not pass the device.
            let by_device = if underlay_known { 2 } else { 4 };
            assert_eq!(
                node.counted(Hook::ToOverlay),
                [(Outcome::Encapsulated, by_device)].into()
            );
            assert_eq!(
                node.counted(Hook::ToUplink).get(&Outcome::Routed),
                Some(&4),
                "{}",
                node.cluster.state()
            );
        })
        .join()
        .unwrap();
    }
}

#[test]
fn pods_of_one_node_and_of_a_direct_node_see_each_others_addresses() {
    for attach in attach_ways() {
        std::thread::spawn(move || {
            let node = Node::new(attach);
            for f in FAMILIES {
                for (place, address) in [(&node.pod_b, f.b), (&node.wire, f.pod_2)] {
                    let there = listen(place, address, 7);
                    let here = listen(&node.pod_a, f.a, 8);
                    here.send_to(b"ping", (ip(address), 7)).unwrap();
                    assert_eq!(next(&there), (b"ping".to_vec(), SocketAddr::new(ip(f.a), 8)));
                    there.send_to(b"pong", (ip(f.a), 8)).unwrap();
                    assert_eq!(next(&here), (b"pong".to_vec(), SocketAddr::new(ip(address), 7)));
                }
                // The node and its pod.
                let here = listen(&node.pod_a, f.a, 10);
                let stack = timed(UdpSocket::bind((ip(f.node), 10)).unwrap());
                stack.send_to(b"probe", (ip(f.a), 10)).unwrap();
                assert_eq!(next(&here), (b"probe".to_vec(), SocketAddr::new(ip(f.node), 10)));
                here.send_to(b"alive", (ip(f.node), 10)).unwrap();
                assert_eq!(next(&stack), (b"alive".to_vec(), SocketAddr::new(ip(f.a), 10)));
            }
            // The host's side of the links has transmitted only what the stack sent.
            assert_eq!(node.counted(Hook::ToPod), [(Outcome::Delivered, 2)].into());
            let from = node.counted(Hook::FromPod);
            assert_eq!(
                (
                    from[&Outcome::Delivered],
                    from[&Outcome::Routed],
                    from[&Outcome::ToStack]
                ),
                (4, 2, 2)
            );
            assert_eq!(node.counted(Hook::FromUplink)[&Outcome::Delivered], 2);
        })
        .join()
        .unwrap();
    }
}

#[test]
fn a_pods_stack_learns_the_mtu_of_the_path() {
    let node = Node::new(Attach::Auto);
    for f in FAMILIES {
        for (key, mut route) in node.cluster.datapath.routes().entries().unwrap() {
            route.mtu = 1300;
            node.cluster.datapath.routes().insert(&key, &route).unwrap();
        }
        for to in [f.pod_2, f.pod_3] {
            let socket = listen(&node.pod_a, f.a, 0);
            socket.connect((ip(to), 9)).unwrap();
            // Don't fragment, ever: IP_PMTUDISC_DO.
            let (level, option) = if f.v4 {
                (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER)
            } else {
                (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER)
            };
            set_option(&socket, level, option, libc::IP_PMTUDISC_DO);
            socket.send(&[0; 1350]).unwrap();
            eventually("the pod's stack has learnt", || {
                let to = to.to_owned();
                let route = node.pod_a.run(move || run(&format!("ip route get {to}")));
                if route.contains("mtu 1300") {
                    Ok(())
                } else {
                    Err(format!("{route}\n{}", node.cluster.state()))
                }
            });
            let error = socket.send(&[0; 1350]).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
        }
    }
}

#[test]
fn frames_cut_in_their_headers() {
    let node = Node::new(Attach::Auto);
    for f in FAMILIES {
        let frame = Frame::udp(f.a, f.b).build();
        let header = if f.v4 { 20 } else { 40 };
        for len in [15, 14 + header / 2, 14 + header - 1] {
            let bytes = frame[..len].to_vec();
            node.expect(
                Hook::FromPod,
                Outcome::Malformed,
                &format!("refusal of {len} bytes"),
                || {
                    node.pod_a.run(move || send_frame("eth0", &bytes));
                },
            );
        }
    }
}

#[test]
fn a_vlan_tag_is_not_ip() {
    let node = Node::new(Attach::Auto);
    let mut frame = Frame::udp(V4.a, V4.b).build();
    frame.splice(12..12, [0x81, 0, 0, 5]);
    node.expect(Hook::FromPod, Outcome::NotIp, "refusal", || {
        node.pod_a.run(move || send_frame("eth0", &frame));
    });
}

#[test]
fn an_answer_holds_none_of_its_packets_unfinished_checksum() {
    let node = Node::new(Attach::Auto);
    // So that the kernel itself writes the checksum where a packet says that one is missing.
    finish_checksums_in_software("up0");
    for f in FAMILIES {
        let captured = node.wire.run(|| packet_socket("wire0", libc::ETH_P_ALL));
        let (from, to) = (ip(f.pod_2), ip(f.a));
        node.wire.run(move || {
            let socket = UdpSocket::bind((from, 0)).unwrap();
            let (level, option) = if from.is_ipv4() {
                (libc::IPPROTO_IP, libc::IP_TTL)
            } else {
                (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS)
            };
            set_option(&socket, level, option, 1);
            socket.send_to(&[7; 400], (to, 9)).unwrap();
        });
        eventually("the answer", || {
            let mut frame = [0; 2048];
            let flags = nix::sys::socket::MsgFlags::MSG_DONTWAIT;
            let len = nix::sys::socket::recv(captured.as_raw_fd(), &mut frame, flags).unwrap_or(0);
            let protocol = if f.v4 { 23 } else { 20 };
            let source = if f.v4 { 26..30 } else { 22..38 };
            let answer = Frame::udp(f.node, f.pod_2).icmp(11, 3).build();
            if len < 100 || frame[protocol] != answer[protocol] || frame[source.clone()] != answer[source] {
                return Err(node.cluster.state());
            }
            let error = IcmpError::read(&frame[..len]);
            assert_eq!((error.source, error.destination), (ip(f.node), ip(f.pod_2)));
            Ok(())
        });
    }
}

/// Turns the device's checksum offload off.
fn finish_checksums_in_software(device: &str) {
    const ETHTOOL_STXCSUM: u32 = 0x17;
    const SIOCETHTOOL: libc::c_ulong = 0x8946;
    let mut value = [ETHTOOL_STXCSUM, 0];
    // SAFETY: all zero is a valid request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // SAFETY: the request and what it names are valid.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
}

fn set_option(socket: &UdpSocket, level: i32, option: i32, value: i32) {
    // SAFETY: the value is valid for its length.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), 4) };
    assert_eq!(set, 0, "{}", io::Error::last_os_error());
}

/// Sends a frame as it is.
fn send_frame(device: &str, frame: &[u8]) {
    use nix::sys::socket::{MsgFlags, send};
    let socket = packet_socket(device, 0);
    assert_eq!(
        send(socket.as_raw_fd(), frame, MsgFlags::empty()).unwrap(),
        frame.len()
    );
}

/// A socket for whole frames on a device.
fn packet_socket(device: &str, protocol: i32) -> OwnedFd {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None).unwrap();
    // SAFETY: all zero is a valid address.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (protocol as u16).to_be();
    address.sll_ifindex = ifindex(device).cast_signed();
    // SAFETY: the address is valid for its length.
    let bound = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of_val(&address) as u32,
        )
    };
    assert_eq!(bound, 0, "{}", io::Error::last_os_error());
    socket
}
