//! Host ports of pods, as the kubelet hands them to a container runtime.

use std::fmt;

use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};

/// A port of the node that is to lead to a pod, in the words of `runtimeConfig.portMappings` (CNI CONVENTIONS).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// The node's port.
    pub host_port: i32,
    /// The pod's.
    pub container_port: i32,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// At which address of the node; empty: at all.
    #[serde(rename = "hostIP")]
    pub host_ip: String,
}

impl PortMapping {
    /// Those of a pod.
    pub fn of(pod: &Pod) -> Vec<Self> {
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        let ports = containers.flat_map(|container| container.ports.iter().flatten());
        let mapping = |port: &k8s_openapi::api::core::v1::ContainerPort| {
            Some(Self {
                host_port: port.host_port.filter(|&port| port > 0)?,
                container_port: port.container_port,
                protocol: port.protocol.as_deref().unwrap_or("TCP").to_lowercase(),
                host_ip: port.host_ip.clone().unwrap_or_default(),
            })
        };
        ports.filter_map(mapping).collect()
    }

    /// Whether a node cannot have both: what the scheduler's plugin `NodePorts` says.
    pub fn conflicts_with(&self, other: &Self) -> bool {
        let any = |ip: &str| ["", "0.0.0.0", "::"].contains(&ip);
        let addresses = self.host_ip == other.host_ip || any(&self.host_ip) || any(&other.host_ip);
        addresses && (self.host_port, &self.protocol) == (other.host_port, &other.protocol)
    }
}

/// `8080/TCP`, `192.0.2.1 8080/TCP`.
impl fmt::Display for PortMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.host_ip.is_empty() {
            write!(f, "{} ", self.host_ip)?;
        }
        write!(f, "{}/{}", self.host_port, self.protocol.to_uppercase())
    }
}
