//! What is wrong with the ports of a pod's containers (pkg/apis/core/validation: validateContainerPorts,
//! checkHostPortConflicts).

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::Value;

use crate::cause::Cause;

const PORT_RANGE: &str = "must be between 1 and 65535, inclusive";
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

/// All that is wrong with them.
pub fn check(pod: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut taken = BTreeSet::new();
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    for (i, container) in containers.enumerate() {
        let ports = container["ports"].as_array().into_iter().flatten();
        for (k, port) in ports.enumerate() {
            let field = format!("spec.containers[{i}].ports[{k}]");
            causes.extend(check_one(port, &field));
            if let Some(host_port) = host_port(port) {
                let text = |key: &str| port[key].as_str().unwrap_or_default();
                let place = format!("{}/{}/{host_port}", text("protocol"), text("hostIP"));
                if !taken.insert(place.clone()) {
                    causes.push(Cause::duplicate(format!("{field}.hostPort"), place));
                }
            }
        }
    }
    causes
}

/// None where it is not given.
fn host_port(port: &Value) -> Option<i64> {
    port["hostPort"].as_i64().filter(|&port| port != 0)
}

fn check_one(port: &Value, field: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    let is_port = |number: i64| (1..=65535).contains(&number);
    match port["containerPort"].as_i64().unwrap_or(0) {
        0 => causes.push(Cause::required(format!("{field}.containerPort"), "")),
        number if !is_port(number) => {
            causes.push(Cause::invalid(
                format!("{field}.containerPort"),
                number,
                PORT_RANGE,
            ));
        }
        _ => {}
    }
    if let Some(number) = host_port(port).filter(|&number| !is_port(number)) {
        causes.push(Cause::invalid(format!("{field}.hostPort"), number, PORT_RANGE));
    }
    match port["protocol"].as_str().unwrap_or_default() {
        "" => causes.push(Cause::required(format!("{field}.protocol"), "")),
        other if !PROTOCOLS.contains(&other) => {
            causes.push(Cause::not_supported(
                format!("{field}.protocol"),
                other,
                &PROTOCOLS,
            ));
        }
        _ => {}
    }
    let host_ip = port["hostIP"].as_str().unwrap_or_default();
    if !host_ip.is_empty() && host_ip.parse::<IpAddr>().is_err() {
        let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        causes.push(Cause::invalid(format!("{field}.hostIP"), host_ip, detail));
    }
    causes
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_are_checked_as_kubernetes_does() {
        let of = |ports: Value| {
            let pod = json!({"spec": {"containers": [{"ports": ports}]}});
            let causes = check(&pod).into_iter();
            causes
                .map(|c| {
                    format!(
                        "{}: {}",
                        c.field.trim_start_matches("spec.containers[0].ports"),
                        c.message
                    )
                })
                .collect::<Vec<_>>()
        };
        let good = json!([
            {"containerPort": 80, "hostPort": 8080, "protocol": "TCP"},
            {"containerPort": 80, "hostPort": 8080, "protocol": "UDP"},
            {"containerPort": 80, "hostPort": 8080, "protocol": "TCP", "hostIP": "127.0.0.1"},
            {"containerPort": 80, "hostPort": 8080, "protocol": "TCP", "hostIP": "::"},
            {"containerPort": 81, "protocol": "SCTP"},
            {"containerPort": 82, "hostPort": 0, "protocol": "TCP"},
        ]);
        assert_eq!(of(good), [""; 0]);
        let bad = json!([
            {"hostPort": 70000, "protocol": "TCP"},
            {"containerPort": -1, "hostPort": 8080, "protocol": "ICMP"},
            {"containerPort": 80, "hostPort": 8080, "protocol": "TCP", "hostIP": "host"},
            {"containerPort": 81, "hostPort": 8080, "protocol": "TCP", "hostIP": "host"},
        ]);
        assert_eq!(
            of(bad),
            [
                "[0].containerPort: Required value",
                "[0].hostPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
                "[1].containerPort: Invalid value: -1: must be between 1 and 65535, inclusive",
                "[1].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
                "[2].hostIP: Invalid value: \"host\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                "[3].hostIP: Invalid value: \"host\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                "[3].hostPort: Duplicate value: \"TCP/host/8080\"",
            ]
        );
    }
}
