//! Services with real traffic: who reaches what, what the backend saw of the client, and that nobody notices when
//! things change. All in one lab, at the same time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::net::{IpAddr, SocketAddr};
use std::thread;

use serde_json::{Value, json};
use support::Lab;
use support::asking::{Client, Protocol};

/// The nodes' addresses: node2 is past the router, node3 on node1's segment.
const NODES: [[&str; 2]; 3] = [
    ["172.20.1.11", "fd00:20:1::11"],
    ["172.20.2.11", "fd00:20:2::11"],
    ["172.20.1.12", "fd00:20:1::12"],
];

const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

/// A scenario, and what it shows.
type Scenario = (&'static str, fn(&Lab));

#[test]
fn services_are_reached_as_kubernetes_says() {
    let options = [
        "--segments",
        "2",
        "--families",
        "dual",
        "--lb-pool",
        "203.0.113.0/24",
    ];
    let lab = Lab::up(3, &[&options[..], &["--lb-pool", "2001:db8:200::/112"]].concat());
    let scenarios: [Scenario; 3] = [
        ("backends see who asks", backends_see_who_asks),
        ("policy Local", policy_local),
        ("refused", what_nobody_serves_is_refused),
    ];
    let mut failed = Vec::new();
    thread::scope(|scope| {
        let running: Vec<_> = scenarios
            .iter()
            .map(|(name, run)| (name, scope.spawn(|| run(&lab))))
            .collect();
        // The panics' texts have been printed already.
        failed.extend(
            running
                .into_iter()
                .filter_map(|(name, run)| run.join().is_err().then_some(*name)),
        );
    });
    assert!(failed.is_empty(), "failed: {failed:?}\n{}", lab.datapath());
}

/// A dual-stack Service of the probe's ports, with more of a spec.
fn service(name: &str, selector: Value, more: Value) -> Value {
    let mut spec = json!({
        "ipFamilyPolicy": "RequireDualStack",
        "selector": selector,
        "ports": [
            {"name": "tcp", "port": 80, "targetPort": 7070},
            {"name": "udp", "port": 80, "targetPort": 7070, "protocol": "UDP"},
        ],
    });
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
}

/// The cluster IPs of a Service at its port.
fn cluster_ips(service: &Value) -> Vec<SocketAddr> {
    let ips = service["spec"]["clusterIPs"].as_array().unwrap();
    ips.iter()
        .map(|ip| SocketAddr::new(ip.as_str().unwrap().parse().unwrap(), 80))
        .collect()
}

/// The load balancer's addresses of a Service at its port.
fn load_balancer_ips(lab: &Lab, name: &str) -> Vec<SocketAddr> {
    support::eventually("load balancer addresses", 10, || {
        let service = lab.object("service", name);
        let points = service["status"]["loadBalancer"]["ingress"].as_array()?.clone();
        let ips = points
            .iter()
            .map(|p| SocketAddr::new(p["ip"].as_str().unwrap().parse().unwrap(), 80));
        let ips: Vec<SocketAddr> = ips.collect();
        (ips.len() == 2).then_some(ips)
    })
}

fn node_port(service: &Value, protocol: Protocol) -> u16 {
    let name = format!("{protocol:?}").to_lowercase();
    let ports = service["spec"]["ports"].as_array().unwrap();
    let port = ports.iter().find(|p| p["name"] == name.as_str()).unwrap();
    port["nodePort"].as_u64().unwrap() as u16
}

fn addresses(node: usize) -> [IpAddr; 2] {
    NODES[node].map(|a| a.parse().unwrap())
}

/// Who asks, whom, by which backend, and the address that this one is to see.
struct Case<'a> {
    client: &'a Client,
    protocol: Protocol,
    to: SocketAddr,
    backend: &'a [IpAddr],
    source: IpAddr,
}

impl Case<'_> {
    #[track_caller]
    fn holds(&self, lab: &Lab) {
        let seen = self.client.ask_until_answered(lab, self.protocol, self.to);
        let what = format!("{:?} {} from {:?}", self.protocol, self.to, self.client.addresses);
        assert!(
            self.backend.contains(&seen.server.ip()),
            "{what}: {seen:?}\n{}",
            lab.datapath()
        );
        assert_eq!(
            seen.client.ip(),
            self.source,
            "{what}: {seen:?}\n{}",
            lab.datapath()
        );
    }
}

/// Each way to a Service from pods and from outside, to backends on the same node, past the overlay, and beside.
fn backends_see_who_asks(lab: &Lab) {
    let names = ["to-a1", "to-a2", "to-a3", "to-b1"];
    let objects: Vec<Value> = names
        .iter()
        .enumerate()
        .map(|(i, name)| {
            let external = [format!("192.0.2.{}", i + 1), format!("2001:db8:2::{}", i + 1)];
            service(
                name,
                json!({"name": name[3..]}),
                json!({"type": "LoadBalancer", "externalIPs": external}),
            )
        })
        .collect();
    lab.apply(&objects);
    let (pod, outside) = (Client::pod(lab, "b1"), Client::outside(lab));
    // What the network around the cluster knows of external IPs is somebody else's to say.
    for family in 0..2 {
        let (net, hop) = (["192.0.2.0/24", "2001:db8:2::/64"][family], NODES[1][family]);
        support::succeed(&mut lab.exec("router", &["ip", "route", "add", net, "via", hop]));
    }
    let services: Vec<Value> = names.iter().map(|name| lab.object("service", name)).collect();
    for (i, object) in services.iter().enumerate() {
        let backend: Vec<IpAddr> = lab
            .addresses(&names[i][3..])
            .iter()
            .map(|a| a.parse().unwrap())
            .collect();
        let (own, home) = (names[i] == "to-b1", if names[i] == "to-b1" { 0 } else { i });
        for protocol in PROTOCOLS {
            let case = |client, to: SocketAddr, source| Case {
                client,
                protocol,
                to,
                backend: &backend,
                source,
            };
            let gateway = |of: IpAddr| {
                if of.is_ipv4() { "169.254.1.1" } else { "fe80::1" }
                    .parse()
                    .unwrap()
            };
            let external = [format!("192.0.2.{}", i + 1), format!("2001:db8:2::{}", i + 1)];
            let external = external.map(|ip| SocketAddr::new(ip.parse().unwrap(), 80));
            let balanced = load_balancer_ips(lab, names[i]);
            for &to in cluster_ips(object).iter().chain(&balanced).chain(&external) {
                let source = if own {
                    gateway(to.ip())
                } else {
                    pod.address(to.ip())
                };
                case(&pod, to, source).holds(lab);
            }
            let port = node_port(object, protocol);
            for node in 0..NODES.len() {
                for address in addresses(node) {
                    let to = SocketAddr::new(address, port);
                    let translated = |client: &Client| {
                        if node == home {
                            client.address(address)
                        } else {
                            address
                        }
                    };
                    case(&outside, to, translated(&outside)).holds(lab);
                    let source = match (node, own) {
                        (0, true) => gateway(address),
                        (0, false) => pod.address(address),
                        _ => translated(&pod),
                    };
                    case(&pod, to, source).holds(lab);
                }
            }
            for to in external {
                let family = usize::from(to.is_ipv6());
                let source = if home == 1 {
                    outside.address(to.ip())
                } else {
                    addresses(1)[family]
                };
                case(&outside, to, source).holds(lab);
            }
            for to in balanced {
                let seen = outside.ask_until_answered(lab, protocol, to);
                assert!(backend.contains(&seen.server.ip()), "{to}: {seen:?}");
            }
        }
    }
}

/// With `externalTrafficPolicy: Local` the client's address is kept; a node without endpoints drops.
fn policy_local(lab: &Lab) {
    let local = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local"});
    lab.apply(&[service("local", json!({"name": "a2"}), local)]);
    let (outside, pod) = (Client::outside(lab), Client::pod(lab, "b1"));
    let object = lab.object("service", "local");
    let backend: Vec<IpAddr> = lab.addresses("a2").iter().map(|a| a.parse().unwrap()).collect();
    for protocol in PROTOCOLS {
        for family in 0..2 {
            let at = |node: usize| SocketAddr::new(addresses(node)[family], node_port(&object, protocol));
            let source = outside.address(at(1).ip());
            Case {
                client: &outside,
                protocol,
                to: at(1),
                backend: &backend,
                source,
            }
            .holds(lab);
            let to = load_balancer_ips(lab, "local")[family];
            Case {
                client: &outside,
                protocol,
                to,
                backend: &backend,
                source,
            }
            .holds(lab);
            // Clients of the cluster are let in as if they had gone in through the load balancer.
            let source = pod.address(to.ip());
            Case {
                client: &pod,
                protocol,
                to,
                backend: &backend,
                source,
            }
            .holds(lab);
            for node in [0, 2] {
                outside.gets_nothing(protocol, at(node));
            }
        }
    }
}

/// No endpoints, no such port, no such Service: refused at once.
fn what_nobody_serves_is_refused(lab: &Lab) {
    lab.apply(&[
        service("empty", json!({"name": "nobody"}), json!({"type": "NodePort"})),
        service("one-port", json!({"name": "a1"}), json!({})),
    ]);
    let (outside, pod) = (Client::outside(lab), Client::pod(lab, "b2"));
    let (empty, one_port) = (lab.object("service", "empty"), lab.object("service", "one-port"));
    // Once the later one is there, so is the first.
    pod.ask_until_answered(lab, Protocol::Tcp, cluster_ips(&one_port)[0]);
    for protocol in PROTOCOLS {
        for family in 0..2 {
            pod.is_refused(protocol, cluster_ips(&empty)[family]);
            let mut other_port = cluster_ips(&one_port)[family];
            other_port.set_port(81);
            pod.is_refused(protocol, other_port);
            let nobody = ["10.96.200.200", "fd00:10:96::c8c8"][family].parse().unwrap();
            pod.is_refused(protocol, SocketAddr::new(nobody, 80));
            for node in 0..NODES.len() {
                let to = SocketAddr::new(addresses(node)[family], node_port(&empty, protocol));
                outside.is_refused(protocol, to);
                pod.is_refused(protocol, to);
            }
        }
    }
}
