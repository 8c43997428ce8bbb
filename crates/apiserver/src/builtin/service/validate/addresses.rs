//! What is wrong with the addresses and IP families of a Service.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::ServiceSpec;

use crate::builtin::addresses::special;
use crate::builtin::service::spec::{
    IPV4, IPV6, NONE, PREFER_DUAL_STACK, Questions, REQUIRE_DUAL_STACK, SINGLE_STACK, family_of,
};
use crate::cause::Cause;

pub(super) const NO_IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
const CLUSTER_IPS: &str = "spec.clusterIPs";

/// All that is wrong with them.
pub fn check(spec: &ServiceSpec) -> Vec<Cause> {
    let mut causes = cluster_ip_fields(spec);
    for (i, text) in spec.external_ips.iter().flatten().enumerate() {
        let field = format!("spec.externalIPs[{i}]");
        match text.parse::<IpAddr>() {
            Err(_) => causes.push(Cause::invalid(field, text, NO_IP)),
            Ok(ip) => causes.extend(special(ip).map(|why| Cause::invalid(field, text, why))),
        }
    }
    causes
}

/// Whether `clusterIP`, `clusterIPs`, `ipFamilies` and `ipFamilyPolicy` agree: asked before anything is given, and
/// again at the end.
pub fn cluster_ip_fields(spec: &ServiceSpec) -> Vec<Cause> {
    if !spec.needs_cluster_ip() {
        return Vec::new();
    }
    let mut causes = Vec::new();
    let (first, ips) = (spec.first_ip(), spec.ips());
    match ips.first() {
        None if !first.is_empty() => causes.push(Cause::required(CLUSTER_IPS, "")),
        Some(_) if first.is_empty() => causes.push(Cause::invalid(
            CLUSTER_IPS,
            ips,
            "must be empty when `clusterIP` is not specified",
        )),
        Some(ip) if ip != first => {
            causes.push(Cause::invalid(
                CLUSTER_IPS,
                ips,
                "first value must match `clusterIP`",
            ));
        }
        _ => {}
    }
    families(spec, &mut causes);
    let before = causes.len();
    for (i, ip) in ips.iter().enumerate() {
        if i == 0 && ip == NONE {
            if ips.len() > 1 {
                causes.push(Cause::invalid(
                    CLUSTER_IPS,
                    ips,
                    "'None' must be the first and only value",
                ));
            }
        } else if family_of(ip).is_none() {
            causes.push(Cause::invalid(format!("{CLUSTER_IPS}[{i}]"), ip, NO_IP));
        }
    }
    let are_ips = causes.len() == before;
    if ips.len() > 2 {
        causes.push(Cause::invalid(CLUSTER_IPS, ips, "may only hold up to 2 values"));
    }
    if !are_ips || spec.is_headless() {
        return causes;
    }
    if let [first, rest @ ..] = ips
        && rest.iter().any(|ip| family_of(ip) == family_of(first))
    {
        let detail = "may specify no more than one IP for each IP family";
        causes.push(Cause::invalid(CLUSTER_IPS, ips, detail));
    }
    for (i, (ip, family)) in ips.iter().zip(spec.families()).enumerate() {
        if [IPV4, IPV6].contains(&family.as_str()) && family_of(ip) != Some(family) {
            let detail = format!("expected an {family} value as indicated by `ipFamilies[{i}]`");
            causes.push(Cause::invalid(format!("{CLUSTER_IPS}[{i}]"), ip, &detail));
        }
    }
    causes
}

fn families(spec: &ServiceSpec, causes: &mut Vec<Cause>) {
    for (i, family) in spec.families().iter().enumerate() {
        let field = format!("spec.ipFamilies[{i}]");
        if ![IPV4, IPV6].contains(&family.as_str()) {
            causes.push(Cause::not_supported(field.as_str(), family, &[IPV4, IPV6]));
        }
        if spec.families()[..i].contains(family) {
            causes.push(Cause::duplicate(field, family));
        }
    }
    let supported = [PREFER_DUAL_STACK, REQUIRE_DUAL_STACK, SINGLE_STACK];
    if let Some(policy) = spec.policy()
        && !supported.contains(&policy)
    {
        causes.push(Cause::not_supported("spec.ipFamilyPolicy", policy, &supported));
    }
}
