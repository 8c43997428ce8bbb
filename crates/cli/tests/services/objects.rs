//! The lab's Services and pods, as the scenarios make them.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use crate::support::asking::Protocol;
use crate::support::{Lab, eventually, succeed};

/// The nodes' addresses: node2 is past the router, node3 on node1's segment.
pub const NODES: [[&str; 2]; 3] = [
    ["172.20.1.11", "fd00:20:1::11"],
    ["172.20.2.11", "fd00:20:2::11"],
    ["172.20.1.12", "fd00:20:1::12"],
];

/// A dual-stack Service of the probe's ports, with more of a spec.
pub fn service(name: &str, selector: Value, more: Value) -> Value {
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

/// A pod that serves, on whichever node, and goes on for a while when it is told to end.
pub fn pod(name: &str, app: &str, drain: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": app}},
        "spec": {
            "terminationGracePeriodSeconds": 10,
            "containers": [{
                "name": "probe", "image": "tombolo/probe",
                "lifecycle": {"preStop": {"exec": {"command": ["sleep", drain]}}},
            }],
        },
    })
}

/// Makes pods, and waits until they are ready.
#[track_caller]
pub fn start(lab: &Lab, pods: &[Value]) {
    lab.apply(pods);
    let names = pods
        .iter()
        .map(|pod| format!("pod/{}", pod["metadata"]["name"].as_str().unwrap()));
    let names: Vec<String> = names.collect();
    let mut wait = lab.kubectl(&["wait", "--for=condition=Ready", "--timeout=20s"]);
    succeed(wait.args(names));
}

/// The cluster IPs of a Service at its port.
pub fn cluster_ips(service: &Value) -> Vec<SocketAddr> {
    let ips = service["spec"]["clusterIPs"].as_array().unwrap();
    ips.iter()
        .map(|ip| SocketAddr::new(ip.as_str().unwrap().parse().unwrap(), 80))
        .collect()
}

/// The load balancer's addresses of a Service at its port.
#[track_caller]
pub fn load_balancer_ips(lab: &Lab, name: &str) -> Vec<SocketAddr> {
    eventually("load balancer addresses", 10, || {
        let ips = balanced(&lab.object("service", name));
        (ips.len() == 2).then_some(ips)
    })
}

/// The same, as far as they are there.
pub fn balanced(service: &Value) -> Vec<SocketAddr> {
    let points = service["status"]["loadBalancer"]["ingress"].as_array();
    points
        .into_iter()
        .flatten()
        .map(|p| SocketAddr::new(p["ip"].as_str().unwrap().parse().unwrap(), 80))
        .collect()
}

pub fn node_port(service: &Value, protocol: Protocol) -> u16 {
    let name = if protocol == Protocol::Tcp { "tcp" } else { "udp" };
    let ports = service["spec"]["ports"].as_array().unwrap();
    let port = ports.iter().find(|p| p["name"] == name).unwrap();
    port["nodePort"].as_u64().unwrap() as u16
}

/// Those of a node, by its place in [`NODES`].
pub fn addresses(node: usize) -> [IpAddr; 2] {
    NODES[node].map(|a| a.parse().unwrap())
}
