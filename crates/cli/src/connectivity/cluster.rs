//! Who takes part: the pods, nodes and the outside host of a lab, with what the API says of them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::ResourceExt;
use tombolo_kube::NodeNetwork;
use tombolo_lab::{Api, LabDir, OUTSIDE};
use tombolo_probe::DEFAULT_PORT;

use super::services::{self, Service};
use crate::error::Error;

/// A snapshot of a lab.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Pods first, then nodes, then the outside host, then Services.
    pub parties: Vec<Party>,
    /// The Services, in the order of their parties.
    pub services: Vec<Service>,
    /// The nodes' blocks of pod addresses, each with the node's primary address of its family.
    blocks: Vec<(IpNet, IpAddr)>,
}

/// Somebody who asks and is asked.
#[derive(Clone, Debug)]
pub struct Party {
    /// A short name that is unique in the lab, and that `tombolo lab exec` knows.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// The node that it is or runs on; none outside.
    pub node: Option<String>,
    /// Its addresses: a pod's `podIPs`, all that a node owns, all of the outside host; of a Service none.
    pub addresses: Vec<IpAddr>,
    /// The ports of its probe servers; those of a pod, one for each container.
    pub ports: Vec<u16>,
    /// The MTU of pods on its node, in bytes of the IP packet.
    pub pod_mtu: u16,
}

/// What a party is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A pod.
    Pod,
    /// A node.
    Node,
    /// The host outside of the cluster.
    Outside,
    /// A Service, which is asked and does not ask.
    Service,
}

impl Cluster {
    /// Asks a lab's API server.
    ///
    /// # Errors
    /// If it does not answer, or if no pod runs a probe.
    pub async fn read(lab: &LabDir) -> Result<Self, Error> {
        let plan = lab.plan()?;
        let api = Api::connect(&lab.kubeconfig()).await?;
        let networks = api.node_networks().await?;
        let mtu_of = |node: &str| {
            let network = networks.iter().find(|network| network.name_any() == node);
            network
                .and_then(|network| network.status.as_ref())
                .map_or(0, |status| status.pod_mtu)
        };
        let pods = api.pods().await?;
        let mut parties: Vec<Party> = pods.iter().filter_map(|pod| self::pod(pod, &mtu_of)).collect();
        if parties.is_empty() {
            return Err(Error::NoPods {
                lab: lab.name().to_owned(),
                kubeconfig: lab.kubeconfig().display().to_string(),
            });
        }
        parties.sort_by(|a, b| (&a.node, &a.name).cmp(&(&b.node, &b.name)));
        for network in &networks {
            let status = network.status.clone().unwrap_or_default();
            parties.push(Party {
                name: network.name_any(),
                kind: Kind::Node,
                node: Some(network.name_any()),
                addresses: status.addresses,
                ports: vec![DEFAULT_PORT],
                pod_mtu: status.pod_mtu,
            });
        }
        parties.push(Party {
            name: OUTSIDE.to_owned(),
            kind: Kind::Outside,
            node: None,
            addresses: plan.outside.iter().map(IpNet::addr).collect(),
            ports: vec![DEFAULT_PORT],
            pod_mtu: u16::MAX,
        });
        let services = services::all(&api.services().await?, &api.endpoint_slices().await?, &parties);
        let pod_mtu = parties.iter().map(|party| party.pod_mtu).min().unwrap_or(0);
        parties.extend(services.iter().map(|service| Party {
            name: service.name.clone(),
            kind: Kind::Service,
            node: None,
            addresses: Vec::new(),
            ports: Vec::new(),
            pod_mtu,
        }));
        Ok(Self {
            parties,
            services,
            blocks: networks.iter().flat_map(blocks).collect(),
        })
    }

    /// The addresses of a node.
    pub fn node_addresses(&self, node: Option<&str>) -> BTreeSet<IpAddr> {
        let nodes = self.parties.iter().filter(|party| party.kind == Kind::Node);
        let node = nodes.filter(|party| party.node.as_deref() == node && node.is_some());
        node.flat_map(|party| party.addresses.iter().copied()).collect()
    }

    /// The addresses of all nodes.
    pub fn all_node_addresses(&self) -> BTreeSet<IpAddr> {
        let nodes = self.parties.iter().filter(|party| party.kind == Kind::Node);
        nodes.flat_map(|party| party.addresses.iter().copied()).collect()
    }

    /// The Service that is a party, by the party's index.
    pub fn service(&self, party: usize) -> Option<&Service> {
        let first = self.parties.len() - self.services.len();
        self.services.get(party.checked_sub(first)?)
    }

    /// The nodes' blocks of pod addresses, each with an address of its node of the same family. Blocks of a
    /// family that the node itself does not have are left out: nobody outside could be told the way.
    pub fn blocks(&self) -> Vec<(IpNet, IpAddr)> {
        self.blocks.clone()
    }
}

fn blocks(network: &NodeNetwork) -> Vec<(IpNet, IpAddr)> {
    let addresses = network.status.iter().flat_map(|status| &status.addresses);
    let address_for = |block: &IpNet| {
        addresses
            .clone()
            .find(|one| one.is_ipv4() == block.addr().is_ipv4())
    };
    network
        .spec
        .blocks
        .iter()
        .filter_map(|block| Some((*block, *address_for(block)?)))
        .collect()
}

/// A pod whose first container serves as a probe.
fn pod(pod: &Pod, mtu_of: &dyn Fn(&str) -> u16) -> Option<Party> {
    let (spec, status) = (pod.spec.as_ref()?, pod.status.as_ref()?);
    if status.phase.as_deref() != Some("Running") || pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let node = spec.node_name.clone()?;
    let ips = status.pod_ips.iter().flatten();
    let ports: Vec<u16> = spec.containers.iter().filter_map(port).collect();
    if ports.is_empty() {
        return None;
    }
    let name = match pod.namespace().as_deref() {
        None | Some("default") => pod.name_any(),
        Some(namespace) => format!("{namespace}/{}", pod.name_any()),
    };
    Some(Party {
        name,
        kind: Kind::Pod,
        pod_mtu: mtu_of(&node),
        node: Some(node),
        addresses: ips.filter_map(|one| one.ip.parse().ok()).collect(),
        ports,
    })
}

/// The port on which a container serves as a probe; none if it does something else.
fn port(container: &Container) -> Option<u16> {
    let image = container.image.as_deref()?;
    let serves = container.command.as_ref().is_none_or(Vec::is_empty) && image.contains("tombolo/probe");
    let mut words = container.args.iter().flatten();
    let chosen = words.find_map(|word| match word.strip_prefix("--port") {
        Some("") => Some(None),
        Some(value) => Some(value.strip_prefix('=').map(str::to_owned)),
        None => None,
    });
    let port = match chosen {
        None => Some(DEFAULT_PORT),
        Some(Some(value)) => value.parse().ok(),
        Some(None) => words.next().and_then(|value| value.parse().ok()),
    };
    port.filter(|_| serves)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_of_a_container_is_found() {
        let port_of = |value: serde_json::Value| port(&serde_json::from_value(value).unwrap());
        let image = "tombolo/probe";
        assert_eq!(
            port_of(serde_json::json!({"name": "a", "image": image})),
            Some(DEFAULT_PORT)
        );
        assert_eq!(
            port_of(serde_json::json!({"name": "a", "image": image, "args": ["--port", "7071"]})),
            Some(7071)
        );
        assert_eq!(
            port_of(serde_json::json!({"name": "a", "image": image, "args": ["--port=7072"]})),
            Some(7072)
        );
        assert_eq!(
            port_of(serde_json::json!({"name": "a", "image": image, "command": ["sleep"]})),
            None
        );
        assert_eq!(port_of(serde_json::json!({"name": "a", "image": "nginx"})), None);
    }
}
