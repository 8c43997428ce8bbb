//! Crafted packets at `from_pod`.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::{
    bed::Bed,
    cluster::{Cluster, DROP, FAMILIES, MTU, NEXT, POD_B_MAC, REDIRECT, V4, V6},
    frame::{Frame, IcmpError, POD_MAC, TCP, checksum, ip},
};
use tombolo_abi::{Endpoint, GATEWAY_MAC, Hook, Outcome, RouteKind, Way};

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
fn ttl_exceeded_is_answered() {
    let cluster = Cluster::new(&Bed::new());
    for f in FAMILIES {
        for ttl in [0, 1] {
            for to in [f.b, f.pod_2, f.pod_3] {
                let frame = Frame::udp(f.a, to).ttl(ttl);
                let run = cluster.expect(HOOK, &frame, REDIRECT, Outcome::TtlExceeded);
                assert_eq!(run.frame[..6], POD_MAC);
                assert_eq!(run.frame[6..12], GATEWAY_MAC);
                assert_eq!(
                    IcmpError::read(&run.frame),
                    IcmpError {
                        source: ip(f.node),
                        destination: ip(f.a),
                        kind: if f.v4 { 11 } else { 3 },
                        code: 0,
                        mtu: 0,
                        quote: frame.build()[14..].to_vec(),
                    }
                );
            }
        }
    }
}

#[test]
fn without_a_source_for_errors_the_gateway_speaks() {
    let cluster = Cluster::new(&Bed::new());
    let mut config = cluster.datapath.config().unwrap();
    config.icmp_source_v4 = Default::default();
    config.icmp_source_v6 = Default::default();
    cluster.datapath.set_config(&config).unwrap();
    for (f, gateway) in [(V4, "169.254.1.1"), (V6, "fe80::1")] {
        let run = cluster.expect(HOOK, &Frame::udp(f.a, f.b).ttl(1), REDIRECT, Outcome::TtlExceeded);
        assert_eq!(IcmpError::read(&run.frame).source, ip(gateway));
    }
}

#[test]
fn too_big_is_answered_with_as_much_as_may_be_quoted() {
    let cluster = Cluster::new(&Bed::new());
    for f in FAMILIES {
        for to in [f.b, f.pod_2, f.pod_3] {
            let outcome = [Outcome::Delivered, Outcome::Routed, Outcome::Encapsulated]
                [[f.b, f.pod_2, f.pod_3].iter().position(|t| *t == to).unwrap()];
            let fits = Frame::udp(f.a, to).sized(usize::from(MTU)).dont_fragment();
            cluster.expect(HOOK, &fits, REDIRECT, outcome);
            for size in [usize::from(MTU) + 1, 1500, 3000] {
                let frame = Frame::udp(f.a, to).sized(size).dont_fragment();
                let run = cluster.expect(HOOK, &frame, REDIRECT, Outcome::TooBig);
                let error = IcmpError::read(&run.frame);
                let most = if f.v4 { 576 - 28 } else { 1280 - 48 };
                assert_eq!(
                    error,
                    IcmpError {
                        source: ip(f.node),
                        destination: ip(f.a),
                        kind: if f.v4 { 3 } else { 2 },
                        code: if f.v4 { 4 } else { 0 },
                        mtu: u32::from(MTU),
                        quote: frame.build()[14..14 + most].to_vec(),
                    }
                );
            }
        }
    }
}

/// A node whose pods have a smaller MTU than this one's.
fn lower_mtu_of_node_2(cluster: &Cluster, mtu: u16) {
    let mut routes = cluster.datapath.routes().entries().unwrap();
    for route in routes.values_mut().filter(|r| r.node == 2) {
        route.mtu = mtu;
    }
    cluster.datapath.routes().reconcile(&routes).unwrap();
}

#[test]
fn fragments_stay_together_where_the_stack_has_to_cut_some() {
    let cluster = Cluster::new(&Bed::new());
    lower_mtu_of_node_2(&cluster, 1400);
    let large = Frame::udp(V4.a, V4.pod_2).sized(1450).fragment(0);
    let last = Frame::udp(V4.a, V4.pod_2).sized(100).fragment(1424);
    cluster.expect(HOOK, &large, NEXT, Outcome::ToStack);
    cluster.expect(HOOK, &last, NEXT, Outcome::ToStack);
    // What was never cut goes the short way, and so does what a smaller sender cut.
    let whole = Frame::udp(V4.a, V4.pod_2).sized(100);
    cluster.expect(HOOK, &whole, REDIRECT, Outcome::Routed);
    lower_mtu_of_node_2(&cluster, MTU);
    cluster.expect(HOOK, &last, REDIRECT, Outcome::Routed);
}

#[test]
fn what_is_too_big_for_a_node_itself_is_answered_whatever_it_allows() {
    let cluster = Cluster::new(&Bed::new());
    lower_mtu_of_node_2(&cluster, 1400);
    let large = Frame::udp(V4.a, V4.node_2).sized(1450).fragment(0);
    let run = cluster.expect(HOOK, &large, REDIRECT, Outcome::TooBig);
    assert_eq!(IcmpError::read(&run.frame).mtu, 1400);
    let last = Frame::udp(V4.a, V4.node_2).sized(100).fragment(1424);
    cluster.expect(HOOK, &last, REDIRECT, Outcome::Routed);
}

#[test]
fn every_length_of_a_quote_sums_up() {
    let cluster = Cluster::new(&Bed::new());
    for f in FAMILIES {
        let shortest = if f.v4 { 20 } else { 40 };
        // Around the ends of the parts that are summed up at a time, and all small ones.
        let sizes = (shortest..shortest + 10)
            .chain(500..520)
            .chain(540..560)
            .chain(1010..1030)
            .chain(1220..1240);
        for size in sizes {
            let frame = Frame::udp(f.a, f.b).protocol(132, &[]).sized(size).ttl(1);
            let packet = tombolo_datapath::Packet {
                frame: &frame.build(),
                ifindex: cluster.link_a,
                gso_size: 0,
                repeat: 0,
            };
            let run = cluster.datapath.test_run(HOOK, &packet).unwrap();
            // Some are not answered, since answers are limited.
            if run.action == REDIRECT {
                IcmpError::read(&run.frame);
            } else {
                // At the rate of the limit, the next may be.
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
    }
}

#[test]
fn ipv4_that_may_be_cut_is_left_to_the_stack() {
    let cluster = Cluster::new(&Bed::new());
    for to in [V4.b, V4.pod_2, V4.pod_3] {
        let frame = Frame::udp(V4.a, to).sized(1500);
        let run = cluster.expect(HOOK, &frame, NEXT, Outcome::ToStack);
        assert_eq!(run.frame, frame.build(), "the stack counts the hop");
    }
}

#[test]
fn what_is_cut_later_counts_by_its_segments() {
    let cluster = Cluster::new(&Bed::new());
    for f in FAMILIES {
        let header = if f.v4 { 20 } else { 40 };
        let mut tcp = vec![0; 32];
        tcp[12] = 8 << 4;
        let frame = Frame::udp(f.a, f.pod_2)
            .protocol(TCP, &tcp)
            .sized(3000)
            .dont_fragment()
            .build();
        let room = u32::from(MTU) - header - 32;
        cluster.expect_bytes(HOOK, &frame, room, REDIRECT, Outcome::Routed, "segments that fit");
        cluster.expect_bytes(
            HOOK,
            &frame,
            room + 1,
            REDIRECT,
            Outcome::TooBig,
            "segments of a byte too many",
        );
        let frame = Frame::udp(f.a, f.pod_2).sized(3000).dont_fragment().build();
        let room = u32::from(MTU) - header - 8;
        cluster.expect_bytes(
            HOOK,
            &frame,
            room,
            REDIRECT,
            Outcome::Routed,
            "datagrams that fit",
        );
        cluster.expect_bytes(
            HOOK,
            &frame,
            room + 1,
            REDIRECT,
            Outcome::TooBig,
            "datagrams of a byte too many",
        );
    }
}

#[test]
fn errors_are_never_answered_nor_fragments_past_the_first() {
    let cluster = Cluster::new(&Bed::new());
    for kind in [3, 4, 5, 11, 12, 42] {
        let frame = Frame::udp(V4.a, V4.b).icmp(kind, 0).ttl(1);
        cluster.expect(HOOK, &frame, DROP, Outcome::TtlExceeded);
    }
    for kind in [1, 2, 3, 4, 100] {
        let frame = Frame::udp(V6.a, V6.b).icmp(0, kind).ttl(1);
        cluster.expect(HOOK, &frame, DROP, Outcome::TtlExceeded);
        cluster.expect(HOOK, &frame.extended(60), DROP, Outcome::TtlExceeded);
    }
    for f in FAMILIES {
        cluster.expect(
            HOOK,
            &Frame::udp(f.a, f.b).fragment(8).ttl(1),
            DROP,
            Outcome::TtlExceeded,
        );
        cluster.expect(
            HOOK,
            &Frame::udp(f.a, f.b).fragment(0).ttl(1),
            REDIRECT,
            Outcome::TtlExceeded,
        );
        cluster.expect(
            HOOK,
            &Frame::udp(f.a, f.b).icmp(8, 128).ttl(1),
            REDIRECT,
            Outcome::TtlExceeded,
        );
    }
}

#[test]
fn answers_are_limited_but_drops_are_all_counted() {
    let cluster = Cluster::new(&Bed::new());
    let frame = Frame::udp(V4.a, V4.b).ttl(1).build();
    let packet = tombolo_datapath::Packet {
        frame: &frame,
        ifindex: cluster.link_a,
        gso_size: 0,
        repeat: 0,
    };
    let begun = std::time::Instant::now();
    let answered = (0..2000)
        .filter(|_| cluster.datapath.test_run(HOOK, &packet).unwrap().action == REDIRECT)
        .count();
    // 50 at once and one a millisecond, on each CPU that the test ran on.
    let cpus = std::thread::available_parallelism().unwrap().get();
    let most = cpus * (51 + begun.elapsed().as_millis() as usize);
    assert!(
        (50..=most).contains(&answered),
        "{answered} of 2000 answered, at most {most} may be"
    );
    let counted = cluster.packets();
    assert_eq!(counted, [((HOOK, Outcome::TtlExceeded), 2000)].into());
}

#[test]
fn a_pods_smaller_mtu_counts() {
    let cluster = Cluster::new(&Bed::new());
    let small = Endpoint {
        ifindex: cluster.link_b,
        mac: POD_B_MAC,
        mtu: 1300,
    };
    cluster
        .datapath
        .endpoints()
        .insert(&ip(V6.b).into(), &small)
        .unwrap();
    let run = cluster.expect(
        HOOK,
        &Frame::udp(V6.a, V6.b).sized(1301),
        REDIRECT,
        Outcome::TooBig,
    );
    assert_eq!(IcmpError::read(&run.frame).mtu, 1300);
}

#[test]
fn the_oracle_of_checksums_is_right() {
    // The example of RFC 1071, section 3.
    assert_eq!(
        checksum(&[&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]]),
        !0xddf2
    );
}
