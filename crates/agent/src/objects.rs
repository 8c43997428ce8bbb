//! The objects of the cluster that the node depends on.

use std::sync::Arc;

use kube::{Api, Client, ResourceExt};
use tombolo_kube::{CLUSTER, Network, NodeNetwork, Watch};

use crate::control::Trigger;

/// The objects, kept up to date by watches.
pub struct Objects {
    networks: Watch<Network>,
    nodes: Watch<NodeNetwork>,
}

/// The objects at one time.
pub struct Snapshot {
    /// The cluster's settings.
    pub network: Arc<Network>,
    /// Every NodeNetwork.
    pub nodes: Vec<NodeNetwork>,
}

impl Objects {
    /// Starts to watch. Each change pulls the trigger.
    pub fn watch(client: &Client, trigger: &Arc<Trigger>) -> Self {
        let pull = || {
            let trigger = trigger.clone();
            move || trigger.pull()
        };
        Self {
            networks: Watch::start(Api::all(client.clone()), pull()),
            nodes: Watch::start(Api::all(client.clone()), pull()),
        }
    }

    /// The objects of now, or what is missing.
    pub fn snapshot(&self) -> Result<Snapshot, String> {
        let (Some(networks), Some(nodes)) = (self.networks.objects(), self.nodes.objects()) else {
            return Err(
                "the API server has not been read yet; see that it is reachable, and the kubeconfig".into(),
            );
        };
        let network = networks.into_iter().find(|n| n.name_any() == CLUSTER);
        let network = network.ok_or_else(|| format!("there is no Network {CLUSTER}; apply one"))?;
        Ok(Snapshot {
            network,
            nodes: nodes.iter().map(|n| NodeNetwork::clone(n)).collect(),
        })
    }

    /// The NodeNetwork of a node.
    pub fn node(&self, name: &str) -> Option<Arc<NodeNetwork>> {
        self.nodes.objects()?.into_iter().find(|n| n.name_any() == name)
    }
}
