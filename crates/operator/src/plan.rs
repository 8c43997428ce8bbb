//! What is to be done, decided from the objects alone.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt};
use tombolo_ipam::{Family, Pool, next_block};
use tombolo_kube::{NetworkSpec, NodeNetwork, NodeNetworkSpec};

/// One change of one NodeNetwork.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Make it.
    Create(NodeNetwork),
    /// Replace it by this, which has the resource version that it was decided on.
    Replace(NodeNetwork),
    /// Delete it, as its Node is gone.
    Delete {
        /// Its name.
        name: String,
        /// Its uid, so that no later one of that name is deleted.
        uid: Option<String>,
    },
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The changes, in their order.
    pub actions: Vec<Action>,
    /// What cannot be done until somebody changes something, for a person.
    pub problems: BTreeSet<String>,
}

/// Decides what is to be done, so that there is exactly one NodeNetwork for each Node, with an index
/// of its own and one block for each family of the pools. Existing indexes and blocks stay.
/// `Node.spec.podCIDRs`, where set, are the blocks, whatever the pools are.
///
/// `node_networks` must be as recent as the API server has them: what is handed out is what none of
/// them has.
pub fn plan<N, M>(network: &NetworkSpec, nodes: &[N], node_networks: &[M]) -> Plan
where
    N: Borrow<Node>,
    M: Borrow<NodeNetwork>,
{
    let mut plan = Plan::default();
    let mut nodes: Vec<&Node> = nodes.iter().map(Borrow::borrow).collect();
    // The same order in every run, so that a run after a crash goes on where the last one was.
    nodes.sort_by_key(|n| (n.creation_timestamp().map(|t| t.0), n.name_any()));
    let existing: BTreeMap<String, &NodeNetwork> = node_networks
        .iter()
        .map(Borrow::borrow)
        .map(|n| (n.name_any(), n))
        .collect();

    let names: BTreeSet<String> = nodes.iter().map(|n| n.name_any()).collect();
    for (name, gone) in existing.iter().filter(|(name, _)| !names.contains(*name)) {
        plan.actions.push(Action::Delete {
            name: name.clone(),
            uid: gone.uid(),
        });
    }

    // What the NodeNetworks to be deleted have is still theirs: their nodes may have pods yet.
    let mut stock = Stock::new(network, existing.values().map(|n| &n.spec));
    for node in &nodes {
        stock.reserve_pod_cidrs(node);
    }
    for node in nodes {
        let name = node.name_any();
        let old = existing.get(&name).copied();
        let spec = stock.spec(node, old.map(|o| &o.spec), &mut plan.problems);
        let owner = owner(node);
        match old {
            None => {
                let metadata = ObjectMeta {
                    name: Some(name),
                    owner_references: Some(vec![owner]),
                    ..ObjectMeta::default()
                };
                plan.actions.push(Action::Create(NodeNetwork {
                    metadata,
                    spec,
                    status: None,
                }));
            }
            Some(old) if old.spec != spec || !old.owner_references().contains(&owner) => {
                let mut new = old.clone();
                new.spec = spec;
                new.metadata.owner_references = Some(vec![owner]);
                plan.actions.push(Action::Replace(new));
            }
            Some(_) => {}
        }
    }
    plan
}

/// The Node as the owner, so that its NodeNetwork is collected with it.
fn owner(node: &Node) -> OwnerReference {
    OwnerReference {
        api_version: Node::api_version(&()).into(),
        kind: Node::kind(&()).into(),
        name: node.name_any(),
        uid: node.uid().unwrap_or_default(),
        controller: None,
        block_owner_deletion: None,
    }
}

/// What is there to hand out.
struct Stock {
    pools: Vec<Pool>,
    indexes: BTreeSet<u32>,
    blocks: BTreeSet<IpNet>,
}

impl Stock {
    fn new<'a>(network: &NetworkSpec, specs: impl Iterator<Item = &'a NodeNetworkSpec> + Clone) -> Self {
        let pools = network.pools.iter().map(|p| Pool {
            cidr: p.cidr,
            block_size: p.block_size,
        });
        Self {
            pools: pools.collect(),
            indexes: specs.clone().map(|s| s.index).collect(),
            blocks: specs.flat_map(|s| s.blocks.iter().copied()).collect(),
        }
    }

    /// Sees to it that no other node gets what a Node's `podCIDRs` name.
    fn reserve_pod_cidrs(&mut self, node: &Node) {
        self.blocks.extend(pod_cidrs(node).filter_map(Result::ok));
    }

    /// What a node is to have.
    fn spec(
        &mut self,
        node: &Node,
        old: Option<&NodeNetworkSpec>,
        problems: &mut BTreeSet<String>,
    ) -> NodeNetworkSpec {
        let index = old
            .map(|o| o.index)
            .filter(|&i| i != 0)
            .unwrap_or_else(|| self.next_index());
        let mut blocks: Vec<IpNet> = Vec::new();
        for cidr in pod_cidrs(node) {
            match cidr {
                Ok(cidr) => blocks.push(cidr),
                Err(text) => {
                    problems.insert(format!(
                        "Node {}: podCIDR {text:?} is no prefix and is passed over",
                        node.name_any()
                    ));
                }
            }
        }
        if blocks.is_empty() {
            blocks = old.map(|o| o.blocks.clone()).unwrap_or_default();
            for family in self.families() {
                if blocks.iter().any(|&b| Family::from(b) == family) {
                    continue;
                }
                match next_block(&self.pools, family, &self.blocks) {
                    Ok(block) => {
                        self.blocks.insert(block);
                        blocks.push(block);
                    }
                    Err(error) => {
                        problems.insert(format!(
                            "Node {} gets no {family} block: {error}",
                            node.name_any()
                        ));
                    }
                }
            }
        }
        NodeNetworkSpec { index, blocks }
    }

    fn families(&self) -> BTreeSet<Family> {
        self.pools.iter().map(|p| Family::from(p.cidr)).collect()
    }

    /// The lowest free one; 0 is no node's.
    fn next_index(&mut self) -> u32 {
        let index = (1..).find(|i| !self.indexes.contains(i)).unwrap_or(u32::MAX);
        self.indexes.insert(index);
        index
    }
}

/// The blocks that somebody else gave to a Node; where one cannot be read, its text.
fn pod_cidrs(node: &Node) -> impl Iterator<Item = Result<IpNet, &str>> {
    let spec = node.spec.iter();
    spec.flat_map(|s| match &s.pod_cidrs {
        Some(cidrs) => cidrs.as_slice(),
        None => s.pod_cidr.as_slice(),
    })
    .map(|text| {
        text.parse()
            .map(|net: IpNet| net.trunc())
            .map_err(|_| text.as_str())
    })
}
