//! What a lab consists of, right now.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use kube::ResourceExt;
use serde::Serialize;

use crate::api::Api;
use crate::error::Result;
use crate::place::{CONTROL, OUTSIDE, ROUTER};
use crate::pod::PodRecord;
use crate::state::LabDir;

/// A lab.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LabStatus {
    /// Its name.
    pub name: String,
    /// For kubectl.
    pub kubeconfig: PathBuf,
    /// What is wrong with the lab as a whole, in words; empty if nothing is.
    pub problems: Vec<String>,
    /// Its nodes.
    pub nodes: Vec<NodeStatus>,
    /// Its pods that have a sandbox.
    pub pods: Vec<PodStatus>,
    /// Its processes.
    pub processes: Vec<ProcessStatus>,
}

/// A node.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// The L2 segment that it is on.
    pub segment: u8,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its blocks of pod addresses.
    pub blocks: Vec<IpNet>,
    /// The MTU of its pods; 0 while unknown.
    pub pod_mtu: u16,
    /// Whether its agent says that its network is ready.
    pub ready: bool,
    /// What its agent says: why it is not, or a warning.
    pub message: String,
}

/// A pod.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The node that it runs on.
    pub node: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// A process.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessStatus {
    /// The node, `control`, `outside` or `router` that it runs on; of a pod's, with the pod's part of the control group.
    pub place: String,
    /// Its id.
    pub pid: u32,
    /// Its command line.
    pub command: String,
}

/// Looks at a lab.
///
/// # Errors
/// If the lab's folder cannot be read. An API server that does not answer is a problem in the result.
pub async fn status(lab: &LabDir) -> Result<LabStatus> {
    let plan = lab.plan()?;
    let mut problems = Vec::new();
    let networks = match networks(lab).await {
        Ok(networks) => networks,
        Err(error) => {
            problems.push(error.to_string());
            Vec::new()
        }
    };
    let nodes = plan.nodes.iter().map(|node| {
        let network = networks.iter().find(|network| network.name_any() == node.name);
        let status = network
            .and_then(|network| network.status.clone())
            .unwrap_or_default();
        NodeStatus {
            name: node.name.clone(),
            segment: node.segment,
            addresses: node.all_addresses().collect(),
            blocks: network
                .map(|network| network.spec.blocks.clone())
                .unwrap_or_default(),
            pod_mtu: status.pod_mtu,
            ready: status.health.ready,
            message: status.health.message,
        }
    });
    let nodes: Vec<NodeStatus> = nodes.collect();
    let pods = PodRecord::all(lab)?.into_iter().map(|pod| PodStatus {
        namespace: pod.namespace,
        name: pod.name,
        node: pod.node,
        addresses: pod.addresses,
    });
    let pods = pods.collect();
    let places: Vec<String> = [CONTROL, OUTSIDE, ROUTER]
        .map(str::to_owned)
        .into_iter()
        .chain(nodes.iter().map(|node| node.name.clone()))
        .collect();
    let mut processes = Vec::new();
    for place in places {
        for pid in lab.cgroup()?.child(&place).processes()? {
            processes.push(ProcessStatus {
                place: place.clone(),
                pid,
                command: command_line(pid),
            });
        }
    }
    Ok(LabStatus {
        name: lab.name().to_owned(),
        kubeconfig: lab.kubeconfig(),
        problems,
        nodes,
        pods,
        processes,
    })
}

async fn networks(lab: &LabDir) -> Result<Vec<tombolo_kube::NodeNetwork>> {
    Api::connect(&lab.kubeconfig()).await?.node_networks().await
}

/// Empty if the process has just ended.
fn command_line(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<_> = bytes
        .split(|byte| *byte == 0)
        .map(String::from_utf8_lossy)
        .collect();
    words.join(" ").trim_end().to_owned()
}
