//! What is said to a pod whose packet goes no further, and what is left to the stack to be cut:
//! crafted packets at `from_pod`.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::{
    bed::Bed,
    cluster::{Cluster, DROP, FAMILIES, MTU, NEXT, POD_B_MAC, REDIRECT, V4, V6},
    frame::{Frame, IcmpError, POD_MAC, TCP, checksum, ip},
};
use tombolo_abi::{Endpoint, GATEWAY_MAC, Hook, Outcome};

const HOOK: Hook = Hook::FromPod;

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
    config.node_v4 = Default::default();
    config.node_v6 = Default::default();
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
        flags: 0,
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
