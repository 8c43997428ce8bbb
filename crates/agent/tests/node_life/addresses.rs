//! The node's addresses change.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use serde_json::{Value, json};
use tombolo_testkit::{Server, ask_tcp, wait_for};

use crate::common::fabric::{Fabric, addresses};
use crate::common::{DEADLINE, Node};
use crate::{Conversation, Running, ips};

/// The addresses that the cluster knows the node by.
fn published(node: &Node) -> Vec<IpAddr> {
    node.api.node(node.name()).status.unwrap_or_default().addresses
}

/// The next hops (or tunnel ends) by which a node sends to the pods of another.
fn next_hops(node: &Node, to: &Node) -> Vec<Value> {
    let routes = node.get("/v1/routes");
    let routes = routes.as_array().unwrap().iter();
    let to_pods = routes.filter(|r| r["kind"] == "pods" && r["node"] == json!(to.name()));
    to_pods.map(|r| r["nextHop"].clone()).collect()
}

/// A socket of a pod, and the source that the outside host sees when it speaks.
struct Masqueraded(UdpSocket);

impl Masqueraded {
    fn new(pod: &Running, v4: bool, to: SocketAddr) -> Self {
        let socket = pod
            .pod
            .namespace
            .run(|| UdpSocket::bind((pod.address(v4), 0)).unwrap());
        socket.connect(to).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        Self(socket)
    }

    fn seen(&self) -> Option<IpAddr> {
        // What an earlier question had no answer to may come now.
        let question = format!("{:?}", std::time::Instant::now());
        self.0.send(question.as_bytes()).ok()?;
        let mut answer = [0; 200];
        loop {
            let length = self.0.recv(&mut answer).ok()?;
            let text = std::str::from_utf8(&answer[..length]).unwrap();
            let (source, said) = text.split_once('\n').unwrap();
            if said == question {
                return Some(source.parse::<SocketAddr>().unwrap().ip());
            }
        }
    }
}

fn renumbered(routing: &str) {
    let fabric = Fabric::new(routing);
    let (one, two) = (fabric.node(1), fabric.node(2));
    let (a, b) = (Running::on(&one), Running::on(&two));
    let (old, new) = (addresses(1, 11), addresses(1, 77));
    let outside = [true, false].map(|v4| fabric.outside_server(v4));
    let out = [true, false].map(|v4| Masqueraded::new(&a, v4, outside[usize::from(!v4)].address()));
    for (socket, node) in out.iter().zip(ips(&old)) {
        assert_eq!(socket.seen(), Some(node));
    }
    let mut talks: Vec<Conversation> = Conversation::between(&a, &b)
        .into_iter()
        .chain(Conversation::between(&b, &a))
        .collect();

    one.renumber("eth0", &old, &new);
    wait_for(DEADLINE, "the new addresses to be published", || {
        published(&one) == ips(&new)
    });
    for talk in &mut talks {
        talk.must_go_on("a connection of pods after its node was renumbered");
    }
    // The outer packets of the overlay are IPv4 for both families.
    let allowed = ips(&new).map(|ip| json!(ip));
    wait_for(DEADLINE, "the other node to send to the new addresses", || {
        let hops = next_hops(&two, &one);
        hops.len() == 2 && hops.iter().all(|hop| allowed.contains(hop))
    });
    // What answers pods, and what the node itself says to them, and to others' pods.
    let config = tombolo_datapath::open_readonly(&one.pins())
        .unwrap()
        .config()
        .unwrap();
    assert_eq!([config.node_v4, config.node_v6].map(IpAddr::from), ips(&new));
    for v4 in [true, false] {
        let own = ips(&new)[usize::from(!v4)];
        for (pod, what) in [(&a, "its own pod"), (&b, "another node's pod")] {
            let seen = ask_tcp(&one.namespace, pod.server(v4), b"hello").unwrap();
            assert_eq!(seen.ip(), own, "what {what} sees of the node");
        }
    }
    // Who spoke with the outside is another now; the same socket is served all the same.
    for (socket, node) in out.iter().zip(ips(&new)) {
        wait_for(DEADLINE, "the outside host to see the new address", || {
            socket.seen() == Some(node)
        });
    }
    one.expect_only(&[(&a.pod, &a.added)]);
}

#[test]
fn pods_go_on_when_their_node_is_renumbered_direct() {
    renumbered("direct");
}

#[test]
fn pods_go_on_when_their_node_is_renumbered_in_the_overlay() {
    renumbered("vxlan");
}

#[test]
fn a_second_address_comes_and_goes() {
    let fabric = Fabric::new("direct");
    let (one, two) = (fabric.node(1), fabric.node(2));
    let b = Running::on(&two);
    let second = addresses(1, 200);
    let mut netlink = one.namespace.netlink();
    let eth0 = netlink.require_link("eth0").unwrap().index;
    for address in &second {
        netlink.add_address(eth0, address.parse().unwrap()).unwrap();
    }
    let rows = || -> Vec<Value> {
        let routes = two.get("/v1/routes");
        let rows = routes.as_array().unwrap().iter();
        rows.map(|r| r["destination"].clone()).collect()
    };
    let is_known = || {
        let rows = rows();
        ips(&second)
            .iter()
            .all(|a| rows.contains(&json!(ipnet::IpNet::from(*a))))
    };
    wait_for(DEADLINE, "the second addresses at the other node", is_known);
    assert_eq!(
        published(&one)[0],
        ips(&addresses(1, 11))[0],
        "the first stays the first"
    );
    for (v4, address) in [true, false].into_iter().zip(ips(&second)) {
        let server = Server::start(&one.namespace, SocketAddr::new(address, 0));
        let seen = ask_tcp(&b.pod.namespace, server.address(), b"hello").unwrap();
        assert_eq!(seen.ip(), b.address(v4), "a pod reaches a node without NAT");
    }
    for address in &second {
        netlink.delete_address(eth0, address.parse().unwrap()).unwrap();
    }
    wait_for(DEADLINE, "the second addresses to be forgotten", || {
        let rows = rows();
        !ips(&second)
            .iter()
            .any(|a| rows.contains(&json!(ipnet::IpNet::from(*a))))
    });
    assert_eq!(published(&one), ips(&addresses(1, 11)));
}

#[test]
fn addresses_that_go_and_come_back_at_once_cost_nothing() {
    let fabric = Fabric::new("direct");
    let (one, two) = (fabric.node(1), fabric.node(2));
    let (a, b) = (Running::on(&one), Running::on(&two));
    let mut talks = Conversation::between(&a, &b);
    let same = addresses(1, 11);
    one.renumber("eth0", &same, &same);
    // The kernel has taken the routes to the pods, whose source is the address.
    wait_for(DEADLINE, "the routes to the pods", || {
        let routes = one.traces().routes;
        [true, false].iter().all(|&v4| routes.contains(&a.address(v4)))
    });
    for v4 in [true, false] {
        let seen = ask_tcp(&one.namespace, a.server(v4), b"hello").unwrap();
        assert_eq!(seen.ip(), ips(&same)[usize::from(!v4)]);
    }
    for talk in &mut talks {
        talk.must_go_on("a connection of pods");
    }
    assert_eq!(published(&one), ips(&same));
}
