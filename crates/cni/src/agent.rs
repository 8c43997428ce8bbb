//! The conversation between the plugin and the agent on its node.
//!
//! HTTP/1.1 with JSON bodies over a unix socket of mode 0600, so that whoever can open the socket
//! is root already. Every request is one exchange on one connection. The plugin sends the first
//! five; the others answer the command line. An agent does not finish an ADD, and does not begin a DEL,
//! whose plugin has closed its connection: the runtime follows with a DEL, which must not come first.
//!
//! | request | answer |
//! | --- | --- |
//! | `POST /v1/endpoints`, [`AddRequest`] | 200, [`AddResponse`]; the pod is fully connected |
//! | `DELETE /v1/endpoints/{containerId}/{ifName}` | 200, also when there was no such endpoint |
//! | `POST /v1/endpoints/{containerId}/{ifName}/check`, [`CheckRequest`] | 200 where nothing differs |
//! | `POST /v1/collect`, [`CollectRequest`] | 200, [`CollectResponse`] |
//! | `GET /v1/ready` | 200 where an ADD could be served; else code 50 or 51 |
//! | `GET /v1/endpoints` | 200, a list of [`Endpoint`] |
//! | `GET /v1/addresses` | 200, [`Addresses`] |
//! | `GET /v1/routes` | 200, a list of [`Route`] |
//! | `GET /v1/services?client=ADDRESS` | 200, a list of [`Frontend`]; the client may be left out |
//! | `GET /v1/drops` | 200, a list of [`Drop`] |
//! | `GET /v1/status` | 200, [`Status`] |
//!
//! Anything else than 200 carries an [`ErrorBody`], whose code the plugin passes to the runtime
//! as it is.

mod check;
mod collect;
mod host_ports;
mod services;

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use check::CheckRequest;
pub use collect::{AttachmentName, CollectRequest, CollectResponse};
pub use host_ports::{HostPort, Protocol};
pub use services::{Backend, Backends, ClientWay, Frontend, Outcome};

/// Where the agent listens.
pub const DEFAULT_SOCKET: &str = "/run/tombolo/agent.sock";

/// Where the node's durable state is, and where a DEL without an agent leaves its record.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/tombolo";

/// The path of the collection of endpoints.
pub const ENDPOINTS_PATH: &str = "/v1/endpoints";

/// The path of a collection of what no valid attachment holds.
pub const COLLECT_PATH: &str = "/v1/collect";

/// The path of the question whether an ADD could be served.
pub const READY_PATH: &str = "/v1/ready";

/// The path of the addresses in use.
pub const ADDRESSES_PATH: &str = "/v1/addresses";

/// The path of the routes.
pub const ROUTES_PATH: &str = "/v1/routes";

/// The path of the frontends of Services. A query `client=ADDRESS` asks what becomes of that client.
pub const SERVICES_PATH: &str = "/v1/services";

/// The path of the counted drops.
pub const DROPS_PATH: &str = "/v1/drops";

/// The path of the agent's state.
pub const STATUS_PATH: &str = "/v1/status";

/// The path of one endpoint.
///
/// Both parts have passed [`ContainerId`](crate::ContainerId) and
/// [`InterfaceName`](crate::InterfaceName), but an interface name may hold bytes that a path may
/// not, so it is percent-encoded (RFC 3986, section 2.1); [`decode_path_segment`] reverses it.
pub fn endpoint_path(container_id: &str, if_name: &str) -> String {
    format!(
        "{ENDPOINTS_PATH}/{}/{}",
        encode_path_segment(container_id),
        encode_path_segment(if_name)
    )
}

/// The path of the check of one endpoint.
pub fn check_path(container_id: &str, if_name: &str) -> String {
    format!("{}/check", endpoint_path(container_id, if_name))
}

/// Percent-encodes all but the unreserved characters (RFC 3986, section 2.3).
pub fn encode_path_segment(segment: &str) -> String {
    let mut out = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Reverses [`encode_path_segment`]; `None` when it is not validly encoded UTF-8.
pub fn decode_path_segment(segment: &str) -> Option<String> {
    let mut out = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let high = char::from(bytes.next()?).to_digit(16)?;
            let low = char::from(bytes.next()?).to_digit(16)?;
            out.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

/// What the plugin asks for on ADD.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddRequest {
    /// The runtime's id of the pod sandbox (`CNI_CONTAINERID`).
    pub container_id: String,
    /// The name of the interface to make inside the pod (`CNI_IFNAME`).
    pub if_name: String,
    /// The path of the pod's network namespace (`CNI_NETNS`).
    pub netns: String,
    /// The network's name in the configuration, to which a later GC keeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// The pod's namespace, where the runtime told it (`K8S_POD_NAMESPACE`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_namespace: Option<String>,
    /// The pod's name (`K8S_POD_NAME`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_name: Option<String>,
    /// The pod's uid (`K8S_POD_UID`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// Addresses that the runtime wants for the pod, instead of any free ones of their families.
    #[serde(default, rename = "requestedIPs", skip_serializing_if = "Vec::is_empty")]
    pub requested_ips: Vec<IpAddr>,
    /// Ports of the node that are to lead to the pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_ports: Vec<HostPort>,
    /// A plugin after ours in the chain will limit what the pod sends, and needs the ingress qdisc of the
    /// link's host side.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub egress_limit: bool,
}

/// What the agent made on ADD.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddResponse {
    /// The host's side of the pod's link.
    pub host_interface: Interface,
    /// The pod's side.
    pub pod_interface: Interface,
    /// The pod's addresses, one of each family that the node has a block of.
    pub addresses: Vec<Address>,
    /// The routes inside the pod.
    #[serde(default)]
    pub routes: Vec<PodRoute>,
}

/// One side of a pod's link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Interface {
    /// Its name, within its own namespace.
    pub name: String,
    /// Its MAC address, as six hexadecimal pairs joined by colons.
    pub mac: String,
    /// Its MTU, in bytes of the IP packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}

/// One address of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Address {
    /// The address, always as a host route (`/32` or `/128`): pods share no L2 segment.
    pub address: IpNet,
    /// The pod's next hop to everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

/// One route inside a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodRoute {
    /// The destination.
    pub dst: IpNet,
    /// The next hop; none for what is on the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
}

/// Why a request failed; the body of every answer that is not 200.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorBody {
    /// A CNI error code, of [`crate::error::code`].
    pub code: u32,
    /// What failed, in one short line.
    pub msg: String,
    /// On which object, the likely cause, and what to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
}

/// One endpoint: an interface of a pod on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// The runtime's id of the pod sandbox.
    pub container_id: String,
    /// The interface inside the pod.
    pub if_name: String,
    /// The pod's namespace, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_namespace: Option<String>,
    /// The pod's name, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_name: Option<String>,
    /// The pod's uid, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// The path of the pod's network namespace.
    pub netns: String,
    /// The host's side of the link.
    pub host_interface: String,
    /// Its index in the node's namespace; 0 when the link is missing.
    pub host_ifindex: u32,
    /// The pod's MAC address, as six hexadecimal pairs joined by colons; empty when the link is missing.
    pub mac: String,
    /// The link's MTU, in bytes of the IP packet.
    pub mtu: u32,
    /// The pod's addresses.
    pub addresses: Vec<IpAddr>,
    /// Ports of the node that lead to the pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_ports: Vec<HostPort>,
}

/// The node's blocks and who holds what of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Addresses {
    /// The blocks that new addresses come from.
    pub blocks: Vec<BlockUsage>,
    /// Every address in use, in ascending order.
    pub allocations: Vec<Allocation>,
}

/// How full a block is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockUsage {
    /// The block.
    pub block: IpNet,
    /// Addresses held by endpoints.
    pub used: u64,
    /// Addresses freed so recently that they are not given again yet.
    pub resting: u64,
    /// Addresses that could be given now; saturates.
    pub free: u64,
}

/// One address in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Allocation {
    /// The address.
    pub address: IpAddr,
    /// The runtime's id of the pod sandbox that holds it.
    pub container_id: String,
    /// The interface inside the pod.
    pub if_name: String,
    /// The pod as `namespace/name`, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
}

/// One row of the table that decides where packets go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// The destination.
    pub destination: IpNet,
    /// What lies there: `pods`, `node` or `services`.
    pub kind: String,
    /// How packets get there: `local`, `direct` or `overlay`.
    pub way: String,
    /// The node there, by name, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The address that packets are handed to next; none when the way is local.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<IpAddr>,
    /// The interface that packets leave by, where one is fixed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// The largest IP packet, in bytes, that gets through.
    pub mtu: u32,
}

/// How often packets were dropped at one place for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Drop {
    /// The hook, such as `from_pod`.
    pub hook: String,
    /// The reason, such as `spoofed_source`.
    pub reason: String,
    /// Packets since the tables were made.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The agent's own state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The release of the agent.
    pub version: String,
    /// The node's name.
    pub node: String,
    /// Whether an ADD could be served now.
    pub ready: bool,
    /// Why not, and other things that need somebody's attention.
    #[serde(default)]
    pub messages: Vec<String>,
    /// How many endpoints there are.
    pub endpoints: u64,
    /// The node's blocks.
    #[serde(default)]
    pub blocks: Vec<IpNet>,
    /// The MTU that pods get, in bytes of the IP packet.
    pub pod_mtu: u32,
    /// Whether the runtime's configuration chains a plugin that limits the bandwidth of pods that are annotated
    /// for it; none where the agent does not know that configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shapes: Option<bool>,
}
