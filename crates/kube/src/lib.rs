//! Tombolo's own Kubernetes kinds, and how its programs reach the API server: a client, and watches.

mod client;
mod follow;
mod network;
mod node_network;
mod watch;

pub use client::{ClientError, client};
pub use follow::follow;
pub use network::{CLUSTER, Layout, Network, NetworkSpec, Pool, Routing};
pub use node_network::{Health, NodeNetwork, NodeNetworkSpec, NodeNetworkStatus, Uplink};
pub use watch::Watch;

/// The API group of Tombolo's kinds.
pub const GROUP: &str = "tombolo.dev";
/// The version of Tombolo's kinds.
pub const VERSION: &str = "v1alpha1";
