//! What a Service has where its writer said nothing.

use k8s_openapi::api::core::v1::{ClientIPConfig, ServiceSpec, SessionAffinityConfig};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::spec::{CLUSTER_IP, EXTERNAL_NAME, LOAD_BALANCER, Questions};

/// For how many seconds a client keeps its endpoint with session affinity: three hours.
const AFFINITY_SECONDS: i32 = 10_800;

/// Sets them.
pub fn set(service: &mut Value) {
    let mut spec = super::spec(service);
    complete(&mut spec);
    let is_load_balancer = spec.kind() == LOAD_BALANCER;
    super::set_spec(service, &spec);
    let ingress = service
        .pointer_mut("/status/loadBalancer/ingress")
        .and_then(Value::as_array_mut);
    for point in ingress.into_iter().flatten().filter(|_| is_load_balancer) {
        if point["ip"].is_string() && point["ipMode"].is_null() {
            point["ipMode"] = "VIP".into();
        }
    }
}

fn complete(spec: &mut ServiceSpec) {
    or_else(&mut spec.session_affinity, || "None".to_owned());
    match spec.session_affinity.as_deref() {
        Some("None") => spec.session_affinity_config = None,
        Some("ClientIP") => {
            let known = spec
                .session_affinity_config
                .as_ref()
                .and_then(|c| c.client_ip.as_ref());
            if known.is_none_or(|c| c.timeout_seconds.is_none()) {
                let timeout_seconds = Some(AFFINITY_SECONDS);
                spec.session_affinity_config = Some(SessionAffinityConfig {
                    client_ip: Some(ClientIPConfig { timeout_seconds }),
                });
            }
        }
        _ => {}
    }
    or_else(&mut spec.type_, || CLUSTER_IP.to_owned());
    for port in spec.ports.iter_mut().flatten() {
        or_else(&mut port.protocol, || "TCP".to_owned());
        let is_set = match &port.target_port {
            None | Some(IntOrString::Int(0)) => false,
            Some(IntOrString::String(name)) => !name.is_empty(),
            Some(IntOrString::Int(_)) => true,
        };
        if !is_set {
            port.target_port = Some(IntOrString::Int(port.port));
        }
        port.node_port = port.node_port.filter(|port| *port != 0);
    }
    if spec.is_external() {
        or_else(&mut spec.external_traffic_policy, || "Cluster".to_owned());
    }
    if spec.kind() == EXTERNAL_NAME {
        spec.internal_traffic_policy = None;
    } else {
        or_else(&mut spec.internal_traffic_policy, || "Cluster".to_owned());
    }
    if spec.kind() == LOAD_BALANCER {
        spec.allocate_load_balancer_node_ports.get_or_insert(true);
    }
    // In Kubernetes' own JSON, what is empty is left out.
    empty_is_none(spec);
}

fn empty_is_none(spec: &mut ServiceSpec) {
    for text in [
        &mut spec.cluster_ip,
        &mut spec.external_name,
        &mut spec.external_traffic_policy,
        &mut spec.load_balancer_ip,
    ] {
        text.take_if(|text| text.is_empty());
    }
    for list in [
        &mut spec.cluster_ips,
        &mut spec.ip_families,
        &mut spec.external_ips,
        &mut spec.load_balancer_source_ranges,
    ] {
        list.take_if(|list| list.is_empty());
    }
    spec.ports.take_if(|ports| ports.is_empty());
    spec.selector.take_if(|selector| selector.is_empty());
    spec.health_check_node_port.take_if(|port| *port == 0);
    spec.publish_not_ready_addresses.take_if(|publish| !*publish);
}

fn or_else(field: &mut Option<String>, default: impl FnOnce() -> String) {
    if field.as_deref().is_none_or(str::is_empty) {
        *field = Some(default());
    }
}
