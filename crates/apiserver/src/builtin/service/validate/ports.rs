//! What is wrong with the ports of a Service.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;

use crate::builtin::service::spec::{CLUSTER_IP, LOAD_BALANCER, Questions, node_port};
use crate::cause::Cause;
use crate::names;

/// What the kubelet listens on; some load balancers would open it to the world.
const KUBELET_PORT: i32 = 10_250;
const PORT_RANGE: &str = "must be between 1 and 65535, inclusive";
const DNS_1123_LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
pub(super) const QUALIFIED_NAME: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

/// All that is wrong with them.
pub fn check(spec: &ServiceSpec) -> Vec<Cause> {
    let mut causes = Vec::new();
    let ports = spec.all_ports();
    let mut names = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let field = format!("spec.ports[{i}]");
        if spec.kind() == LOAD_BALANCER && port.port == KUBELET_PORT {
            let detail = format!("may not expose port {KUBELET_PORT} externally since it is used by kubelet");
            causes.push(Cause::invalid(field.as_str(), port.port, &detail));
        }
        match port.name.as_deref().unwrap_or_default() {
            "" if ports.len() > 1 => causes.push(Cause::required(format!("{field}.name"), "")),
            "" => {}
            name => {
                if !names::is_dns_label(name) {
                    causes.push(Cause::invalid(format!("{field}.name"), name, DNS_1123_LABEL));
                }
                if !names.insert(name) {
                    causes.push(Cause::duplicate(format!("{field}.name"), name));
                }
            }
        }
        numbers(port, &field, &mut causes);
        if spec.kind() == CLUSTER_IP && node_port(port) != 0 {
            causes.push(Cause::forbidden(
                format!("{field}.nodePort"),
                "may not be used when `type` is 'ClusterIP'",
            ));
        }
    }
    let mut known = BTreeSet::new();
    for (i, port) in ports.iter().enumerate().filter(|(_, port)| node_port(port) != 0) {
        if !known.insert((&port.protocol, node_port(port))) {
            causes.push(Cause::duplicate(
                format!("spec.ports[{i}].nodePort"),
                node_port(port),
            ));
        }
    }
    let mut known = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        if !known.insert((&port.protocol, port.port)) {
            let pair = json!({"protocol": port.protocol, "port": port.port});
            causes.push(Cause::duplicate(format!("spec.ports[{i}]"), pair));
        }
    }
    causes
}

fn numbers(port: &ServicePort, field: &str, causes: &mut Vec<Cause>) {
    if !is_port(port.port) {
        causes.push(Cause::invalid(format!("{field}.port"), port.port, PORT_RANGE));
    }
    let supported = ["SCTP", "TCP", "UDP"];
    let protocol = port.protocol.as_deref().unwrap_or_default();
    if !supported.contains(&protocol) {
        causes.push(Cause::not_supported(
            format!("{field}.protocol"),
            protocol,
            &supported,
        ));
    }
    let target = format!("{field}.targetPort");
    match &port.target_port {
        Some(IntOrString::Int(number)) if !is_port(*number) => {
            causes.push(Cause::invalid(target, number, PORT_RANGE));
        }
        Some(IntOrString::String(name)) => {
            causes.extend(
                port_name(name)
                    .into_iter()
                    .map(|why| Cause::invalid(target.as_str(), name, why)),
            );
        }
        _ => {}
    }
    if let Some(protocol) = &port.app_protocol
        && !names::is_label_key(protocol)
    {
        causes.push(Cause::invalid(
            format!("{field}.appProtocol"),
            protocol,
            QUALIFIED_NAME,
        ));
    }
}

fn is_port(number: i32) -> bool {
    (1..=65_535).contains(&number)
}

/// What is wrong with the name of a container's port (IANA_SVC_NAME, RFC 6335, section 5.1).
fn port_name(name: &str) -> Vec<&'static str> {
    let is_inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    [
        (name.len() > 15, "must be no more than 15 characters"),
        (
            !name.bytes().all(is_inner),
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
        ),
        (
            !name.bytes().any(|b| b.is_ascii_lowercase()),
            "must contain at least one letter (a-z)",
        ),
        (name.contains("--"), "must not contain consecutive hyphens"),
        (
            name.starts_with('-') || name.ends_with('-'),
            "must not begin or end with a hyphen",
        ),
    ]
    .into_iter()
    .filter_map(|(is_wrong, why)| is_wrong.then_some(why))
    .collect()
}
