//! Crafted packets at the hooks other than `from_pod`. Overlay packets come with real frames, in
//! `overlay.rs`: a test run has no tunnel key.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::{
    bed::Bed,
    cluster::{Cluster, DROP, FAMILIES, MTU, NEXT, NODE_2_MAC, NODE_4_MAC, REDIRECT, ROUTER_MAC, V4, V6},
    frame::{Frame, IcmpError, POD_MAC, ip},
};
use tombolo_abi::{Endpoint, GATEWAY_MAC, Hook, Outcome};

/// A frame from node 2, by its looks.
fn from_node_2(source: &str, destination: &str) -> Frame {
    Frame::udp(source, destination).with_mac(NODE_2_MAC)
}

#[test]
fn to_pod_lets_in_what_is_for_this_pod() {
    let cluster = Cluster::new(&Bed::new());
    for f in FAMILIES {
        for source in [f.node, f.outside, f.b] {
            // The stack has counted the hop, and answers for the MTU.
            for frame in [
                Frame::udp(source, f.a).ttl(1),
                Frame::udp(source, f.a).sized(3000),
            ] {
                let run = cluster.expect(Hook::ToPod, &frame, NEXT, Outcome::Delivered);
                assert_eq!(run.frame, frame.build());
            }
        }
        cluster.expect(
            Hook::ToPod,
            &Frame::udp(f.node, f.b),
            DROP,
            Outcome::UnknownEndpoint,
        );
        cluster.expect(
            Hook::ToPod,
            &Frame::udp(f.node, f.nobody),
            DROP,
            Outcome::UnknownEndpoint,
        );
        cluster.expect(
            Hook::ToPod,
            &Frame::udp(f.node, f.a).fragment(8),
            NEXT,
            Outcome::Delivered,
        );
    }
    for (source, destination) in [
        (V4.node, "224.0.0.1"),
        (V4.node, "255.255.255.255"),
        ("fe80::2", "ff02::1"),
    ] {
        cluster.expect(
            Hook::ToPod,
            &Frame::udp(source, destination),
            DROP,
            Outcome::NotRoutable,
        );
    }
}

#[test]
fn nothing_broken_gets_to_a_pod_from_the_stack() {
    let cluster = Cluster::new(&Bed::new());
    for f in FAMILIES {
        let mut arp = Frame::udp(f.node, f.a).build();
        arp[12..14].copy_from_slice(&[8, 6]);
        cluster.expect_bytes(Hook::ToPod, &arp, 0, DROP, Outcome::NotIp, "ARP");
        let mut version = Frame::udp(f.node, f.a).build();
        version[14] ^= 0x20;
        cluster.expect_bytes(Hook::ToPod, &version, 0, DROP, Outcome::Malformed, "version");
    }
    let mut mapped = Frame::udp(V6.node, V6.a).build();
    mapped[22..38].copy_from_slice(&"::ffff:1.2.3.4".parse::<std::net::Ipv6Addr>().unwrap().octets());
    cluster.expect_bytes(Hook::ToPod, &mapped, 0, DROP, Outcome::MappedAddress, "mapped");
}

#[test]
fn to_overlay_sends_what_the_stack_sends_to_overlay_nodes() {
    let cluster = Cluster::new(&Bed::new());
    for f in FAMILIES {
        for destination in [f.pod_3, f.node_3] {
            let frame = Frame::udp(f.node, destination).ttl(1).sized(usize::from(MTU));
            let run = cluster.expect(Hook::ToOverlay, &frame, NEXT, Outcome::Encapsulated);
            assert_eq!(run.frame, frame.build());
        }
        for destination in [f.pod_2, f.node_2, f.outside, f.node, f.a] {
            cluster.expect(
                Hook::ToOverlay,
                &Frame::udp(f.node, destination),
                DROP,
                Outcome::NoRoute,
            );
        }
        cluster.expect(
            Hook::ToOverlay,
            &Frame::udp(f.node, f.nobody),
            DROP,
            Outcome::UnknownEndpoint,
        );
        // The stack keeps to the MTU of its routes; what does not is not sent, and not answered.
        let big = Frame::udp(f.node, f.pod_3).sized(usize::from(MTU) + 1);
        cluster.expect(Hook::ToOverlay, &big, DROP, Outcome::TooBig);
        // Of a pod, it is answered.
        let big = Frame::udp(f.a, f.pod_3).sized(usize::from(MTU) + 1);
        let run = cluster.expect(Hook::ToOverlay, &big, REDIRECT, Outcome::TooBig);
        assert_eq!(IcmpError::read(&run.frame).mtu, u32::from(MTU));
        let mut arp = Frame::udp(f.node, f.pod_3).build();
        arp[12..14].copy_from_slice(&[8, 6]);
        cluster.expect_bytes(Hook::ToOverlay, &arp, 0, DROP, Outcome::NotIp, "ARP");
        let mut version = Frame::udp(f.node, f.pod_3).build();
        version[14] ^= 0x20;
        cluster.expect_bytes(Hook::ToOverlay, &version, 0, DROP, Outcome::Malformed, "version");
    }
}

#[test]
fn from_overlay_refuses_what_has_no_tunnel_key() {
    let cluster = Cluster::new(&Bed::new());
    for f in FAMILIES {
        cluster.expect(
            Hook::FromOverlay,
            &Frame::udp(f.pod_3, f.a),
            DROP,
            Outcome::UnknownNode,
        );
    }
}

#[test]
fn from_uplink_delivers_what_comes_the_right_way() {
    let cluster = Cluster::new(&Bed::new());
    for f in FAMILIES {
        for (source, mac) in [
            (f.pod_2, NODE_2_MAC),
            // A node's own address cannot be told from a forged one.
            (f.node_2, NODE_2_MAC),
            (f.node_2, ROUTER_MAC),
            // Past a router, the MAC is the router's.
            (f.pod_4, ROUTER_MAC),
            (f.pod_4, NODE_4_MAC),
        ] {
            let frame = Frame::udp(source, f.a).with_mac(mac);
            let run = cluster.expect(Hook::FromUplink, &frame, REDIRECT, Outcome::Delivered);
            let hopped = Frame {
                destination_mac: POD_MAC,
                source_mac: GATEWAY_MAC,
                ttl: 63,
                ..frame
            };
            assert_eq!(run.frame, hopped.build());
        }
        let later = from_node_2(f.pod_2, f.a).fragment(8);
        cluster.expect(Hook::FromUplink, &later, REDIRECT, Outcome::Delivered);
    }
}

#[test]
fn from_uplink_refuses_what_comes_another_way() {
    let cluster = Cluster::new(&Bed::new());
    let at = Hook::FromUplink;
    for f in FAMILIES {
        for mac in [NODE_4_MAC, ROUTER_MAC] {
            let frame = Frame::udp(f.pod_2, f.a).with_mac(mac);
            cluster.expect(at, &frame, DROP, Outcome::WrongUplinkMac);
        }
        for source in [f.pod_3, f.node_3] {
            cluster.expect(at, &from_node_2(source, f.a), DROP, Outcome::Unencapsulated);
        }
        for source in [f.b, f.nobody, f.node] {
            cluster.expect(at, &from_node_2(source, f.a), DROP, Outcome::SpoofedSource);
        }
        cluster.expect(at, &from_node_2(f.outside, f.a), DROP, Outcome::ExternalToPod);
        for source in [f.pod_2, f.outside] {
            cluster.expect(at, &from_node_2(source, f.nobody), DROP, Outcome::UnknownEndpoint);
            // No router for the pods of others.
            cluster.expect(at, &from_node_2(source, f.pod_3), DROP, Outcome::NotLocal);
            cluster.expect(at, &from_node_2(source, f.pod_2), DROP, Outcome::NotLocal);
        }
    }
}

#[test]
fn from_uplink_passes_on_what_is_not_for_pods() {
    let cluster = Cluster::new(&Bed::new());
    let at = Hook::FromUplink;
    for f in FAMILIES {
        for source in [f.pod_2, f.node_2, f.outside] {
            for destination in [f.node, f.node_2, f.outside] {
                let frame = from_node_2(source, destination).ttl(1);
                let run = cluster.expect(at, &frame, NEXT, Outcome::NotOurs);
                assert_eq!(run.frame, frame.build());
            }
        }
        let mut broken = from_node_2(f.pod_2, f.a).build();
        broken[14] ^= 0x20;
        cluster.expect_bytes(at, &broken, 0, NEXT, Outcome::NotOurs, "the stack's to judge");
        let mut arp = from_node_2(f.pod_2, f.a).build();
        arp[12..14].copy_from_slice(&[8, 6]);
        cluster.expect_bytes(at, &arp, 0, NEXT, Outcome::NotOurs, "ARP");
    }
    for (source, destination) in [
        ("fe80::2", "ff02::1:ff00:11"),
        ("fe80::2", "fe80::3"),
        ("fe80::2", "ff02::1"),
    ] {
        cluster.expect(
            at,
            &from_node_2(source, destination).icmp(0, 134),
            NEXT,
            Outcome::NotOurs,
        );
    }
    for halves in [22..38, 38..54] {
        let mut mapped = from_node_2(V6.pod_2, V6.a).build();
        mapped[halves].copy_from_slice(
            &"::ffff:10.244.1.5"
                .parse::<std::net::Ipv6Addr>()
                .unwrap()
                .octets(),
        );
        cluster.expect_bytes(at, &mapped, 0, DROP, Outcome::MappedAddress, "mapped");
    }
}

#[test]
fn from_uplink_answers_as_a_router_does() {
    let cluster = Cluster::new(&Bed::new());
    for f in FAMILIES {
        let frame = from_node_2(f.pod_2, f.a).ttl(1);
        let run = cluster.expect(Hook::FromUplink, &frame, REDIRECT, Outcome::TtlExceeded);
        let error = IcmpError::read(&run.frame);
        assert_eq!((error.source, error.destination), (ip(f.node), ip(f.pod_2)));
        assert_eq!(error.quote, frame.build()[14..]);
        let small = Endpoint {
            ifindex: cluster.link_a,
            mac: POD_MAC,
            mtu: 1300,
            flags: 0,
        };
        cluster
            .datapath
            .endpoints()
            .insert(&ip(f.a).into(), &small)
            .unwrap();
        let frame = from_node_2(f.pod_2, f.a).sized(1400).dont_fragment();
        let run = cluster.expect(Hook::FromUplink, &frame, REDIRECT, Outcome::TooBig);
        assert_eq!(IcmpError::read(&run.frame).mtu, 1300);
        if f.v4 {
            let frame = from_node_2(f.pod_2, f.a).sized(1400);
            cluster.expect(Hook::FromUplink, &frame, NEXT, Outcome::ToStack);
        }
    }
}

#[test]
fn to_uplink_lets_the_cluster_and_the_node_speak() {
    let cluster = Cluster::new(&Bed::new());
    let at = Hook::ToUplink;
    for f in FAMILIES {
        for destination in [f.pod_2, f.node_2, f.pod_3, f.node_3, f.pod_4] {
            cluster.expect(at, &Frame::udp(f.node, destination), NEXT, Outcome::Routed);
        }
        for destination in [f.pod_2, f.node_2, f.pod_4] {
            cluster.expect(at, &Frame::udp(f.a, destination), NEXT, Outcome::Routed);
        }
        cluster.expect(at, &Frame::udp(f.node, f.outside), NEXT, Outcome::NotOurs);
        cluster.expect(at, &Frame::udp(f.outside, f.outside), NEXT, Outcome::NotOurs);
        // No pod address leaves the cluster, not even one that no pod has any more.
        for source in [f.a, f.nobody] {
            cluster.expect(at, &Frame::udp(source, f.outside), DROP, Outcome::Unmasqueraded);
        }
        let mut arp = Frame::udp(f.node, f.outside).build();
        arp[12..14].copy_from_slice(&[8, 6]);
        cluster.expect_bytes(at, &arp, 0, NEXT, Outcome::NotOurs, "ARP");
    }
    cluster.expect(
        at,
        &Frame::udp("fe80::1", "ff02::2").icmp(0, 133),
        NEXT,
        Outcome::NotOurs,
    );
}
