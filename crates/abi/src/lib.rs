//! What the kernel side and the user side agree on: map keys and values, hooks and outcomes.
//!
//! Every type here lies in a map, so its layout is a contract. The rules:
//!
//! - `#[repr(C)]`, no implicit padding (unused bytes are named and zero), sizes asserted below.
//! - Addresses are 16 bytes for both families: IPv4 as IPv4-mapped IPv6 (RFC 4291, 2.5.5.2).
//! - Addresses and ports are in network byte order everywhere; all other integers are in host order.
//! - A change of any layout or meaning raises [`ABI_VERSION`], and keeps to the rules of [`version`].

#![cfg_attr(not(test), no_std)]

mod addr;
mod config;
mod counters;
mod endpoint;
mod flow;
mod route;
mod service;
mod socket;
pub mod version;

pub use addr::Addr;
pub use config::{Config, MAX_BLOCK_SIZES};
pub use counters::{COUNTER_SLOTS, Counter, Hook, Outcome, slot};
pub use endpoint::Endpoint;
pub use flow::{Direction, FlowKey, FlowState, NeighbourFlow, Timeouts, bpf_timer};
pub use route::{MacKey, Route, RouteKey, RouteKind, Way};
pub use service::{
    Affinity, AffinityKey, Backend, BackendState, Frontend, FrontendKey, SLAB_ROW, SOURCE_PORTS, Slab,
    SlabRow, SourceRangeKey,
};
pub use socket::{ConnectedPeer, Netns, NetnsKind, SocketKey, SocketPeer};
pub use version::ABI_VERSION;

/// The VXLAN network identifier of every encapsulated packet; a contract between nodes.
pub const OVERLAY_VNI: u32 = 1;

/// Destination MAC of everything a pod sends: the host side of every pod's link has this address.
/// Locally administered; the same on every link, since no two pods share a link.
pub const GATEWAY_MAC: [u8; 6] = [0x02, 0x74, 0x6f, 0x6d, 0x62, 0x01];

/// A pod's IPv4 gateway: link-local (RFC 3927), reachable through a permanent neighbour entry only.
pub const GATEWAY_V4: [u8; 4] = [169, 254, 1, 1];

/// A pod's IPv6 gateway, `fe80::1`, reachable through a permanent neighbour entry only.
pub const GATEWAY_V6: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// Names of the maps, as the kernel side declares them and as they are pinned.
pub mod map {
    /// [`Addr`](super::Addr) of a pod on this node → [`Endpoint`](super::Endpoint).
    pub const ENDPOINTS: &str = "ENDPOINTS";
    /// [`RouteKey`](super::RouteKey) → [`Route`](super::Route).
    pub const ROUTES: &str = "ROUTES";
    /// [`MacKey`](super::MacKey) → `u32` (always 1): source MACs that a node's uplinks may use.
    pub const UPLINK_MACS: &str = "UPLINK_MACS";
    /// Index 0 → [`Config`](super::Config).
    pub const CONFIG: &str = "CONFIG";
    /// [`slot`](super::slot) → per-CPU [`Counter`](super::Counter).
    pub const COUNTERS: &str = "COUNTERS";
    /// [`FlowKey`](super::FlowKey) → [`FlowState`](super::FlowState).
    pub const FLOWS: &str = "FLOWS";
    /// [`FrontendKey`](super::FrontendKey) → [`Frontend`](super::Frontend).
    pub const FRONTENDS: &str = "FRONTENDS";
    /// Index → [`SlabRow`](super::SlabRow): the backends of frontends.
    pub const SLABS: &str = "SLABS";
    /// Id → [`Backend`](super::Backend).
    pub const BACKENDS: &str = "BACKENDS";
    /// [`AffinityKey`](super::AffinityKey) → [`Affinity`](super::Affinity): written by programs. When it is full, the
    /// clients that have not been seen for longest are forgotten.
    pub const AFFINITY: &str = "AFFINITY";
    /// [`SourceRangeKey`](super::SourceRangeKey) → `u32` (always 1), found by the longest prefix.
    pub const SOURCE_RANGES: &str = "SOURCE_RANGES";
    /// A network namespace's cookie (`u64`) → [`Netns`](super::Netns).
    pub const NETNS: &str = "NETNS";
    /// [`SocketKey`](super::SocketKey) → [`SocketPeer`](super::SocketPeer): written by programs. When it is full, those
    /// that have not been used for longest are forgotten.
    pub const SOCKET_PEERS: &str = "SOCKET_PEERS";
    /// At a TCP socket: [`ConnectedPeer`](super::ConnectedPeer). Written by programs, and read by nobody else.
    pub const CONNECTED_PEERS: &str = "CONNECTED_PEERS";
    /// Index → `u32`: 1 where a port of the node has been the source of a translated flow, and may be so still. Written by
    /// programs, and read by nobody else.
    pub const SOURCE_PORTS: &str = "SOURCE_PORTS";
    /// All of them: shared with the user side, and pinned.
    pub const ALL: [&str; 15] = [
        ENDPOINTS,
        ROUTES,
        UPLINK_MACS,
        CONFIG,
        COUNTERS,
        FLOWS,
        FRONTENDS,
        SLABS,
        BACKENDS,
        AFFINITY,
        SOURCE_RANGES,
        NETNS,
        SOCKET_PEERS,
        CONNECTED_PEERS,
        SOURCE_PORTS,
    ];
    /// Those of [`ALL`] that the version before this one did not have.
    pub const ADDED: [&str; 0] = [];

    /// [`FlowKey`](super::FlowKey) → [`NeighbourFlow`](super::NeighbourFlow): the [`FLOWS`] of the version that
    /// is taken over from, while it is.
    pub const NEIGHBOUR_FLOWS: &str = "NEIGHBOUR_FLOWS";
}

/// Capacity of each map, in entries.
pub mod capacity {
    /// Pod addresses of one node (two families).
    pub const ENDPOINTS: usize = 4096;
    /// Node blocks and node addresses of the whole cluster.
    pub const ROUTES: usize = 65_536;
    /// Uplink MACs of the whole cluster.
    pub const UPLINK_MACS: usize = 16_384;
    /// Tracked flows: two entries each.
    pub const FLOWS: usize = 262_144;
    /// Addresses and ports of Services.
    pub const FRONTENDS: usize = 262_144;
    /// Rows of [`SLAB_ROW`](super::SLAB_ROW) backend ids.
    pub const SLAB_ROWS: usize = 262_144;
    /// Backends; that of id 0 is not used.
    pub const BACKENDS: usize = 131_072;
    /// Clients that keep their backends.
    pub const AFFINITY: usize = 65_536;
    /// Ranges of clients.
    pub const SOURCE_RANGES: usize = 16_384;
    /// Network namespaces of one node's pods, and its own.
    pub const NETNS: usize = 4096;
    /// Ports that translated flows have their sources from: those of TCP and of what is neither, and those of UDP.
    pub const SOURCE_PORTS: usize =
        2 * (*super::SOURCE_PORTS.end() as usize - *super::SOURCE_PORTS.start() as usize + 1);
    /// UDP sockets and the Services that they speak with: two entries each.
    pub const SOCKET_PEERS: usize = 65_536;
}
