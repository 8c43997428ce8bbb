//! Tombolo's own Kubernetes kinds, watches and leases.

mod network;
mod node_network;

pub use network::{CLUSTER, Layout, Network, NetworkSpec, Pool, Routing};
pub use node_network::{Health, NodeNetwork, NodeNetworkSpec, NodeNetworkStatus, Uplink};

/// The API group of Tombolo's kinds.
pub const GROUP: &str = "tombolo.dev";
/// The version of Tombolo's kinds.
pub const VERSION: &str = "v1alpha1";
