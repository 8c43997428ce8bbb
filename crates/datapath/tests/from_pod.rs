//! Crafted packets at `from_pod`.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::{
    bed::Bed,
    cluster::{Cluster, DROP, FAMILIES, NEXT, OVERLAY_PORT, POD_B_MAC, REDIRECT, V4, V6},
    frame::{Frame, checksum},
};
use tombolo_abi::{GATEWAY_MAC, Hook, Outcome, RouteKind, Way};

const HOOK: Hook = Hook::FromPod;

/// The frame after a hop: these MACs, one TTL less, and nothing else.
fn hopped(frame: &Frame, destination_mac: [u8; 6], source_mac: [u8; 6]) -> Vec<u8> {
    Frame {
        destination_mac,
        source_mac,
        ttl: frame.ttl - 1,
        ..frame.clone()
    }
    .build()
}

#[test]
fn to_a_pod_of_the_same_node() {
    let cluster = Cluster::new(&Bed::new());
    for f in FAMILIES {
        for ttl in [2, 64, 255] {
            let frame = Frame::udp(f.a, f.b).ttl(ttl);
            let run = cluster.expect(HOOK, &frame, REDIRECT, Outcome::Delivered);
            assert_eq!(run.frame, hopped(&frame, POD_B_MAC, GATEWAY_MAC), "{f:?}");
        }
    }
}

#[test]
fn to_other_nodes() {
    let cluster = Cluster::new(&Bed::new());
    for f in FAMILIES {
        for (destination, outcome) in [
            (f.pod_2, Outcome::Routed),
            (f.node_2, Outcome::Routed),
            (f.pod_4, Outcome::Routed),
            (f.pod_3, Outcome::Encapsulated),
            (f.node_3, Outcome::Encapsulated),
        ] {
            let frame = Frame::udp(f.a, destination);
            let run = cluster.expect(HOOK, &frame, REDIRECT, outcome);
            assert_eq!(
                run.frame,
                hopped(&frame, frame.destination_mac, frame.source_mac),
                "{f:?}"
            );
        }
    }
}

#[test]
fn what_is_for_the_stack_is_left_as_it_is() {
    let cluster = Cluster::new(&Bed::new());
    for f in FAMILIES {
        for destination in [f.node, f.outside] {
            let frame = Frame::udp(f.a, destination).ttl(1);
            let run = cluster.expect(HOOK, &frame, NEXT, Outcome::ToStack);
            assert_eq!(run.frame, frame.build());
        }
    }
}

#[test]
fn ipv6_over_an_ipv4_next_hop_is_refused() {
    let cluster = Cluster::new(&Bed::new());
    let (key, route) = common::cluster::row(
        "fd00:10:244:2::/112",
        2,
        RouteKind::Pods,
        Way::Direct,
        cluster.uplink,
        V4.node_2,
    );
    cluster.datapath.routes().insert(&key, &route).unwrap();
    cluster.expect(HOOK, &Frame::udp(V6.a, V6.pod_2), DROP, Outcome::NoRoute);
    // The other way round is what RFC 8950 describes.
    let (key, route) = common::cluster::row(
        "10.244.2.0/24",
        2,
        RouteKind::Pods,
        Way::Direct,
        cluster.uplink,
        V6.node_2,
    );
    cluster.datapath.routes().insert(&key, &route).unwrap();
    cluster.expect(HOOK, &Frame::udp(V4.a, V4.pod_2), REDIRECT, Outcome::Routed);
}

#[test]
fn spoofed_sources() {
    let cluster = Cluster::new(&Bed::new());
    for f in FAMILIES {
        // Another pod's, nobody's, the node's, another node's, the outside's.
        for source in [f.b, f.nobody, f.node, f.pod_2, f.outside] {
            for destination in [f.b, f.pod_2, f.pod_3, f.outside] {
                cluster.expect(
                    HOOK,
                    &Frame::udp(source, destination),
                    DROP,
                    Outcome::SpoofedSource,
                );
            }
        }
    }
    cluster.expect(HOOK, &Frame::udp("0.0.0.0", V4.b), DROP, Outcome::SpoofedSource);
    cluster.expect(HOOK, &Frame::udp("fe80::1", V6.b), DROP, Outcome::SpoofedSource);
    cluster.expect(HOOK, &Frame::udp("::", V6.b), DROP, Outcome::SpoofedSource);
}

#[test]
fn an_unknown_pod_of_the_own_block() {
    let cluster = Cluster::new(&Bed::new());
    for f in FAMILIES {
        cluster.expect(HOOK, &Frame::udp(f.a, f.nobody), DROP, Outcome::UnknownEndpoint);
    }
}

#[test]
fn destinations_that_are_no_single_host_past_the_link() {
    let cluster = Cluster::new(&Bed::new());
    let v4 = [
        "224.0.0.1",
        "239.1.1.1",
        "255.255.255.255",
        "240.0.0.1",
        "127.0.0.1",
        "0.0.0.0",
        "169.254.1.1",
    ];
    let v6 = ["ff02::1", "ff0e::1", "::1", "::", "fe80::1", "febf::1"];
    for (f, destinations) in [(V4, &v4[..]), (V6, &v6[..])] {
        for destination in destinations {
            cluster.expect(HOOK, &Frame::udp(f.a, destination), DROP, Outcome::NotRoutable);
        }
    }
    // What a pod's stack says on its own: neighbour solicitation, listener report.
    cluster.expect(
        HOOK,
        &Frame::udp("::", "ff02::1:ff00:5").icmp(0, 135),
        DROP,
        Outcome::NotRoutable,
    );
    cluster.expect(
        HOOK,
        &Frame::udp("fe80::5", "ff02::16").icmp(0, 143),
        DROP,
        Outcome::NotRoutable,
    );
    cluster.expect(
        HOOK,
        &Frame::udp(V6.a, "fe80::1").icmp(0, 135),
        DROP,
        Outcome::NotRoutable,
    );
    // Neighbour discovery has no place past a link, whatever address it is sent to.
    for destination in [V6.b, V6.node, V6.pod_3, V6.outside] {
        for kind in [133, 135, 136, 137] {
            let message = Frame::udp(V6.a, destination).icmp(0, kind).ttl(255);
            cluster.expect(HOOK, &message, DROP, Outcome::NotRoutable);
            cluster.expect(HOOK, &message.clone().extended(0), DROP, Outcome::NotRoutable);
            cluster.expect(HOOK, &message.fragment(0), DROP, Outcome::NotRoutable);
        }
        for kind in [132, 138] {
            let message = Frame::udp(V6.a, V6.b).icmp(0, kind);
            cluster.expect(HOOK, &message, REDIRECT, Outcome::Delivered);
        }
    }
    // Right beside them.
    for destination in ["223.255.255.255", "1.0.0.1", "169.253.1.1", "128.0.0.1"] {
        cluster.expect(HOOK, &Frame::udp(V4.a, destination), NEXT, Outcome::ToStack);
    }
    for destination in ["fec0::1", "::2", "fe7f::1", "2001:db8::1"] {
        cluster.expect(HOOK, &Frame::udp(V6.a, destination), NEXT, Outcome::ToStack);
    }
}

#[test]
fn router_advertisements() {
    let cluster = Cluster::new(&Bed::new());
    for (source, destination) in [
        (V6.a, V6.b),
        ("fe80::5", "ff02::1"),
        (V6.a, V6.pod_3),
        (V6.a, V6.outside),
    ] {
        let advertisement = Frame::udp(source, destination).icmp(0, 134);
        let reason = Outcome::RouterAdvertisement;
        cluster.expect(HOOK, &advertisement, DROP, reason);
        for header in [0, 43, 60] {
            cluster.expect(HOOK, &advertisement.clone().extended(header), DROP, reason);
            cluster.expect(
                HOOK,
                &advertisement.clone().extended(60).extended(header),
                DROP,
                reason,
            );
        }
        // In a first fragment.
        cluster.expect(HOOK, &advertisement.fragment(0), DROP, reason);
    }
    // A later fragment has no type, whatever its first byte says.
    let later = Frame::udp(V6.a, V6.b).icmp(0, 134).fragment(8);
    cluster.expect(HOOK, &later, REDIRECT, Outcome::Delivered);
    // IPv4 has no such message.
    cluster.expect(
        HOOK,
        &Frame::udp(V4.a, V4.b).protocol(58, &[134; 8]),
        REDIRECT,
        Outcome::Delivered,
    );
}

#[test]
fn mapped_addresses_on_the_wire() {
    let cluster = Cluster::new(&Bed::new());
    // Built by hand: the library would write them as IPv4.
    let mut from = Frame::udp(V6.a, V6.b).build();
    from[22..38].copy_from_slice(
        &"::ffff:10.244.1.5"
            .parse::<std::net::Ipv6Addr>()
            .unwrap()
            .octets(),
    );
    let mut to = Frame::udp(V6.a, V6.b).build();
    to[38..54].copy_from_slice(
        &"::ffff:10.244.1.6"
            .parse::<std::net::Ipv6Addr>()
            .unwrap()
            .octets(),
    );
    for bytes in [from, to] {
        cluster.expect_bytes(HOOK, &bytes, 0, DROP, Outcome::MappedAddress, "mapped");
    }
}

#[test]
fn what_is_not_ip() {
    let cluster = Cluster::new(&Bed::new());
    let mut frame = Frame::udp(V4.a, V4.b).build();
    // ARP, VLAN, LLDP, PPPoE.
    for kind in [0x0806_u16, 0x8100, 0x88cc, 0x8864] {
        frame[12..14].copy_from_slice(&kind.to_be_bytes());
        cluster.expect_bytes(HOOK, &frame, 0, DROP, Outcome::NotIp, "an EtherType");
    }
}

#[test]
fn truncated_and_nonsense_headers() {
    let cluster = Cluster::new(&Bed::new());
    let malformed = |bytes: &[u8], what: &str| {
        cluster.expect_bytes(HOOK, bytes, 0, DROP, Outcome::Malformed, what);
    };
    for f in FAMILIES {
        let frame = Frame::udp(f.a, f.b).sized(60).build();
        // Cut anywhere: the header claims more than there is. Cut headers are tested on the wire, for
        // the kernel refuses to run a program on them.
        let header = if f.v4 { 20 } else { 40 };
        for len in 14 + header..frame.len() {
            malformed(&frame[..len], &format!("cut to {len}"));
        }
        let mut other_version = frame.clone();
        other_version[14] ^= 0x20;
        malformed(&other_version, "the other family's version");
        let mut other_type = frame.clone();
        other_type[12..14].copy_from_slice(if f.v4 { &[0x86, 0xdd] } else { &[8, 0] });
        malformed(&other_type, "the other family's EtherType");
    }
    let frame = Frame::udp(V4.a, V4.b).build();
    for ihl in 0..5 {
        let mut short = frame.clone();
        short[14] = 0x40 | ihl;
        malformed(&short, "a header length below 20");
    }
    let mut long = frame.clone();
    long[14] = 0x4f;
    malformed(&long, "a header longer than the packet");
    for total in [0_u16, 19, 65535] {
        let mut wrong = frame.clone();
        wrong[16..18].copy_from_slice(&total.to_be_bytes());
        malformed(&wrong, "a total length below the header's, or above the frame's");
    }
    // Extension headers that run past the end, or on and on.
    let base = Frame::udp(V6.a, V6.b);
    malformed(
        &base.clone().protocol(60, &[17, 200, 0, 0, 0, 0, 0, 0]).build(),
        "an extension past the end",
    );
    malformed(
        &base.clone().protocol(0, &[17, 0, 0]).build(),
        "half an extension",
    );
    malformed(
        &base.clone().protocol(51, &[58, 3, 0, 0]).build(),
        "half an authentication header",
    );
    malformed(&base.clone().protocol(58, &[]).build(), "ICMPv6 without a type");
    let endless = (0..9).fold(base, |frame, _| frame.extended(60));
    malformed(&endless.build(), "nine extensions");
}

#[test]
fn extension_headers_and_fragments_pass() {
    let cluster = Cluster::new(&Bed::new());
    for header in [0, 43, 51, 60, 135, 139, 140] {
        let base = Frame::udp(V6.a, V6.b);
        // An authentication header counts in words, less two.
        let frame = if header == 51 {
            base.protocol(51, &[17, 0, 0, 0, 0, 0, 0, 0])
        } else {
            base.extended(header)
        };
        cluster.expect(HOOK, &frame, REDIRECT, Outcome::Delivered);
    }
    let eight = (0..8).fold(Frame::udp(V6.a, V6.b), |frame, _| frame.extended(60));
    cluster.expect(HOOK, &eight, REDIRECT, Outcome::Delivered);
    for f in FAMILIES {
        for offset in [0, 8, 1400] {
            for (to, outcome) in [
                (f.b, Outcome::Delivered),
                (f.pod_2, Outcome::Routed),
                (f.pod_3, Outcome::Encapsulated),
            ] {
                cluster.expect(HOOK, &Frame::udp(f.a, to).fragment(offset), REDIRECT, outcome);
            }
        }
    }
    // IPv4 options.
    let mut frame = Frame::udp(V4.a, V4.b).build();
    frame.splice(34..34, [1, 1, 1, 0]);
    frame[14] = 0x46;
    frame[16..18].copy_from_slice(&36_u16.to_be_bytes());
    cluster.expect_bytes(HOOK, &frame, 0, REDIRECT, Outcome::Delivered, "options");
}

#[test]
fn the_overlays_port_is_the_nodes_own() {
    let cluster = Cluster::new(&Bed::new());
    for f in FAMILIES {
        let tunnel = |destination: &str| {
            let mut frame = Frame::udp(f.a, destination);
            frame.payload[2..4].copy_from_slice(&OVERLAY_PORT.to_be_bytes());
            frame
        };
        cluster.expect(HOOK, &tunnel(f.outside), DROP, Outcome::TunnelPort);
        cluster.expect(HOOK, &tunnel(f.outside).fragment(0), DROP, Outcome::TunnelPort);
        // A later fragment has no ports, whatever its bytes say; neither has another protocol.
        cluster.expect(HOOK, &tunnel(f.outside).fragment(8), NEXT, Outcome::ToStack);
        let tcp = tunnel(f.outside).protocol(6, &tunnel(f.outside).payload);
        cluster.expect(HOOK, &tcp, NEXT, Outcome::ToStack);
        // Cut short.
        let short = tunnel(f.outside).protocol(17, &[0, 1]);
        cluster.expect(HOOK, &short, DROP, Outcome::Malformed);
        // Nodes know it by its source; pods may speak as they like.
        cluster.expect(HOOK, &tunnel(f.node), NEXT, Outcome::ToStack);
        cluster.expect(HOOK, &tunnel(f.node_2), REDIRECT, Outcome::Routed);
        cluster.expect(HOOK, &tunnel(f.b), REDIRECT, Outcome::Delivered);
    }
    let config = cluster.datapath.config().unwrap();
    let without = tombolo_abi::Config {
        overlay_port: 0,
        ..config
    };
    cluster.datapath.set_config(&without).unwrap();
    let mut frame = Frame::udp(FAMILIES[0].a, FAMILIES[0].outside);
    for port in [OVERLAY_PORT, 0] {
        frame.payload[2..4].copy_from_slice(&port.to_be_bytes());
        cluster.expect(HOOK, &frame, NEXT, Outcome::ToStack);
    }
}

#[test]
fn to_an_overlay_node_by_a_known_way() {
    let cluster = Cluster::new(&Bed::new());
    cluster.know_the_underlay();
    for f in FAMILIES {
        for ecn in 0..=3 {
            let frame = Frame {
                ecn,
                ..Frame::udp(f.a, f.pod_3)
            };
            let run = cluster.expect(HOOK, &frame, REDIRECT, Outcome::Encapsulated);
            let inner = hopped(&frame, frame.destination_mac, frame.source_mac);
            let outer = &run.frame[14..64];
            assert_eq!(outer[..2], [0x45, ecn], "version, length, congestion");
            assert_eq!(
                outer[2..4],
                (inner.len() as u16 + 36).to_be_bytes(),
                "total length"
            );
            assert_eq!(outer[6..10], [0, 0, 64, 17], "no fragment, TTL, UDP");
            assert_eq!(checksum(&[&outer[..20]]), 0, "the header sums up");
            assert_eq!(outer[12..16], [172, 20, 1, 11], "from this node");
            assert_eq!(outer[16..20], [172, 20, 2, 13], "to that node");
            assert!(outer[20] >= 0xc0, "source port of the dynamic range");
            assert_eq!(outer[22..24], OVERLAY_PORT.to_be_bytes());
            assert_eq!(
                outer[24..26],
                (inner.len() as u16 + 16).to_be_bytes(),
                "UDP length"
            );
            assert_eq!(outer[26..28], [0, 0], "no UDP checksum");
            assert_eq!(outer[28..36], [8, 0, 0, 0, 0, 0, 1, 0], "VXLAN flags and VNI");
            assert_eq!(run.frame[50..], inner, "the packet as it was, a hop on");
        }
    }
}

#[test]
fn flows_keep_their_underlay_path_and_spread() {
    let cluster = Cluster::new(&Bed::new());
    cluster.know_the_underlay();
    let source_port = |inner_port: u16| {
        let mut frame = Frame::udp(V4.a, V4.pod_3);
        frame.payload[..2].copy_from_slice(&inner_port.to_be_bytes());
        let run = cluster.expect(HOOK, &frame, REDIRECT, Outcome::Encapsulated);
        [run.frame[34], run.frame[35]]
    };
    assert_eq!(source_port(1000), source_port(1000));
    let ports: std::collections::BTreeSet<_> = (1000..1032).map(source_port).collect();
    assert!(ports.len() > 16, "32 flows on {} ports", ports.len());
}
