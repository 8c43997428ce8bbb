//! Who reaches what, and what backends see of who asks.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};

use crate::objects::{NODES, addresses, cluster_ips, load_balancer_ips, node_port, service};
use crate::support::asking::{Client, Protocol};
use crate::support::{self, Lab};

/// Longer than an answer takes.
const SHORT: Duration = Duration::from_millis(300);

const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];
pub const ALL_WAYS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::UdpUnconnected];

/// Who asks, whom, by which backend, and the address that this one is to see.
pub struct Case<'a> {
    pub client: &'a Client,
    pub protocol: Protocol,
    pub to: SocketAddr,
    pub backend: &'a [IpAddr],
    pub source: IpAddr,
}

impl Case<'_> {
    #[track_caller]
    pub fn holds(&self, lab: &Lab) {
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
pub fn backends_see_who_asks(lab: &Lab) {
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
        for protocol in ALL_WAYS {
            // A pod that is its own backend, and has its address from the start, has nothing to be kept apart from.
            let by_gateway = own && !(lab.socket_hooks && protocol != Protocol::Udp);
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
                let source = if by_gateway {
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
                    let source = match (node, by_gateway) {
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
pub fn policy_local(lab: &Lab) {
    let local = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local"});
    lab.apply(&[service("local", json!({"name": "a2"}), local)]);
    let (outside, pod) = (Client::outside(lab), Client::pod(lab, "b1"));
    let object = lab.object("service", "local");
    let backend: Vec<IpAddr> = lab.addresses("a2").iter().map(|a| a.parse().unwrap()).collect();
    for protocol in ALL_WAYS {
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
pub fn what_nobody_serves_is_refused(lab: &Lab) {
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

/// Each client keeps its backend with `sessionAffinity: ClientIP`; without, all get their share.
pub fn affinity_keeps_clients(lab: &Lab) {
    let affinity = json!({"type": "NodePort", "sessionAffinity": "ClientIP"});
    lab.apply(&[
        service("keeps", json!({"letter": "a"}), affinity),
        service("spreads", json!({"letter": "a"}), json!({"type": "NodePort"})),
    ]);
    let (outside, pod) = (Client::outside(lab), Client::pod(lab, "b3"));
    let all: BTreeSet<String> = ["a1", "a2", "a3"]
        .iter()
        .flat_map(|pod| lab.addresses(pod))
        .collect();
    for (name, backends) in [("keeps", 1), ("spreads", 3)] {
        let object = lab.object("service", name);
        for family in 0..2 {
            let own = SocketAddr::new(addresses(0)[family], node_port(&object, Protocol::Tcp));
            for (client, to) in [(&pod, cluster_ips(&object)[family]), (&outside, own)] {
                client.ask_until_answered(lab, Protocol::Tcp, to);
                let servers = (0..60).map(|_| client.ask(Protocol::Tcp, to).unwrap().server.ip().to_string());
                let servers: BTreeSet<String> = servers.collect();
                assert!(servers.is_subset(&all), "{servers:?}");
                assert_eq!(servers.len(), backends, "{name} at {to}: {servers:?}");
            }
        }
    }
    let client = outside.addresses[0].to_string();
    let view: Value = serde_json::from_str(&support::asking::get(
        lab,
        "node1",
        &["services", "--json", "--client", &client],
    ))
    .unwrap();
    let port = node_port(&lab.object("service", "keeps"), Protocol::Tcp);
    let place = format!("node port {port}/TCP (IPv4)");
    let row = view
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["frontend"] == place.as_str())
        .unwrap();
    assert_eq!(row["service"], "default/keeps");
    assert_eq!(row["client"]["outcome"], "kept", "{row}");
    assert_eq!(row["affinitySeconds"], 10_800);
    assert_eq!(row["external"]["backends"].as_array().unwrap().len(), 3, "{row}");
}

/// `loadBalancerSourceRanges` lets in whom it names, and `internalTrafficPolicy: Local` keeps pods on their node.
pub fn some_are_let_in(lab: &Lab) {
    let ranges = |v4: &str, v6: &str| json!({"type": "LoadBalancer", "loadBalancerSourceRanges": [v4, v6]});
    let internal = json!({"internalTrafficPolicy": "Local"});
    lab.apply(&[
        service(
            "limited",
            json!({"name": "a1"}),
            ranges("198.51.100.0/24", "2001:db8:100::/64"),
        ),
        service("here", json!({"letter": "a"}), internal.clone()),
        service("elsewhere", json!({"name": "a3"}), internal),
    ]);
    let (outside, pod) = (Client::outside(lab), Client::pod(lab, "b2"));
    let own = lab.addresses("a2");
    for family in 0..2 {
        let here = cluster_ips(&lab.object("service", "here"))[family];
        pod.ask_until_answered(lab, Protocol::Tcp, here);
        for _ in 0..20 {
            let server = pod.ask(Protocol::Tcp, here).unwrap().server.ip().to_string();
            assert!(own.contains(&server), "{server} is none of {own:?}");
        }
        pod.gets_nothing(
            Protocol::Tcp,
            cluster_ips(&lab.object("service", "elsewhere"))[family],
        );
    }
    let balanced = load_balancer_ips(lab, "limited");
    for to in &balanced {
        outside.ask_until_answered(lab, Protocol::Tcp, *to);
        // Pods are not among them.
        pod.gets_nothing(Protocol::Tcp, *to);
    }
    let patch = json!({"spec": ranges("192.0.2.0/24", "2001:db8:2::/64")}).to_string();
    support::succeed(&mut lab.kubectl(&["patch", "service", "limited", "-p", &patch]));
    for to in &balanced {
        support::eventually("the client is let in no longer", 10, || {
            outside
                .ask_within(Protocol::Tcp, *to, SHORT)
                .is_err()
                .then_some(())
        });
        outside.gets_nothing(Protocol::Tcp, *to);
    }
}
