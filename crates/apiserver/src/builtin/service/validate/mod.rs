//! What is wrong with a Service, in the words of Kubernetes (pkg/apis/core/validation, ValidateService).

mod addresses;
mod ports;
mod status;
mod transition;

use k8s_openapi::api::core::v1::ServiceSpec;
use serde_json::Value;

use super::spec::{CLUSTER_IP, EXTERNAL_NAME, LOAD_BALANCER, NODE_PORT, Questions};
use crate::cause::Cause;
use crate::names;

pub use addresses::cluster_ip_fields;

const ONLY_LOAD_BALANCER: &str = "may only be used when `type` is 'LoadBalancer'";

/// All that is wrong with a Service and with the change that it is.
pub fn service(old: Option<&Value>, new: &Value) -> Vec<Cause> {
    let spec = super::spec(new);
    let mut causes = Vec::new();
    if let Some(old) = old {
        causes.extend(transition::check(&super::spec(old), &spec));
    }
    let name = new["metadata"]["name"].as_str().unwrap_or_default();
    if !names::is_dns_1035_label(name) {
        causes.push(Cause::invalid("metadata.name", name, DNS_1035));
    }
    check(&spec, &mut causes);
    causes.extend(status::check(&new["status"], &spec));
    causes
}

const DNS_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
pub(super) const DNS_1123: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

fn check(spec: &ServiceSpec, causes: &mut Vec<Cause>) {
    if spec.all_ports().is_empty() && !spec.is_headless() && spec.kind() != EXTERNAL_NAME {
        causes.push(Cause::required("spec.ports", ""));
    }
    match spec.kind() {
        EXTERNAL_NAME => external_name(spec, causes),
        LOAD_BALANCER | NODE_PORT if spec.is_headless() => {
            let detail = format!("may not be set to 'None' for {} services", spec.kind());
            causes.push(Cause::invalid("spec.clusterIPs[0]", spec.first_ip(), &detail));
        }
        CLUSTER_IP | LOAD_BALANCER | NODE_PORT => {}
        other => {
            let supported = [CLUSTER_IP, EXTERNAL_NAME, LOAD_BALANCER, NODE_PORT];
            causes.push(Cause::not_supported("spec.type", other, &supported));
        }
    }
    causes.extend(ports::check(spec));
    for (key, value) in spec.selector.iter().flatten() {
        if !names::is_label_key(key) {
            causes.push(Cause::invalid("spec.selector", key, "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"));
        }
        if !names::is_label_value(value) {
            causes.push(Cause::invalid("spec.selector", value, "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"));
        }
    }
    affinity(spec, causes);
    causes.extend(addresses::check(spec));
    load_balancer(spec, causes);
    policies(spec, causes);
}

fn external_name(spec: &ServiceSpec, causes: &mut Vec<Cause>) {
    let not_here = "may not be set for ExternalName services";
    for (field, is_set) in [
        (
            "spec.clusterIPs",
            !spec.ips().is_empty() || !spec.first_ip().is_empty(),
        ),
        ("spec.ipFamilies", !spec.families().is_empty()),
        ("spec.ipFamilyPolicy", spec.policy().is_some()),
    ] {
        if is_set {
            causes.push(Cause::forbidden(field, not_here));
        }
    }
    let name = spec.external_name.as_deref().unwrap_or_default();
    // A dot at the end says that the name is complete.
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        causes.push(Cause::required("spec.externalName", ""));
    } else if !names::is_dns_subdomain(name) {
        causes.push(Cause::invalid("spec.externalName", name, DNS_1123));
    }
}

/// The longest time that a client may keep its endpoint: a day.
const MOST_AFFINITY_SECONDS: i32 = 86_400;

fn affinity(spec: &ServiceSpec, causes: &mut Vec<Cause>) {
    match spec.session_affinity.as_deref().unwrap_or_default() {
        "None" => {}
        "ClientIP" => {
            let config = spec.session_affinity_config.as_ref();
            let seconds = config.and_then(|c| c.client_ip.as_ref()?.timeout_seconds);
            if let Some(seconds) = seconds.filter(|s| !(1..=MOST_AFFINITY_SECONDS).contains(s)) {
                let detail = format!("must be greater than 0 and less than {MOST_AFFINITY_SECONDS}");
                let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
                causes.push(Cause::invalid(field, seconds, &detail));
            }
        }
        other => {
            let supported = ["ClientIP", "None"];
            causes.push(Cause::not_supported("spec.sessionAffinity", other, &supported));
        }
    }
}

fn load_balancer(spec: &ServiceSpec, causes: &mut Vec<Cause>) {
    let is_balanced = spec.kind() == LOAD_BALANCER;
    let ranges = spec.load_balancer_source_ranges.as_deref().unwrap_or_default();
    // The capital letter is Kubernetes'.
    let field = "spec.LoadBalancerSourceRanges";
    if !ranges.is_empty() && !is_balanced {
        causes.push(Cause::forbidden(field, ONLY_LOAD_BALANCER));
    }
    for (i, range) in ranges.iter().enumerate() {
        if range.trim().parse::<ipnet::IpNet>().is_err() {
            let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            causes.push(Cause::invalid(format!("{field}[{i}]"), range, detail));
        }
    }
    if spec.allocate_load_balancer_node_ports.is_some() && !is_balanced {
        causes.push(Cause::forbidden(
            "spec.allocateLoadBalancerNodePorts",
            ONLY_LOAD_BALANCER,
        ));
    }
    match spec.load_balancer_class.as_deref() {
        Some(_) if !is_balanced => {
            causes.push(Cause::forbidden("spec.loadBalancerClass", ONLY_LOAD_BALANCER));
        }
        Some(class) if !names::is_label_key(class) => causes.push(Cause::invalid(
            "spec.loadBalancerClass",
            class,
            ports::QUALIFIED_NAME,
        )),
        _ => {}
    }
}

fn policies(spec: &ServiceSpec, causes: &mut Vec<Cause>) {
    let supported = ["Cluster", "Local"];
    match spec.external_traffic_policy.as_deref() {
        Some(policy) if !spec.is_external() => {
            let detail = "may only be set for externally-accessible services";
            causes.push(Cause::invalid("spec.externalTrafficPolicy", policy, detail));
        }
        Some(policy) if !supported.contains(&policy) => {
            causes.push(Cause::not_supported(
                "spec.externalTrafficPolicy",
                policy,
                &supported,
            ));
        }
        _ => {}
    }
    if let Some(policy) = spec.internal_traffic_policy.as_deref()
        && !supported.contains(&policy)
    {
        causes.push(Cause::not_supported(
            "spec.internalTrafficPolicy",
            policy,
            &supported,
        ));
    }
    let health = spec.health_port();
    if health != 0 && !spec.needs_health_check() {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        causes.push(Cause::invalid("spec.healthCheckNodePort", health, detail));
    }
    let supported = ["PreferClose", "PreferSameNode", "PreferSameZone"];
    if let Some(wish) = spec.traffic_distribution.as_deref()
        && !supported.contains(&wish)
    {
        causes.push(Cause::not_supported("spec.trafficDistribution", wish, &supported));
    }
}
