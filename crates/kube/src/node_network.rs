use std::net::IpAddr;

use ipnet::IpNet;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One node's part in the network, named as its Node. The operator writes the spec, the node's agent
/// the status.
#[derive(CustomResource, Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
#[kube(
    group = "tombolo.dev",
    version = "v1alpha1",
    kind = "NodeNetwork",
    plural = "nodenetworks",
    status = "NodeNetworkStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Ready","type":"boolean","jsonPath":".status.health.ready"}"#,
    printcolumn = r#"{"name":"Index","type":"integer","jsonPath":".spec.index"}"#,
    printcolumn = r#"{"name":"Blocks","type":"string","jsonPath":".spec.blocks"}"#,
    printcolumn = r#"{"name":"Addresses","type":"string","jsonPath":".status.addresses"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    doc = "One node's part in the network, named as its Node."
)]
#[serde(rename_all = "camelCase")]
pub struct NodeNetworkSpec {
    /// A number for this node, unique in the cluster and never 0, that the datapath knows it by.
    #[schemars(range(min = 1))]
    pub index: u32,
    /// The blocks of pod addresses that this node owns.
    #[schemars(with = "Vec<String>")]
    pub blocks: Vec<IpNet>,
}

/// What a node's agent says of its node.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NodeNetworkStatus {
    /// All addresses that the node owns within the Network's `nodeCIDRs`. Of each family, the first
    /// is the primary one: next hop, tunnel endpoint and source of the node's packets to pods.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// The devices that hold one of the addresses, or the default route.
    #[serde(default)]
    pub uplinks: Vec<Uplink>,
    /// The MTU of this node's pods, in bytes of the IP packet; 0 while unknown.
    #[serde(default)]
    pub pod_mtu: u16,
    /// The machine that says all this, by an id that its agent made up when it first served the node. A machine
    /// with another one has been replaced by this one, and stands back.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub machine: String,
    /// Whether the node's pods can be connected, and if not, why.
    #[serde(default)]
    pub health: Health,
    /// The generation of the Network that the node's datapath is in accord with.
    #[serde(default)]
    pub observed_generation: i64,
}

/// A device that joins the node to the network around the cluster.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Uplink {
    /// The device's name on its node.
    pub name: String,
    /// Its MAC address, as `aa:bb:cc:dd:ee:ff`; the frames it sends carry this source.
    pub mac: String,
    /// Its MTU in bytes of the IP packet.
    pub mtu: u32,
}

/// Whether something works, and if not, why.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// Whether the node's pods can be connected.
    pub ready: bool,
    /// What is wrong and what to do, for a person; empty when nothing is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}
