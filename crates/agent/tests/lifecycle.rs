//! The life of endpoints: ADD and DEL through the real plugin, in real namespaces.
#![allow(clippy::unwrap_used, reason = "what panics here fails the test")]

mod common;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::thread;

use common::{Added, NODE, NODE_ADDRESSES, Node, Pod, Traces};
use serde_json::json;
use tombolo_netlink::Veth;
use tombolo_testkit::{Server, ask_tcp, ask_udp, wait_for};

const DUAL: [&str; 2] = ["10.244.1.0/24", "fd00:10:244::1:0/112"];

#[test]
fn an_added_pod_has_its_full_connectivity() {
    let node = Node::start(&DUAL);
    let (a, b) = (Pod::new(), Pod::new());
    let (added_a, added_b) = (node.add(&a).unwrap(), node.add(&b).unwrap());
    let own: [IpAddr; 2] = NODE_ADDRESSES.map(|n| n.parse().unwrap());
    for v4 in [true, false] {
        let (ip_a, ip_b) = (added_a.address(v4), added_b.address(v4));
        let node_ip = own[usize::from(!v4)];
        let in_pod = Server::start(&b.namespace, SocketAddr::new(ip_b, 0));
        let on_node = Server::start(&node.namespace, SocketAddr::new(node_ip, 0));
        // Each sees the other's own address, so nothing is translated.
        for (from, to, source) in [
            (&a.namespace, in_pod.address(), ip_a),
            (&node.namespace, in_pod.address(), node_ip),
            (&a.namespace, on_node.address(), ip_a),
            (&b.namespace, in_pod.address(), ip_b),
        ] {
            let seen =
                ask_tcp(from, to, &[7; 100_000]).unwrap_or_else(|e| panic!("TCP from {source} to {to}: {e}"));
            assert_eq!(seen.ip(), source, "TCP to {to}");
            let seen =
                ask_udp(from, to, &[7; 1000]).unwrap_or_else(|e| panic!("UDP from {source} to {to}: {e}"));
            assert_eq!(seen.ip(), source, "UDP to {to}");
        }
    }
    node.expect_only(&[(&a, &added_a), (&b, &added_b)]);
}

#[test]
fn pods_leave_the_cluster_with_the_nodes_address() {
    let node = Node::start(&DUAL);
    let pod = Pod::new();
    node.add(&pod).unwrap();
    let outside = node.outside.netlink().require_link("lo").unwrap();
    for (address, source) in [
        ("198.51.100.10", NODE_ADDRESSES[0]),
        ("2001:db8:100::10", NODE_ADDRESSES[1]),
    ] {
        let address: IpAddr = address.parse().unwrap();
        node.outside
            .netlink()
            .add_address(outside.index, address.into())
            .unwrap();
        let server = Server::start(&node.outside, SocketAddr::new(address, 0));
        let seen = ask_tcp(&pod.namespace, server.address(), b"hello").unwrap();
        assert_eq!(seen.ip(), source.parse::<IpAddr>().unwrap());
    }
}

#[test]
fn the_pod_sees_what_its_result_says() {
    let node = Node::start(&DUAL);
    let pod = Pod::new();
    let added = node.add(&pod).unwrap();
    let mut netlink = pod.namespace.netlink();
    let link = netlink.require_link("eth0").unwrap();
    let interface = added.printed["interfaces"]
        .as_array()
        .unwrap()
        .iter()
        .find(|i| i["name"] == "eth0")
        .unwrap();
    let mac = link.mac.unwrap().map(|b| format!("{b:02x}")).join(":");
    assert_eq!(interface["mac"], json!(mac));
    assert_eq!(
        link.mac.unwrap()[0] & 0x03,
        0x02,
        "locally administered, unicast: {mac}"
    );
    assert_eq!(link.mtu, 1450, "the uplink's 1500 less the overlay's overhead");
    let addresses = netlink
        .addresses()
        .unwrap()
        .into_iter()
        .filter(|a| a.ifindex == link.index);
    let addresses: Vec<_> = addresses.map(|a| (a.address.to_string(), a.tentative)).collect();
    let hosts = added
        .addresses
        .iter()
        .map(|a| (ipnet::IpNet::from(*a).to_string(), false));
    assert_eq!(
        addresses,
        hosts.collect::<Vec<_>>(),
        "no link-local address, and no wait for detection"
    );
    assert!(netlink.require_link("lo").unwrap().up);
}

#[test]
fn the_first_packet_after_an_add_arrives() {
    use std::net::UdpSocket;
    let node = Node::start(&DUAL);
    let peer = Pod::new();
    let added_peer = node.add(&peer).unwrap();
    // Several at once, as the kernel finishes some of the work behind our back only when it has the time.
    let once = || {
        let pod = Pod::new();
        let added = node.add(&pod).unwrap();
        for v4 in [true, false] {
            let to = pod
                .namespace
                .run(|| UdpSocket::bind(SocketAddr::new(added.address(v4), 0)).unwrap());
            to.set_read_timeout(Some(std::time::Duration::from_secs(5)))
                .unwrap();
            let at = to.local_addr().unwrap();
            let node_address: IpAddr = NODE_ADDRESSES[usize::from(!v4)].parse().unwrap();
            for (from, source) in [
                (&node.namespace, node_address),
                (&peer.namespace, added_peer.address(v4)),
            ] {
                from.run(|| {
                    UdpSocket::bind(SocketAddr::new(source, 0))
                        .unwrap()
                        .send_to(b"x", at)
                        .unwrap()
                });
                let seen = to
                    .recv_from(&mut [0; 8])
                    .unwrap_or_else(|e| panic!("from {source} to {at}: {e}"));
                assert_eq!(seen.1.ip(), source);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..8).for_each(|_| once()));
        }
    });
}

#[test]
fn del_leaves_nothing_and_can_be_repeated() {
    let node = Node::start(&DUAL);
    let (stays, goes) = (Pod::new(), Pod::new());
    let added = node.add(&stays).unwrap();
    node.add(&goes).unwrap();
    node.del(&goes);
    node.del(&goes);
    node.expect_only(&[(&stays, &added)]);
    assert!(goes.namespace.netlink().link("eth0").unwrap().is_none());
    // What never was can be deleted, too, and so can a pod whose namespace is gone.
    node.del(&Pod::new());
    let Pod { id, namespace } = stays;
    drop(namespace);
    let output = node.plugin("DEL", &id, Path::new("/nowhere"));
    assert!(output.status.success());
    node.expect_only(&[]);
}

#[test]
fn a_hundred_adds_at_once_are_all_distinct() {
    let node = Node::start(&["10.244.1.0/25", "fd00:10:244::1:0/112"]);
    let pods: Vec<Pod> = (0..100).map(|_| Pod::new()).collect();
    common::plugin();
    let added: Vec<Added> = thread::scope(|scope| {
        let adds: Vec<_> = pods.iter().map(|pod| scope.spawn(|| node.add(pod))).collect();
        adds.into_iter().map(|add| add.join().unwrap().unwrap()).collect()
    });
    let addresses: BTreeSet<IpAddr> = added.iter().flat_map(|a| a.addresses.iter().copied()).collect();
    assert_eq!(addresses.len(), 200, "one of each family for each pod");
    node.expect_only(&pods.iter().zip(&added).collect::<Vec<_>>());
    let memory = node.agent_memory();
    assert!(
        memory <= 40 << 10,
        "the agent takes {memory} KiB with a hundred pods"
    );
    thread::scope(|scope| {
        for pod in &pods {
            scope.spawn(|| node.del(pod));
        }
    });
    node.expect_only(&[]);
}

#[test]
fn an_add_that_cannot_succeed_changes_nothing() {
    let node = Node::start(&["10.244.1.0/30"]);
    let fails = |pod: &Pod, code: u32, what: &str| {
        let error = node.add(pod).expect_err(what);
        assert_eq!(error["code"], json!(code), "{what}: {error}");
        error.to_string()
    };

    let taken = Pod::new();
    let pair = Veth {
        name: "eth0",
        peer_name: "eth1",
        ..Veth::default()
    };
    taken.namespace.netlink().add_veth(&pair).unwrap();
    fails(&taken, 102, "the interface exists in the pod");
    assert!(
        taken.namespace.netlink().link("eth1").unwrap().is_some(),
        "it is not ours to remove"
    );

    let clash = Pod::new();
    let name = tombolo_cni::host_link_name(&clash.id, "eth0");
    node.namespace
        .netlink()
        .add_veth(&Veth {
            name: &name,
            peer_name: "other",
            ..Veth::default()
        })
        .unwrap();
    fails(&clash, 102, "a link of the name exists on the node");
    assert!(clash.namespace.netlink().link("eth0").unwrap().is_none());
    assert!(
        node.namespace.netlink().link("other").unwrap().is_some(),
        "it is not ours to remove"
    );
    node.namespace.netlink().delete_link(&name).unwrap();

    for netns in [
        Path::new("/nowhere"),
        Path::new("/proc/self/ns/mnt"),
        &node.namespace.path(),
    ] {
        let output = node.plugin("ADD", "bad-namespace", netns);
        assert!(!output.status.success(), "{}", netns.display());
    }
    node.expect_only(&[]);

    // Three of four, as the first is never given.
    let pods: Vec<Pod> = (0..3).map(|_| Pod::new()).collect();
    let added: Vec<Added> = pods.iter().map(|p| node.add(p).unwrap()).collect();
    let held: Vec<_> = pods.iter().zip(&added).collect();
    let text = fails(&Pod::new(), 101, "the block is used up");
    assert!(text.contains("10.244.1.0/30"), "{text} does not name the block");
    node.expect_only(&held);

    let twice = fails(&pods[0], 102, "the attachment exists");
    assert!(twice.contains("exists"), "{twice}");
    let moved = Pod {
        id: pods[0].id.clone(),
        namespace: Pod::new().namespace,
    };
    fails(&moved, 102, "the attachment exists, in another namespace");
    node.expect_only(&held);
}

#[test]
fn bad_requests_are_answered_and_change_nothing() {
    let node = Node::start(&DUAL);
    let pod = Pod::new();
    let good = json!({"containerId": "a", "ifName": "eth0", "netns": pod.namespace.path()});
    let but = |key: &str, value: serde_json::Value| {
        let mut bad = good.clone();
        bad[key] = value;
        bad.to_string()
    };
    let long = "x".repeat(100_000);
    let own = node.namespace.path();
    for (body, what) in [
        ("".to_owned(), "nothing"),
        ("{".to_owned(), "half of something"),
        ("[]".to_owned(), "another type"),
        ("{}".to_owned(), "no fields"),
        (
            but("containerId", json!("../../etc/passwd")),
            "an id that is a path",
        ),
        (but("containerId", json!("")), "an empty id"),
        (but("containerId", json!(long)), "more than is read"),
        (but("containerId", json!(7)), "a number for an id"),
        (but("ifName", json!("a/b")), "a name that is a path"),
        (
            but("ifName", json!("sixteen-letters-")),
            "a name that is too long",
        ),
        (but("netns", json!("relative")), "a relative path"),
        (but("netns", json!("/dev/null")), "a path that is no namespace"),
        (but("netns", json!(own)), "the node's own namespace"),
        (
            but("requestedIPs", json!(["192.0.2.1"])),
            "an address of somebody else",
        ),
        (
            but("requestedIPs", json!(["10.244.1.0"])),
            "the address that is never given",
        ),
        (but("requestedIPs", json!(["ten"])), "no address"),
    ] {
        let (status, answer) = node.request("POST", "/v1/endpoints", body.as_bytes()).unwrap();
        assert!((400..500).contains(&status), "{what}: {status} {answer}");
    }
    for (method, path) in [
        ("GET", "/v1/nothing"),
        ("PUT", "/v1/endpoints"),
        ("DELETE", "/v1/endpoints/a%2Fb/eth0"),
        ("DELETE", "/v1/endpoints/..%2F..%2Fetc/eth0"),
        ("DELETE", "/v1/endpoints/%FF/eth0"),
    ] {
        let (status, answer) = node.request(method, path, b"").unwrap();
        assert!((400..500).contains(&status), "{method} {path}: {status} {answer}");
    }
    node.expect_only(&[]);
    let (status, answer) = node
        .request("POST", "/v1/endpoints", good.to_string().as_bytes())
        .unwrap();
    assert_eq!(status, 200, "{answer}");
}

#[test]
fn a_requested_address_is_given() {
    let node = Node::start(&DUAL);
    let pod = Pod::new();
    let request = json!({"containerId": pod.id, "ifName": "eth0", "netns": pod.namespace.path(),
        "requestedIPs": ["10.244.1.77"]});
    let (status, answer) = node
        .request("POST", "/v1/endpoints", request.to_string().as_bytes())
        .unwrap();
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["addresses"][0]["address"], json!("10.244.1.77/32"));
}

#[test]
fn only_root_can_connect() {
    use std::os::unix::fs::PermissionsExt;
    let node = Node::start(&DUAL);
    let mode = std::fs::metadata(node.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn the_next_agent_waits_for_the_last_to_end() {
    let mut node = Node::start(&DUAL);
    let first = node.agent_id();
    let next = node.another_agent();
    let pods: Vec<Pod> = (0..5).map(|_| Pod::new()).collect();
    let added: Vec<Added> = pods.iter().map(|pod| node.add(pod).unwrap()).collect();
    let held = std::fs::read_to_string("/proc/locks").unwrap();
    let holder = held
        .lines()
        .filter(|l| l.contains("FLOCK") && l.contains(&format!(" {first} ")));
    assert!(holder.count() > 0, "the first agent holds the lock");
    node.replace_agent(next);
    node.wait_ready();
    node.expect_only(&pods.iter().zip(&added).collect::<Vec<_>>());
}

#[test]
fn the_figures_are_those_of_the_node() {
    let node = Node::start(&["10.244.1.0/24"]);
    let pod = Pod::new();
    let added = node.add(&pod).unwrap();
    // A packet that claims to be from somebody else, and one that leaves the pod as it should.
    let mut netlink = pod.namespace.netlink();
    let link = netlink.require_link("eth0").unwrap();
    netlink
        .add_address(link.index, "10.9.9.9/32".parse().unwrap())
        .unwrap();
    pod.namespace.run(|| {
        let to: SocketAddr = (NODE_ADDRESSES[0].parse::<IpAddr>().unwrap(), 9).into();
        std::net::UdpSocket::bind("10.9.9.9:0")
            .unwrap()
            .send_to(b"x", to)
            .unwrap();
        std::net::UdpSocket::bind((added.address(true), 0))
            .unwrap()
            .send_to(b"x", to)
            .unwrap();
    });
    let figures = node.metrics();
    for line in [
        "tombolo_endpoints 1",
        "tombolo_addresses{block=\"10.244.1.0/24\",state=\"used\"} 1",
        "tombolo_drops_total{hook=\"from_pod\",reason=\"spoofed_source\"} 1",
        "tombolo_operation_seconds_count{operation=\"add\",result=\"ok\"} 1",
        "tombolo_reconcile_errors_total 0",
    ] {
        assert!(figures.contains(line), "no {line:?} in\n{figures}");
    }
    // Not those of devices on which the node's kernel tells of its multicast groups when it likes.
    let mut drops = node.get("/v1/drops");
    drops
        .as_array_mut()
        .unwrap()
        .retain(|d| d["hook"] != "to_overlay" && d["hook"] != "to_pod");
    assert_eq!(
        drops,
        json!([{"hook": "from_pod", "reason": "spoofed_source", "packets": 1, "bytes": 43}])
    );
    let routes = node.get("/v1/routes");
    let own = routes
        .as_array()
        .unwrap()
        .iter()
        .find(|r| r["destination"] == json!("10.244.1.0/24"))
        .unwrap();
    assert_eq!(
        (&own["kind"], &own["way"], &own["node"]),
        (&json!("pods"), &json!("local"), &json!(NODE))
    );
    let endpoints = node.get("/v1/endpoints");
    assert_eq!(endpoints[0]["containerId"], json!(pod.id));
    assert_eq!(endpoints[0]["addresses"], json!(added.addresses));
}

#[test]
fn the_status_says_what_is_true_of_the_node() {
    let node = Node::start(&DUAL);
    let status = || node.api.node(NODE).status.unwrap_or_default();
    wait_for(common::DEADLINE, "the node to be healthy", || {
        status().health.ready
    });
    let said = status();
    let addresses: Vec<String> = said.addresses.iter().map(IpAddr::to_string).collect();
    assert_eq!(addresses, NODE_ADDRESSES);
    assert_eq!(said.pod_mtu, 1450);
    let uplink = node.namespace.netlink().require_link("eth0").unwrap();
    let mac = uplink.mac.unwrap().map(|b| format!("{b:02x}")).join(":");
    assert_eq!(
        (
            said.uplinks[0].name.as_str(),
            &said.uplinks[0].mac,
            said.uplinks[0].mtu
        ),
        ("eth0", &mac, 1500)
    );

    // What changes on the node is seen.
    node.namespace
        .netlink()
        .add_address(uplink.index, "172.20.77.7/32".parse().unwrap())
        .unwrap();
    let second: IpAddr = "172.20.77.7".parse().unwrap();
    wait_for(common::DEADLINE, "the second address", || {
        status().addresses.contains(&second)
    });
    // And what changes in the settings.
    node.api.patch_network(&json!({"spec": {"mtu": 1400}}));
    wait_for(common::DEADLINE, "the MTU of the settings", || {
        status().pod_mtu == 1400
    });
    let pod = Pod::new();
    node.add(&pod).unwrap();
    assert_eq!(pod.namespace.netlink().require_link("eth0").unwrap().mtu, 1400);
}

#[test]
fn traces_are_empty_without_pods() {
    let node = Node::start(&DUAL);
    assert_eq!(node.traces(), Traces::default());
}
