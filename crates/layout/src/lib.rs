//! The compiler of the cluster's layout: the Network, every NodeNetwork and what is true of this
//! node go in; the rows and routes that this node's kernel must hold come out.
//!
//! Pure: no I/O, no clock, no kernel. The same input gives the same output on every run, and objects
//! written by others can at worst leave out the node that they speak of.
//!
//! ```text
//! Network ───────▶ settings ─┐
//! NodeNetworks ──▶ members ──┼─▶ paths ─▶ tables (config, routes, uplink MACs, kernel routes, masquerade)
//! Local ─────────▶ mtu ──────┘
//! ```

mod claims;
mod error;
mod members;
mod mtu;
mod paths;
mod settings;
mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use tombolo_abi::{Config, MacKey, Route, RouteKey};
use tombolo_kube::{Network, NodeNetwork};

pub use error::Error;
pub use mtu::IPV6_MIN_MTU;
pub use settings::claimable;

/// All that the compiler looks at.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// This node's name.
    pub node: &'a str,
    /// The cluster's settings.
    pub network: &'a Network,
    /// Every NodeNetwork of the cluster, this node's among them, in any order.
    pub nodes: &'a [NodeNetwork],
    /// What is true of this node now.
    pub local: &'a Local,
}

/// What is true of a node's kernel, apart from what the compiler itself made true.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// The devices that join the node to the network around the cluster.
    pub uplinks: Vec<LocalUplink>,
    /// All addresses on the node's own devices; of each family the one to be reached by first.
    /// Those that a node may not claim are passed over.
    pub addresses: Vec<IpAddr>,
    /// The overlay device's interface index, once the device exists.
    pub overlay_ifindex: Option<u32>,
    /// How the node's kernel would send to the addresses of [`reach_targets`]; those without a route
    /// are missing.
    pub reach: BTreeMap<IpAddr, Reach>,
    /// Whether the datapath's tables know Services, or have known some: flows to them may still be there.
    pub services: bool,
}

/// A device that joins the node to the network around the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalUplink {
    /// Its name.
    pub name: String,
    /// Its interface index.
    pub ifindex: u32,
    /// Its MTU in bytes of the IP packet.
    pub mtu: u32,
    /// Its MAC address.
    pub mac: [u8; 6],
}

/// How a node's kernel sends to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// The interface index of the device that it leaves by.
    pub ifindex: u32,
    /// The router that it goes to first; none where the address is on-link.
    pub gateway: Option<IpAddr>,
}

/// All that a node's kernel must hold for its part in the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// The one row of [`CONFIG`](tombolo_abi::map::CONFIG).
    pub config: Config,
    /// The rows of [`ROUTES`](tombolo_abi::map::ROUTES).
    pub routes: BTreeMap<RouteKey, Route>,
    /// The rows of [`UPLINK_MACS`](tombolo_abi::map::UPLINK_MACS).
    pub uplink_macs: BTreeMap<MacKey, u32>,
    /// Routes of the kernel's main table, by destination: the way of the node's own packets to pods.
    pub kernel_routes: BTreeMap<IpNet, KernelRoute>,
    /// The overlay device; none where packets never travel in the overlay.
    pub overlay: Option<Overlay>,
    /// What leaves the cluster under the node's own address.
    pub masquerade: Masquerade,
    /// This node's blocks of pod addresses, whichever hold.
    pub blocks: Vec<IpNet>,
    /// The addresses that this node claims; of each family the primary one first.
    pub addresses: Vec<IpAddr>,
    /// All addresses that nodes claim, this node among them.
    pub node_addresses: BTreeSet<IpAddr>,
    /// The MTU of this node's pods, in bytes of the IP packet.
    pub pod_mtu: u16,
    /// What is wrong with objects, for a person: what was left out, because of what.
    pub warnings: Vec<String>,
}

/// Where the kernel's main table sends a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KernelRoute {
    /// Nowhere: answered with ICMP unreachable. Keeps packets to pods that do not exist from the
    /// default route.
    Unreachable,
    /// Into the overlay device.
    Overlay {
        /// The source of the node's own packets.
        source: Option<IpAddr>,
        /// The largest IP packet, in bytes, that the way carries.
        mtu: u16,
    },
    /// To a next hop on an uplink.
    Direct {
        /// The uplink's interface index.
        ifindex: u32,
        /// The next hop. An IPv6 one may carry IPv4 destinations (RFC 8950), never the reverse.
        next_hop: IpAddr,
        /// The source of the node's own packets.
        source: Option<IpAddr>,
        /// The largest IP packet, in bytes, that the way carries.
        mtu: u16,
    },
}

/// The overlay device: VXLAN (RFC 7348), told by the programs where each packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overlay {
    /// The UDP port of encapsulated packets.
    pub port: u16,
    /// The MTU in bytes of the inner IP packet.
    pub mtu: u16,
    /// The device's own MAC address. Unique in the cluster, since the kernel takes a frame from its
    /// own MAC for a loop.
    pub mac: [u8; 6],
}

/// What leaves the cluster under the node's own address: packets from `pods` to anything but `cluster`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Masquerade {
    /// Ranges of pod addresses.
    pub pods: BTreeSet<IpNet>,
    /// Ranges of the cluster: pods and nodes.
    pub cluster: BTreeSet<IpNet>,
}

/// The addresses whose way the compiler wants to know, as [`Local::reach`]: all of every other node,
/// since which of them come to be used depends on the claims of the rest.
pub fn reach_targets(node: &str, nodes: &[NodeNetwork]) -> BTreeSet<IpAddr> {
    let others = nodes.iter().filter(|n| n.metadata.name.as_deref() != Some(node));
    others
        .filter_map(|n| n.status.as_ref())
        .flat_map(|s| s.addresses.iter().copied())
        .collect()
}

/// Compiles what this node's kernel must hold.
///
/// # Errors
/// What is wrong with the Network or with this node's own NodeNetwork. What is wrong with another
/// node leaves out that node, or its one claim, with a [warning](Desired::warnings).
pub fn compile(input: &Input<'_>) -> Result<Desired, Error> {
    let settings = settings::Settings::new(input.network)?;
    let members = members::admit(input, &settings)?;
    let pod_mtu = mtu::of_pods(&settings, input.local, &members.own)?;
    Ok(tables::build(input.local, &settings, members, pod_mtu))
}
