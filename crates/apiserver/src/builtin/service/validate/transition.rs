//! What may not change about a Service once it is set.

use k8s_openapi::api::core::v1::ServiceSpec;

use crate::builtin::service::spec::{LOAD_BALANCER, Questions, SINGLE_STACK};
use crate::cause::Cause;

const ONCE: &str = "may not change once set";

/// All that is wrong with a change.
pub fn check(before: &ServiceSpec, after: &ServiceSpec) -> Vec<Cause> {
    let mut causes = Vec::new();
    if before.needs_cluster_ip() && after.needs_cluster_ip() {
        if !(before.is_headless() && after.is_headless()) {
            cluster_ips(before, after, &mut causes);
        }
        if !before.is_headless() && !after.is_headless() {
            ip_families(before, after, &mut causes);
        }
    }
    if before.kind() == LOAD_BALANCER
        && after.kind() == LOAD_BALANCER
        && before.load_balancer_class != after.load_balancer_class
    {
        causes.push(Cause::invalid(
            "spec.loadBalancerClass",
            &after.load_balancer_class,
            ONCE,
        ));
    }
    if before.needs_health_check()
        && after.needs_health_check()
        && before.health_port() != after.health_port()
    {
        causes.push(Cause::forbidden("spec.healthCheckNodePort", "field is immutable"));
    }
    causes
}

fn cluster_ips(before: &ServiceSpec, after: &ServiceSpec, causes: &mut Vec<Cause>) {
    let (old, new) = (before.ips(), after.ips());
    if new.is_empty() && !old.is_empty() {
        causes.push(Cause::invalid(
            "spec.clusterIPs[0]",
            new,
            "primary clusterIP can not be unset",
        ));
    }
    for i in changed(old, new) {
        causes.push(Cause::invalid(format!("spec.clusterIPs[{i}]"), new, ONCE));
    }
    second_released(old, new, after, "clusterIP", causes);
}

fn ip_families(before: &ServiceSpec, after: &ServiceSpec, causes: &mut Vec<Cause>) {
    let (old, new) = (before.families(), after.families());
    if new.is_empty() && !old.is_empty() {
        causes.push(Cause::invalid(
            "spec.ipFamilies[0]",
            new,
            "primary ipFamily can not be unset",
        ));
    }
    for i in changed(old, new) {
        causes.push(Cause::invalid(format!("spec.ipFamilies[{i}]"), new, ONCE));
    }
    second_released(old, new, after, "ipFamily", causes);
}

/// Which of those that both lists have differ.
fn changed<'a>(old: &'a [String], new: &'a [String]) -> impl Iterator<Item = usize> + 'a {
    let pairs = old.iter().zip(new).enumerate();
    pairs.filter(|(_, (old, new))| old != new).map(|(i, _)| i)
}

fn second_released(old: &[String], new: &[String], after: &ServiceSpec, what: &str, causes: &mut Vec<Cause>) {
    if old.len() > 1 && new.len() == 1 && after.policy() != Some(SINGLE_STACK) {
        let detail = format!("must be set to 'SingleStack' when releasing the secondary {what}");
        causes.push(Cause::invalid("spec.ipFamilyPolicy", after.policy(), &detail));
    }
}
