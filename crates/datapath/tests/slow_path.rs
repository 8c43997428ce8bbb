//! Endpoints at whose link somebody else shapes or filters: their packets meet the link, and all rules hold.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::{
    bed::{Bed, run},
    cluster::{Cluster, DROP, FAMILIES, MTU, NEXT, REDIRECT},
    frame::{Frame, IcmpError},
    node::{Node, listen, next},
};
use tombolo_abi::{Endpoint, Hook, Outcome};
use tombolo_datapath::Attach;

/// Sets the flags of a pod's rows, of both families.
fn set_flags(cluster: &Cluster, link: u32, flags: u32) {
    let rows = cluster.datapath.endpoints();
    for (address, row) in rows.entries().unwrap() {
        if row.ifindex == link {
            rows.insert(&address, &Endpoint { flags, ..row }).unwrap();
        }
    }
}

#[test]
fn what_a_pod_sends_is_checked_and_goes_on_to_the_stack_as_it_is() {
    let cluster = Cluster::new(&Bed::new());
    set_flags(&cluster, cluster.link_a, Endpoint::SLOW_EGRESS);
    let at = Hook::FromPod;
    for f in FAMILIES {
        // The stack counts the hop, minds the MTU, and answers.
        for destination in [f.b, f.pod_2, f.node_2, f.pod_3, f.node_3, f.node, f.outside] {
            for frame in [
                Frame::udp(f.a, destination).ttl(1),
                Frame::udp(f.a, destination).sized(3000).dont_fragment(),
            ] {
                let run = cluster.expect(at, &frame, NEXT, Outcome::ToStack);
                assert_eq!(run.frame, frame.build());
            }
        }
        cluster.expect(at, &Frame::udp(f.a, f.nobody), DROP, Outcome::UnknownEndpoint);
        for destination in [f.b, f.pod_2, f.outside] {
            cluster.expect(at, &Frame::udp(f.b, destination), DROP, Outcome::SpoofedSource);
        }
        // The other direction is not concerned.
        let run = cluster.expect(
            Hook::FromUplink,
            &Frame::udp(f.node_2, f.a),
            REDIRECT,
            Outcome::Delivered,
        );
        assert_eq!(run.frame.len(), Frame::udp(f.node_2, f.a).build().len());
    }
}

#[test]
fn the_stacks_way_to_overlay_nodes_is_put_right_at_the_uplink() {
    let cluster = Cluster::new(&Bed::new());
    for f in FAMILIES {
        for destination in [f.node_3, f.pod_3] {
            let frame = Frame::udp(f.a, destination).sized(usize::from(MTU));
            cluster.expect(Hook::ToUplink, &frame, REDIRECT, Outcome::Encapsulated);
            let big = Frame::udp(f.a, destination)
                .sized(usize::from(MTU) + 1)
                .dont_fragment();
            let run = cluster.expect(Hook::ToUplink, &big, REDIRECT, Outcome::TooBig);
            assert_eq!(IcmpError::read(&run.frame).mtu, u32::from(MTU));
        }
    }
}

#[test]
fn packets_meet_the_link_and_are_counted_once_at_each_hook() {
    let node = Node::new(Attach::Auto);
    let cluster = &node.cluster;
    // As the layout has it: the stack's ways are the programs' own.
    run("ip route add 10.244.2.0/24 via 172.20.1.12");
    run("ip -6 route add fd00:10:244:2::/112 via fd00:20:1::12");
    for f in FAMILIES {
        let [a, b] = [(&node.pod_a, f.a), (&node.pod_b, f.b)].map(|(pod, ip)| listen(pod, ip, 7));
        let far = listen(&node.wire, f.pod_2, 7);
        // Whose flags; what each hook counts; who sends to whom.
        let (slow_in, slow_out) = (Endpoint::SLOW_INGRESS, Endpoint::SLOW_EGRESS);
        let delivered = Outcome::Delivered;
        for (link, flags, from, to, counted) in [
            (cluster.link_b, 0, &a, &b, [Some(delivered), None, None]),
            (
                cluster.link_b,
                slow_in,
                &a,
                &b,
                [Some(delivered), Some(delivered), None],
            ),
            (cluster.link_b, slow_out, &a, &b, [Some(delivered), None, None]),
            (cluster.link_b, 0, &far, &b, [None, None, Some(delivered)]),
            (
                cluster.link_b,
                slow_in,
                &far,
                &b,
                [None, Some(delivered), Some(delivered)],
            ),
            (
                cluster.link_a,
                slow_out,
                &a,
                &b,
                [Some(Outcome::ToStack), Some(delivered), None],
            ),
            (
                cluster.link_a,
                slow_in | slow_out,
                &a,
                &far,
                [Some(Outcome::ToStack), None, None],
            ),
            (
                cluster.link_a,
                slow_in,
                &a,
                &far,
                [Some(Outcome::Routed), None, None],
            ),
        ] {
            set_flags(cluster, link, flags);
            let hooks = [Hook::FromPod, Hook::ToPod, Hook::FromUplink];
            let look = || {
                hooks.map(|hook| {
                    let mut found = node.counted(hook);
                    // The wire's own neighbour discovery.
                    found.remove(&Outcome::NotOurs);
                    found
                })
            };
            let mut wanted = look();
            for (hook, outcome) in counted.into_iter().enumerate() {
                if let Some(outcome) = outcome {
                    *wanted[hook].entry(outcome).or_default() += 1;
                }
            }
            from.send_to(b"hello", to.local_addr().unwrap()).unwrap();
            assert_eq!(next(to), (b"hello".to_vec(), from.local_addr().unwrap()));
            // It has arrived, so it has been counted.
            assert_eq!(look(), wanted, "{flags} {counted:?}\n{}", cluster.state());
            set_flags(cluster, link, 0);
        }
    }
}
