use std::collections::BTreeSet;
use std::net::IpAddr;

/// What is true of this node and of the others, as far as Services depend on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// This node's name: endpoints on it are local.
    pub node: String,
    /// The Node's label `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
    /// All addresses of all nodes. Where a load balancer's address is one of them, its other ports are the node's own.
    pub node_addresses: BTreeSet<IpAddr>,
}
