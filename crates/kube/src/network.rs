use ipnet::IpNet;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The name of the one [`Network`] of a cluster.
pub const CLUSTER: &str = "cluster";

/// The settings of the cluster's network. Exactly one exists, named `cluster`.
#[derive(CustomResource, Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
#[kube(
    group = "tombolo.dev",
    version = "v1alpha1",
    kind = "Network",
    plural = "networks",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Layout","type":"string","jsonPath":".spec.layout"}"#,
    printcolumn = r#"{"name":"Routing","type":"string","jsonPath":".spec.routing"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    doc = "The settings of the cluster's network. Exactly one exists, named `cluster`."
)]
#[serde(rename_all = "camelCase")]
pub struct NetworkSpec {
    /// How the cluster sits in the network around it.
    #[serde(default)]
    pub layout: Layout,
    /// How packets travel between nodes.
    #[serde(default)]
    pub routing: Routing,
    /// Where pod addresses come from, of one or both families. Pools do not overlap.
    pub pools: Vec<Pool>,
    /// Ranges within which a node may claim addresses as its own; disjoint from all other ranges here.
    #[serde(rename = "nodeCIDRs")]
    #[schemars(with = "Vec<String>")]
    pub node_cidrs: Vec<IpNet>,
    /// The ranges that the API server gives the addresses of Services from. What is for an address of theirs that no
    /// Service has is refused, and never leaves the node. Disjoint from all other ranges here.
    #[serde(default, rename = "serviceCIDRs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub service_cidrs: Vec<IpNet>,
    /// A node takes node ports of Services on those of its addresses that lie within one of these. Left out: on its
    /// primary address of each family.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub node_port_addresses: Vec<IpNet>,
    /// Ranges that the operator gives Services of type LoadBalancer an address of each family from, which the network
    /// around the cluster routes to nodes. Disjoint from all other ranges here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub load_balancer_pools: Vec<IpNet>,
    /// The MTU of pods, in bytes of the IP packet. Left out: each node's lowest uplink, less the
    /// overlay's overhead where an overlay is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1280, max = 65535))]
    pub mtu: Option<u16>,
    /// The UDP port of encapsulated packets on every node (IANA's for VXLAN is 4789).
    #[serde(default = "default_overlay_port")]
    #[schemars(range(min = 1))]
    pub overlay_port: u16,
}

fn default_overlay_port() -> u16 {
    4789
}

/// How the cluster sits in the network around it.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Pods leave the cluster with their node's address; nothing from outside reaches a pod address.
    #[default]
    Island,
}

/// How packets travel between nodes.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Routing {
    /// Unencapsulated to nodes that are on-link, in the overlay to those past a router.
    #[default]
    Auto,
    /// Unencapsulated everywhere; all nodes share one L2 segment.
    Direct,
    /// In the overlay everywhere.
    Vxlan,
}

/// A range of pod addresses, cut into blocks for nodes.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Pool {
    /// The range.
    #[schemars(with = "String")]
    pub cidr: IpNet,
    /// The prefix length of the blocks that nodes get from it, such as 24 (IPv4) or 112 (IPv6).
    #[schemars(range(min = 1, max = 128))]
    pub block_size: u8,
}
