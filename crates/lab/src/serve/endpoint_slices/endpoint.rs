//! A pod as an endpoint of a Service.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

/// The label of a node that names its zone.
pub const ZONE: &str = "topology.kubernetes.io/zone";

/// The endpoint that a pod is, by its addresses of one family (`IPv4` or `IPv6`); none if it is over, or has none.
pub fn endpoint<'a>(
    service: &Service,
    pod: &Pod,
    node: &dyn Fn(&str) -> Option<&'a Node>,
    family: &str,
) -> Option<Endpoint> {
    let (spec, status) = (pod.spec.as_ref()?, pod.status.as_ref()?);
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return None;
    }
    let is_of = |ip: &IpAddr| ip.is_ipv4() == (family == "IPv4");
    let ips = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let addresses: Vec<String> = ips
        .filter(|ip| ip.parse().is_ok_and(|ip| is_of(&ip)))
        .map(str::to_owned)
        .collect();
    if addresses.is_empty() {
        return None;
    }
    let wants = service.spec.as_ref()?;
    let conditions = status.conditions.iter().flatten();
    let serving = conditions
        .into_iter()
        .any(|c| c.type_ == "Ready" && c.status == "True");
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let ready = wants.publish_not_ready_addresses == Some(true) || serving && !terminating;
    let node_name = spec.node_name.clone().filter(|name| !name.is_empty());
    let zone = node_name
        .as_deref()
        .and_then(node)
        .and_then(|node| node.labels().get(ZONE).cloned())
        .filter(|zone| !zone.is_empty());
    let is_named = spec.subdomain.is_some() && spec.subdomain == service.metadata.name;
    Some(Endpoint {
        addresses,
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hints: hints(wants.traffic_distribution.as_deref(), ready, &zone, &node_name),
        hostname: spec.hostname.clone().filter(|name| is_named && !name.is_empty()),
        node_name,
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.namespace(),
            name: pod.metadata.name.clone(),
            uid: pod.uid(),
            ..ObjectReference::default()
        }),
        zone,
        ..Endpoint::default()
    })
}

/// Who should rather use a ready endpoint (KEP-4444, KEP-3015).
fn hints(
    wish: Option<&str>,
    ready: bool,
    zone: &Option<String>,
    node: &Option<String>,
) -> Option<EndpointHints> {
    let (by_zone, by_node) = match wish {
        Some("PreferClose" | "PreferSameZone") => (true, false),
        Some("PreferSameNode") => (true, true),
        _ => (false, false),
    };
    let name = |name: &String| name.clone();
    let for_zones = zone.as_ref().filter(|_| by_zone).map(name);
    let for_nodes = node.as_ref().filter(|_| by_node).map(name);
    let is_any = for_zones.is_some() || for_nodes.is_some();
    (ready && is_any).then(|| EndpointHints {
        for_zones: for_zones.map(|name| vec![ForZone { name }]),
        for_nodes: for_nodes.map(|name| vec![ForNode { name }]),
    })
}

/// The ports by which a pod serves a Service: a named target is each pod's own. Those that the pod does not have
/// are left out.
pub fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let port = |port: &ServicePort| {
        Some(EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(target(pod, port)?),
            protocol: port.protocol.clone(),
            app_protocol: port.app_protocol.clone(),
        })
    };
    ports.filter_map(port).collect()
}

fn target(pod: &Pod, port: &ServicePort) -> Option<i32> {
    let name = match port.target_port.as_ref() {
        None => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers
        .flat_map(|container| container.ports.iter().flatten())
        .find(|port| {
            port.name.as_ref() == Some(name) && port.protocol.as_deref().unwrap_or("TCP") == protocol
        })
        .map(|port| port.container_port)
}
