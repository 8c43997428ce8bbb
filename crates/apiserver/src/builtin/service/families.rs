//! Which IP families a Service is of.

use k8s_openapi::api::core::v1::ServiceSpec;

use super::ranges::ServiceRanges;
use super::spec::{
    NONE, PREFER_DUAL_STACK, Questions, REQUIRE_DUAL_STACK, SINGLE_STACK, family_of, other_family,
};
use super::validate;
use crate::cause::Cause;

const POLICY: &str = "spec.ipFamilyPolicy";

/// Completes `ipFamilyPolicy` and `ipFamilies` by what the Service asks for, what it had, and which families the
/// cluster has.
pub fn complete(
    ranges: &ServiceRanges,
    before: Option<&ServiceSpec>,
    after: &mut ServiceSpec,
) -> Result<(), Vec<Cause>> {
    if !after.needs_cluster_ip() || keeps_dual_stack(before, after) {
        return Ok(());
    }
    let selects_nothing = after.first_ip() == NONE && !after.has_selector();
    if after.policy().is_none() {
        let known = before.and_then(|b| b.ip_family_policy.clone());
        let default = if selects_nothing {
            REQUIRE_DUAL_STACK
        } else {
            SINGLE_STACK
        };
        after.ip_family_policy = known.or_else(|| Some(default.to_owned()));
    }
    stop_if_any(validate::cluster_ip_fields(after))?;
    if let Some(before) = before {
        stop_if_any(release_second(before, after))?;
    }
    stop_if_any(infer(ranges, after))?;
    let policy = after.policy().unwrap_or_default().to_owned();
    let has = |family: &str| ranges.of(family).is_some();
    if !selects_nothing {
        let mut causes = Vec::new();
        if policy == REQUIRE_DUAL_STACK && ranges.families().len() < 2 {
            let detail = "this cluster is not configured for dual-stack services";
            causes.push(Cause::invalid(POLICY, &policy, detail));
        }
        for (i, family) in after.families().iter().enumerate().filter(|(_, f)| !has(f)) {
            let field = format!("spec.ipFamilies[{i}]");
            causes.push(Cause::invalid(field, family, "not configured on this cluster"));
        }
        stop_if_any(causes)?;
    }
    let families = after.ip_families.get_or_insert_default();
    if families.is_empty() {
        families.extend(ranges.families().first().map(|&family| family.to_owned()));
    }
    if let [only] = families.as_slice()
        && policy != SINGLE_STACK
        // What selects nothing has endpoints that somebody else makes, of any family.
        && (selects_nothing || has(other_family(only)))
    {
        families.push(other_family(only).to_owned());
    }
    Ok(())
}

/// A Service that prefers two families keeps those that it has, whatever the cluster has come to have.
fn keeps_dual_stack(before: Option<&ServiceSpec>, after: &ServiceSpec) -> bool {
    before.is_some_and(|before| {
        before.kind() == after.kind()
            && before.policy() == Some(PREFER_DUAL_STACK)
            && after.policy() == Some(PREFER_DUAL_STACK)
            && before.ips() == after.ips()
            && before.families() == after.families()
    })
}

/// The second family goes by the policy SingleStack alone.
fn release_second(before: &ServiceSpec, after: &mut ServiceSpec) -> Vec<Cause> {
    if after.policy() == Some(SINGLE_STACK) {
        if before.ips() == after.ips() {
            after.cluster_ips.iter_mut().for_each(|ips| ips.truncate(1));
        }
        if before.families() == after.families() {
            after
                .ip_families
                .iter_mut()
                .for_each(|families| families.truncate(1));
        }
        return Vec::new();
    }
    let is_reduced = |before: &[String], after: &[String]| !after.is_empty() && after.len() < before.len();
    let mut causes = Vec::new();
    if is_reduced(before.ips(), after.ips()) {
        let detail = "must be 'SingleStack' to release the secondary cluster IP";
        causes.push(Cause::invalid(POLICY, after.policy(), detail));
    }
    if is_reduced(before.families(), after.families()) {
        let detail = "must be 'SingleStack' to release the secondary IP family";
        causes.push(Cause::invalid(POLICY, after.policy(), detail));
    }
    causes
}

/// Families that the given addresses are of.
fn infer(ranges: &ServiceRanges, after: &mut ServiceSpec) -> Vec<Cause> {
    let mut causes = Vec::new();
    if after.policy() == Some(SINGLE_STACK) {
        let detail = |what: &str| {
            format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified")
        };
        if after.ips().len() == 2 {
            causes.push(Cause::invalid(POLICY, SINGLE_STACK, &detail("cluster IPs")));
        }
        if after.families().len() == 2 {
            causes.push(Cause::invalid(POLICY, SINGLE_STACK, &detail("IP families")));
        }
    }
    let ips = after.ips().to_vec();
    for (i, ip) in ips.iter().enumerate().skip(after.families().len()) {
        let Some(family) = family_of(ip) else { break };
        if ranges.of(family).is_some() {
            after.ip_families.get_or_insert_default().push(family.to_owned());
        } else {
            let detail = format!("{family} is not configured on this cluster");
            causes.push(Cause::invalid(format!("spec.clusterIPs[{i}]"), &ips, &detail));
        }
    }
    causes
}

fn stop_if_any(causes: Vec<Cause>) -> Result<(), Vec<Cause>> {
    if causes.is_empty() { Ok(()) } else { Err(causes) }
}
