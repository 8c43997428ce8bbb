//! What is drawn: Services, slices and clients of few addresses, ports and nodes, so that things meet.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::rules::{Dial, NODE, ZONE, own_addresses};

const PORTS: [&str; 2] = ["a", "b"];

pub fn service(index: usize) -> impl Strategy<Value = Service> {
    let policy = || prop::option::of(prop::sample::select(vec!["Local", "Cluster"]));
    let shape = (
        prop::sample::select(vec![
            "ClusterIP",
            "NodePort",
            "LoadBalancer",
            "LoadBalancer",
            "ExternalName",
        ]),
        prop::sample::select(vec!["v4", "v6", "dual", "dual", "None"]),
        policy(),
        policy(),
        prop::bool::weighted(0.1),
        0i64..3,
        any::<bool>(),
    );
    let ports = prop::collection::vec((80u16..83, prop::option::of(30080u16..30083)), 1..=2);
    let addresses = (
        prop::collection::vec(0u8..3, 0..2),
        prop::collection::vec(
            (
                0u8..4,
                prop::option::of(prop::sample::select(vec!["VIP", "Proxy"])),
            ),
            0..3,
        ),
        prop::sample::subsequence(
            vec!["192.0.2.0/25", "192.0.2.7/32", "2001:db8:1::/48", "::/0"],
            0..3,
        ),
        prop::option::of(prop::option::of(1i32..5)),
    );
    (shape, ports, addresses).prop_map(move |((kind, families, internal, external, other_proxy, age, udp_first), ports, rest)| {
        let (external_ips, ingress, ranges, affinity) = rest;
        let (v4, v6) = (format!("10.96.0.{index}"), format!("fd00:96::{index}"));
        let (ips, families): (Vec<&str>, Vec<&str>) = match families {
            "v4" => (vec![&v4], vec!["IPv4"]),
            "v6" => (vec![&v6], vec!["IPv6"]),
            "dual" => (vec![&v6, &v4], vec!["IPv6", "IPv4"]),
            _ => (vec!["None"], vec!["IPv4"]),
        };
        // The second port has the other protocol, so that both may have one number.
        let protocols = if udp_first { ["UDP", "TCP"] } else { ["TCP", "UDP"] };
        let port = |((name, protocol), (port, node_port)): ((&&str, &str), &(u16, Option<u16>))| {
            json!({"name": name, "port": port, "nodePort": node_port, "protocol": protocol})
        };
        let ports: Vec<Value> = PORTS.iter().zip(protocols).zip(&ports).map(port).collect();
        let labels = if other_proxy { json!({"service.kubernetes.io/service-proxy-name": "x"}) } else { json!({}) };
        let ingress: Vec<Value> = ingress.iter().map(|(a, mode)| json!({"ip": outside(*a), "ipMode": mode})).collect();
        let object = json!({
            "metadata": {
                "namespace": "default", "name": format!("s{index}"), "labels": labels,
                "creationTimestamp": format!("2026-01-01T00:00:0{age}Z"),
            },
            "spec": {
                "type": kind, "clusterIP": ips[0], "clusterIPs": ips, "ipFamilies": families, "ports": ports,
                "externalIPs": external_ips.iter().map(|a| outside(*a)).collect::<Vec<_>>(),
                "internalTrafficPolicy": internal, "externalTrafficPolicy": external,
                "loadBalancerSourceRanges": ranges,
                "sessionAffinity": affinity.map(|_| "ClientIP"),
                "sessionAffinityConfig": affinity.flatten().map(|t| json!({"clientIP": {"timeoutSeconds": t}})),
                "healthCheckNodePort": 32000,
            },
            "status": {"loadBalancer": {"ingress": ingress}},
        });
        serde_json::from_value(object).unwrap()
    })
}

/// An address outside the cluster, or (0) this node's own.
fn outside(which: u8) -> &'static str {
    ["172.20.0.1", "203.0.113.1", "2001:db8::1", "203.0.113.2"][usize::from(which)]
}

pub fn slice(index: usize) -> impl Strategy<Value = EndpointSlice> {
    let condition = || prop::option::of(any::<bool>());
    let conditions = (
        condition(),
        condition(),
        prop::option::of(prop::bool::weighted(0.4)),
    );
    let hint = |all: Vec<&'static str>| {
        prop_oneof![
            1 => Just(vec![]),
            3 => prop::sample::subsequence(all, 1..=2),
        ]
    };
    let endpoint = (
        0u8..5,
        prop::option::of(0u8..3),
        conditions,
        hint(vec![NODE, "node2"]),
        hint(vec![ZONE, "b"]),
    );
    let endpoints = prop::collection::vec(endpoint, 0..4);
    let ports = prop::sample::subsequence(PORTS.to_vec(), 1..=2);
    (
        0usize..3,
        any::<bool>(),
        ports,
        any::<bool>(),
        endpoints,
        prop::bool::weighted(0.05),
        any::<bool>(),
    )
        .prop_map(
            move |(service, v4, ports, other_number, endpoints, headless, hinted)| {
                let mut labels = json!({"kubernetes.io/service-name": format!("s{service}")});
                if headless {
                    labels["service.kubernetes.io/headless"] = "".into();
                }
                let port = |name: &&str| {
                    let number = if other_number { 8081 } else { 8080 };
                    ["TCP", "UDP"].map(|p| json!({"name": name, "port": number, "protocol": p}))
                };
                let endpoint = |(a, node, (ready, serving, terminating), nodes, zones): &(
                    u8,
                    _,
                    (_, _, _),
                    Vec<_>,
                    Vec<_>,
                )| {
                    let node: &Option<u8> = node;
                    let named = |names: &[&str]| names.iter().map(|n| json!({"name": n})).collect::<Vec<_>>();
                    let hints = hinted.then(|| json!({"forNodes": named(nodes), "forZones": named(zones)}));
                    json!({
                        "addresses": [if v4 { format!("10.244.0.{a}") } else { format!("fd00:244::{a}") }],
                        "nodeName": node.map(|n| format!("node{n}")),
                        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
                        "hints": hints,
                    })
                };
                let object = json!({
                    "metadata": {"namespace": "default", "name": format!("slice{index}"), "labels": labels},
                    "addressType": if v4 { "IPv4" } else { "IPv6" },
                    "ports": ports.iter().flat_map(port).collect::<Vec<_>>(),
                    "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
                });
                serde_json::from_value(object).unwrap()
            },
        )
}

/// Every kind of client to every place that there might be.
pub fn dials() -> Vec<Dial> {
    let mut all = Vec::new();
    let v4: Vec<IpAddr> = ["192.0.2.7", "192.0.2.130", "10.244.0.1"]
        .map(|a| a.parse().unwrap())
        .into();
    let v6: Vec<IpAddr> = ["2001:db8:1::1", "2001:db8:2::1"]
        .map(|a| a.parse().unwrap())
        .into();
    let mut places: Vec<IpAddr> = own_addresses().into();
    places.extend(
        (0..3)
            .flat_map(|i| [format!("10.96.0.{i}"), format!("fd00:96::{i}")])
            .map(|a| a.parse::<IpAddr>().unwrap()),
    );
    places.extend((1..4).map(|i| outside(i).parse::<IpAddr>().unwrap()));
    for address in places {
        let clients = if address.is_ipv4() { &v4 } else { &v6 };
        for port in (80..84).chain(30080..30083) {
            for (udp, inside) in [(false, false), (false, true), (true, false), (true, true)] {
                all.extend(clients.iter().map(|client| Dial {
                    client: *client,
                    inside,
                    address,
                    port,
                    udp,
                }));
            }
        }
    }
    all
}
