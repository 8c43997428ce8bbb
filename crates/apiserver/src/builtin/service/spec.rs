//! Questions that the rules ask of a Service's spec.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec};

pub const CLUSTER_IP: &str = "ClusterIP";
pub const NODE_PORT: &str = "NodePort";
pub const LOAD_BALANCER: &str = "LoadBalancer";
pub const EXTERNAL_NAME: &str = "ExternalName";
/// The cluster address of a headless Service.
pub const NONE: &str = "None";
pub const IPV4: &str = "IPv4";
pub const IPV6: &str = "IPv6";
pub const SINGLE_STACK: &str = "SingleStack";
pub const PREFER_DUAL_STACK: &str = "PreferDualStack";
pub const REQUIRE_DUAL_STACK: &str = "RequireDualStack";
pub const LOCAL: &str = "Local";

/// Answers, in which what is empty counts as not set.
pub trait Questions {
    /// The type.
    fn kind(&self) -> &str;
    /// `clusterIP`.
    fn first_ip(&self) -> &str;
    /// `clusterIPs`.
    fn ips(&self) -> &[String];
    /// `ipFamilies`.
    fn families(&self) -> &[String];
    /// `ipFamilyPolicy`.
    fn policy(&self) -> Option<&str>;
    /// `ports`.
    fn all_ports(&self) -> &[ServicePort];
    /// `healthCheckNodePort`; 0 is none.
    fn health_port(&self) -> i32;
    /// Whether it is `None` and has no address.
    fn is_headless(&self) -> bool;
    /// Whether it names pods as its endpoints.
    fn has_selector(&self) -> bool;
    /// Whether its type has a cluster address, which may be `None`.
    fn needs_cluster_ip(&self) -> bool;
    /// Whether its type has node ports.
    fn has_node_ports(&self) -> bool;
    /// Whether its ports get node ports without asking for them.
    fn allocates_node_ports(&self) -> bool;
    /// Whether load balancers ask nodes if they have endpoints.
    fn needs_health_check(&self) -> bool;
    /// Whether it is reached from outside of the cluster.
    fn is_external(&self) -> bool;
}

impl Questions for ServiceSpec {
    fn kind(&self) -> &str {
        self.type_.as_deref().unwrap_or_default()
    }

    fn first_ip(&self) -> &str {
        self.cluster_ip.as_deref().unwrap_or_default()
    }

    fn ips(&self) -> &[String] {
        self.cluster_ips.as_deref().unwrap_or_default()
    }

    fn families(&self) -> &[String] {
        self.ip_families.as_deref().unwrap_or_default()
    }

    fn policy(&self) -> Option<&str> {
        self.ip_family_policy.as_deref()
    }

    fn all_ports(&self) -> &[ServicePort] {
        self.ports.as_deref().unwrap_or_default()
    }

    fn health_port(&self) -> i32 {
        self.health_check_node_port.unwrap_or(0)
    }

    fn is_headless(&self) -> bool {
        self.ips() == [NONE]
    }

    fn has_selector(&self) -> bool {
        self.selector.as_ref().is_some_and(|s| !s.is_empty())
    }

    fn needs_cluster_ip(&self) -> bool {
        self.kind() != EXTERNAL_NAME
    }

    fn has_node_ports(&self) -> bool {
        matches!(self.kind(), NODE_PORT | LOAD_BALANCER)
    }

    fn allocates_node_ports(&self) -> bool {
        match self.kind() {
            NODE_PORT => true,
            LOAD_BALANCER => self.allocate_load_balancer_node_ports.unwrap_or(true),
            _ => false,
        }
    }

    fn needs_health_check(&self) -> bool {
        self.kind() == LOAD_BALANCER && self.external_traffic_policy.as_deref() == Some(LOCAL)
    }

    fn is_external(&self) -> bool {
        let has_external_ips = self.external_ips.as_ref().is_some_and(|ips| !ips.is_empty());
        self.has_node_ports() || self.kind() == CLUSTER_IP && has_external_ips
    }
}

/// The node port of a port; 0 is none.
pub fn node_port(port: &ServicePort) -> i32 {
    port.node_port.unwrap_or(0)
}

/// The family of an address, where it is one.
pub fn family_of(address: &str) -> Option<&'static str> {
    let address: IpAddr = address.parse().ok()?;
    Some(if address.is_ipv4() { IPV4 } else { IPV6 })
}

/// The family that is not this one.
pub fn other_family(family: &str) -> &'static str {
    if family == IPV4 { IPV6 } else { IPV4 }
}
