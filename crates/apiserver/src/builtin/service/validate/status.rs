//! What is wrong with the status of a Service.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ServiceSpec, ServiceStatus};
use serde_json::Value;

use super::DNS_1123;
use super::addresses::NO_IP;
use crate::builtin::service::spec::{LOAD_BALANCER, Questions};
use crate::cause::Cause;
use crate::names;

/// All that is wrong with it.
pub fn check(status: &Value, spec: &ServiceSpec) -> Vec<Cause> {
    let status: ServiceStatus = serde_json::from_value(status.clone()).unwrap_or_default();
    let ingress = status.load_balancer.and_then(|l| l.ingress).unwrap_or_default();
    let list = "status.loadBalancer.ingress";
    let mut causes = Vec::new();
    if !ingress.is_empty() && spec.kind() != LOAD_BALANCER {
        causes.push(Cause::forbidden(
            list,
            "may only be used when `spec.type` is 'LoadBalancer'",
        ));
    }
    for (i, point) in ingress.iter().enumerate() {
        let (ip, host) = (
            point.ip.as_deref().unwrap_or_default(),
            point.hostname.as_deref().unwrap_or_default(),
        );
        if !ip.is_empty() && ip.parse::<IpAddr>().is_err() {
            causes.push(Cause::invalid(format!("{list}[{i}].ip"), ip, NO_IP));
        }
        match point.ip_mode.as_deref() {
            Some(_) if ip.is_empty() => causes.push(Cause::forbidden(
                format!("{list}[{i}].ipMode"),
                "may not be specified when `ip` is not set",
            )),
            Some(mode) if !["Proxy", "VIP"].contains(&mode) => {
                let field = format!("{list}[{i}].ipMode");
                causes.push(Cause::not_supported(field, mode, &["Proxy", "VIP"]));
            }
            _ => {}
        }
        let field = format!("{list}[{i}].hostname");
        if !host.is_empty() && host.parse::<IpAddr>().is_ok() {
            causes.push(Cause::invalid(
                field,
                host,
                "must be a DNS name, not an IP address",
            ));
        } else if !host.is_empty() && !names::is_dns_subdomain(host) {
            causes.push(Cause::invalid(field, host, DNS_1123));
        }
    }
    causes
}
