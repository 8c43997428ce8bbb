use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A place where a Service is reached, or a pod by its host port, and what takes it from there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Frontend {
    /// The Service as `namespace/name`; none where the agent has only taken over the row so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The pod as `namespace/name` whose host port it is, and no Service's; otherwise none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The place, as people write it: `10.96.0.1:443/TCP`, `node port 30080/TCP (IPv4)`, `host port 8080/TCP (IPv4)`.
    pub frontend: String,
    /// The backends for clients of this node: its pods.
    pub internal: Backends,
    /// The backends for all other clients.
    pub external: Backends,
    /// For how many seconds a client without traffic keeps its backend; 0: not at all.
    pub affinity_seconds: u32,
    /// The clients that are let in; none: all are. Empty: nobody is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_ranges: Option<Vec<IpNet>>,
    /// What becomes of the client that was asked about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientWay>,
}

/// A set of backends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backends {
    /// Each once.
    pub backends: Vec<Backend>,
    /// How one is chosen: `random`, or `maglev`: by the flow's hash, on every node alike.
    pub choice: String,
    /// Whether clients are dropped where there is no backend, rather than refused: a traffic policy keeps them on this
    /// node, and there are backends on others.
    pub drops: bool,
}

/// Where connections go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    /// The address and port.
    pub address: SocketAddr,
    /// `serving`, `not-serving` (connections go on, new ones go elsewhere) or `gone`.
    pub state: String,
}

/// What becomes of a client's next connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientWay {
    /// The client.
    pub client: IpAddr,
    /// What happens.
    pub outcome: Outcome,
    /// To which backend, or one of which.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<SocketAddr>,
}

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It goes to the backend that the client keeps.
    Kept,
    /// It goes to one of the backends at random.
    Random,
    /// It goes to one of the backends by its hash.
    Hash,
    /// There is no backend: it is refused.
    Refused,
    /// There is no backend on this node: it is dropped.
    Dropped,
    /// The client is not let in: it is dropped.
    NotLetIn,
}
