//! Host ports: who reaches a pod by its node, and what the pod sees of them.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use crate::objects::{NODES, addresses, node_port, service, start};
use crate::reach::{ALL_WAYS, Case};
use crate::support::asking::{Client, Protocol, get};
use crate::support::{Lab, eventually, succeed};

/// The probe's port.
const CONTAINER_PORT: u16 = 7070;
/// At all addresses of the node, at its loopback addresses, and at one address of each family.
const ANYWHERE: u16 = 8081;
const LOOPBACK: u16 = 8082;
const FIXED: u16 = 8083;

/// A pod that serves on a node, with host ports of TCP and UDP at these addresses.
pub fn pod(name: &str, node: usize, ports: &[(u16, &str)]) -> Value {
    let port = |&(port, ip): &(u16, &str)| {
        ["TCP", "UDP"].map(
            |protocol| json!({"containerPort": CONTAINER_PORT, "hostPort": port, "hostIP": ip, "protocol": protocol}),
        )
    };
    let ports: Vec<Value> = ports.iter().flat_map(port).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 2,
            "nodeSelector": {"kubernetes.io/hostname": format!("node{}", node + 1)},
            "containers": [{"name": "probe", "image": "tombolo/probe", "ports": ports}],
        },
    })
}

fn at(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip, port)
}

fn of(lab: &Lab, pod: &str) -> Vec<IpAddr> {
    lab.addresses(pod).iter().map(|a| a.parse().unwrap()).collect()
}

/// From outside, from pods and nodes, and from the pod itself; by TCP and UDP, in both families.
pub fn lead_to_their_pod(lab: &Lab) {
    let [v4, v6] = NODES[0];
    let ports = [
        (ANYWHERE, ""),
        (LOOPBACK, "127.0.0.1"),
        (LOOPBACK, "::1"),
        (FIXED, v4),
        (FIXED, v6),
    ];
    start(lab, &[pod("has-ports", 0, &ports)]);
    let backend = of(lab, "has-ports");
    let (own, outside) = (Client::pod(lab, "has-ports"), Client::outside(lab));
    let clients = [
        &outside,
        &Client::pod(lab, "a1"),
        &Client::pod(lab, "a2"),
        &Client::pod(lab, "a3"),
    ];
    let nodes = [1, 2].map(|n| Client::node(lab, &format!("node{}", n + 1), &addresses(n)));
    for protocol in ALL_WAYS {
        for to in addresses(0)
            .into_iter()
            .flat_map(|ip| [at(ip, ANYWHERE), at(ip, FIXED)])
        {
            let case = |client, source| Case {
                client,
                protocol,
                to,
                backend: &backend,
                source,
            };
            for client in clients.into_iter().chain(&nodes) {
                case(client, client.address(to.ip())).holds(lab);
            }
            // As with Services, the pod would take an answer to itself for its own, unless it has its address from the start.
            let by_gateway = !(lab.socket_hooks && protocol != Protocol::Udp);
            let gateway = if to.is_ipv4() { "169.254.1.1" } else { "fe80::1" };
            let source = if by_gateway {
                gateway.parse().unwrap()
            } else {
                own.address(to.ip())
            };
            case(&own, source).holds(lab);
        }
    }
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        for family in 0..2 {
            let home = addresses(0)[family];
            // What is the host's own address to a pod is that of the pod; and there is no such port on other nodes.
            let loopback: IpAddr = ["127.0.0.1", "::1"][family].parse().unwrap();
            for port in [ANYWHERE, LOOPBACK] {
                clients[1].is_refused(protocol, at(loopback, port));
            }
            for client in [&outside, clients[1], clients[2]] {
                client.is_refused(protocol, at(home, LOOPBACK));
                client.is_refused(protocol, at(addresses(1)[family], ANYWHERE));
            }
        }
    }
    let rows: Vec<Value> = serde_json::from_str(&get(lab, "node1", &["services", "--json"])).unwrap();
    let row = rows
        .iter()
        .find(|row| row["frontend"] == "host port 8081/TCP (IPv4)");
    assert_eq!(row.unwrap()["pod"], "default/has-ports");
    let table = get(lab, "node1", &["endpoints"]);
    assert!(table.contains("8081/TCP"), "{table}");

    succeed(&mut lab.kubectl(&["delete", "pod", "has-ports"]));
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        for ip in addresses(0) {
            outside.is_refused(protocol, at(ip, ANYWHERE));
            outside.is_refused(protocol, at(ip, FIXED));
        }
    }
}

/// By their sockets, also at the loopback addresses.
pub fn are_reached_from_their_node(lab: &Lab) {
    const PORT: u16 = 8091;
    let ports = [(PORT, ""), (PORT + 1, "127.0.0.1"), (PORT + 1, "::1")];
    start(lab, &[pod("near-by", 2, &ports)]);
    let backend = of(lab, "near-by");
    let node = Client::node(lab, "node3", &addresses(2));
    let loopback = ["127.0.0.1", "::1"].map(|ip| ip.parse().unwrap());
    let places = addresses(2).into_iter().chain(loopback).map(|ip| at(ip, PORT));
    let places = places.chain(loopback.map(|ip| at(ip, PORT + 1)));
    for to in places {
        for protocol in ALL_WAYS {
            Case {
                client: &node,
                protocol,
                to,
                backend: &backend,
                source: node.address(to.ip()),
            }
            .holds(lab);
        }
    }
    // That of another node is its own.
    let other = Client::node(lab, "node1", &addresses(0));
    for ip in loopback {
        other.is_refused(Protocol::Tcp, at(ip, PORT));
    }
}

/// A pod that cannot have its port waits for another to go; a Service stands back on this node, and is told so.
pub fn are_had_by_one(lab: &Lab) {
    const PORT: u16 = 8101;
    start(lab, &[pod("first", 1, &[(PORT, "")])]);
    lab.apply(&[pod("second", 1, &[(PORT, "")])]);
    let waits = |reason: &str, of: fn(&Value) -> &Value, name: &str| {
        eventually(reason, 20, || {
            let pod = lab.object("pod", name);
            of(&pod).to_string().contains(reason).then_some(())
        });
    };
    waits("8101/TCP", |pod| &pod["status"]["conditions"], "second");
    // Somebody has chosen the node without the scheduler.
    let mut forced = pod("forced", 1, &[(PORT, "172.20.2.11")]);
    forced["spec"]["nodeName"] = json!("node2");
    lab.apply(&[forced]);
    waits(
        "default/first",
        |pod| &pod["status"]["containerStatuses"],
        "forced",
    );
    succeed(&mut lab.kubectl(&["delete", "pod", "forced"]));
    let outside = Client::outside(lab);
    let asked = |name: &str, to: SocketAddr| {
        eventually(name, 20, || {
            let seen = outside.ask(Protocol::Tcp, to).ok()?;
            of(lab, name).contains(&seen.server.ip()).then_some(())
        });
    };
    asked("first", at(addresses(1)[0], PORT));
    succeed(&mut lab.kubectl(&["delete", "pod", "first"]));
    asked("second", at(addresses(1)[0], PORT));

    lab.apply(&[service(
        "loses",
        json!({"name": "a3"}),
        json!({"type": "NodePort"}),
    )]);
    let port = node_port(&lab.object("service", "loses"), Protocol::Tcp);
    asked("a3", at(addresses(1)[1], port));
    start(lab, &[pod("wins", 1, &[(port, "")])]);
    for ip in addresses(1) {
        let seen = outside.ask(Protocol::Tcp, at(ip, port)).unwrap();
        assert!(of(lab, "wins").contains(&seen.server.ip()), "{seen:?}");
    }
    asked("a3", at(addresses(0)[0], port));
    eventually("an event that names the pod", 20, || {
        let events = succeed(&mut lab.kubectl(&["get", "events", "-o", "json"]));
        (events.contains("default/wins") && events.contains("AddressInUse")).then_some(())
    });
    succeed(&mut lab.kubectl(&["delete", "pod", "wins"]));
    asked("a3", at(addresses(1)[0], port));
}
