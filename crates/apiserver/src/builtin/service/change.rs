//! What an update means for fields that it does not speak of, or that its type no longer has.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::ServiceSpec;

use super::spec::{LOAD_BALANCER, Questions, node_port};

/// Brings an update into accord with what it replaces: drops what only the old type had, keeps what was given
/// to the Service and is not named again.
pub fn settle(before: &ServiceSpec, after: &mut ServiceSpec) {
    drop_what_the_type_lacks(before, after);
    keep_what_was_given(before, after);
    follow_cluster_ip(before, after);
}

/// `clusterIPs` of a new Service whose writer knows only `clusterIP`.
pub fn pair_cluster_ips(spec: &mut ServiceSpec) {
    if !spec.first_ip().is_empty() && spec.ips().is_empty() {
        spec.cluster_ips = spec.cluster_ip.clone().map(|ip| vec![ip]);
    }
}

/// Only what the writer has left as it was: what the writer changed as well is told to be wrong.
fn drop_what_the_type_lacks(before: &ServiceSpec, after: &mut ServiceSpec) {
    if before.needs_cluster_ip() && !after.needs_cluster_ip() {
        if before.first_ip() == after.first_ip() && before.ips() == after.ips() {
            (after.cluster_ip, after.cluster_ips) = (None, None);
        }
        if before.families() == after.families() {
            after.ip_families = None;
        }
        if before.policy() == after.policy() {
            after.ip_family_policy = None;
        }
    }
    if before.has_node_ports()
        && !after.has_node_ports()
        && node_ports(before).is_superset(&node_ports(after))
    {
        for port in after.ports.iter_mut().flatten() {
            port.node_port = None;
        }
    }
    if before.needs_health_check()
        && !after.needs_health_check()
        && before.health_port() == after.health_port()
    {
        after.health_check_node_port = None;
    }
    if before.kind() == LOAD_BALANCER && after.kind() != LOAD_BALANCER {
        if before.allocate_load_balancer_node_ports == after.allocate_load_balancer_node_ports {
            after.allocate_load_balancer_node_ports = None;
        }
        if before.load_balancer_class == after.load_balancer_class {
            after.load_balancer_class = None;
        }
    }
    if before.is_external()
        && !after.is_external()
        && before.external_traffic_policy == after.external_traffic_policy
    {
        after.external_traffic_policy = None;
    }
}

/// So that whoever applies the same manifest again, which names no addresses and ports, changes nothing.
fn keep_what_was_given(before: &ServiceSpec, after: &mut ServiceSpec) {
    if before.needs_cluster_ip() && after.needs_cluster_ip() {
        if after.first_ip().is_empty() {
            after.cluster_ip = before.cluster_ip.clone();
        }
        if after.ips().is_empty() {
            after.cluster_ips = before.cluster_ips.clone();
        }
    }
    if before.allocates_node_ports() && after.allocates_node_ports() {
        let used: BTreeSet<i32> = node_ports(before)
            .intersection(&node_ports(after))
            .copied()
            .collect();
        let known: BTreeMap<Option<&str>, i32> = before
            .all_ports()
            .iter()
            .map(|port| (port.name.as_deref(), node_port(port)))
            .collect();
        for port in after.ports.iter_mut().flatten() {
            if node_port(port) == 0
                && let Some(known) = known.get(&port.name.as_deref())
                && *known != 0
                && !used.contains(known)
            {
                port.node_port = Some(*known);
            }
        }
    }
    if before.needs_health_check() && after.needs_health_check() && after.health_port() == 0 {
        after.health_check_node_port = before.health_check_node_port;
    }
}

/// Writers that know only `clusterIP` mean `clusterIPs` too.
fn follow_cluster_ip(before: &ServiceSpec, after: &mut ServiceSpec) {
    if !before.ips().is_empty() && after.ips().is_empty() && before.first_ip() == after.first_ip() {
        after.cluster_ips = before.cluster_ips.clone();
    }
    if before.first_ip() == after.first_ip() || before.ips() != after.ips() {
        return;
    }
    after.cluster_ips = after
        .cluster_ip
        .clone()
        .filter(|ip| !ip.is_empty())
        .map(|ip| vec![ip]);
}

fn node_ports(spec: &ServiceSpec) -> BTreeSet<i32> {
    let all = spec.all_ports().iter().map(node_port);
    all.filter(|port| *port != 0).collect()
}
