//! The options of `tombolo lab`.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The name of a lab that was not given one.
pub const DEFAULT_NAME: &str = "default";
/// The longest name of a lab, which is part of names of control groups and mounts.
const MAX_NAME: usize = 32;

/// The options of `tombolo lab up`.
#[derive(Clone, Debug, Args)]
pub struct UpArgs {
    /// Name of the lab
    #[arg(long, value_name = "NAME", env = "TOMBOLO_LAB", default_value = DEFAULT_NAME, value_parser = name)]
    pub name: String,
    /// Number of nodes
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub nodes: u16,
    /// How the cluster sits in the network around it
    #[arg(long, value_enum, default_value_t)]
    pub layout: LayoutArg,
    /// How packets travel between nodes: unencapsulated on one L2 segment, in VXLAN, or each where it fits
    #[arg(long, value_enum, default_value_t)]
    pub routing: RoutingArg,
    /// IP families of nodes and pods
    #[arg(long, value_enum, default_value_t)]
    pub families: Families,
    /// Number of L2 segments; nodes take turns on them, and a router joins them
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub segments: u8,
    /// Manifest, or folder of manifests (.yaml, .yml, .json), to apply; `up` then waits until its pods run
    #[arg(short = 'f', long = "filename", value_name = "FILE-OR-DIR")]
    pub manifests: Vec<PathBuf>,
    /// MTU of a node's device in the fabric, such as node2=1400
    #[arg(long, value_name = "NODE=MTU", value_parser = assignment::<u32>)]
    pub node_mtu: Vec<(String, u32)>,
    /// One more address of a node's device, such as node2=172.20.1.200/24
    #[arg(long, value_name = "NODE=CIDR", value_parser = assignment::<IpNet>)]
    pub node_address: Vec<(String, IpNet)>,
    /// Range that Services of type LoadBalancer get addresses from, such as 203.0.113.0/24; once for each family
    #[arg(long = "lb-pool", value_name = "CIDR")]
    pub lb_pools: Vec<IpNet>,
    /// MTU of the pods, instead of what the nodes' devices and the routing leave
    #[arg(long, value_name = "MTU")]
    pub pod_mtu: Option<u16>,
    /// Folder that the agents install the CNI plugin `tombolo-cni` from [default: where this program is]
    #[arg(long, value_name = "DIR", env = "CNI_PATH")]
    pub cni_path: Option<PathBuf>,
    /// Seconds that the cluster may take until its nodes are ready and its pods run
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub timeout: u64,
}

/// Which lab a command is about.
#[derive(Clone, Debug, Default, Args)]
pub struct NameArgs {
    /// Name of the lab [default: the newest]
    #[arg(long, value_name = "NAME", env = "TOMBOLO_LAB", value_parser = name)]
    pub name: Option<String>,
}

/// How the cluster sits in the network around it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LayoutArg {
    /// Pods leave the cluster with their node's address; nothing from outside reaches a pod address
    #[default]
    Island,
}

impl From<LayoutArg> for tombolo_kube::Layout {
    fn from(layout: LayoutArg) -> Self {
        match layout {
            LayoutArg::Island => Self::Island,
        }
    }
}

/// How packets travel between nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum RoutingArg {
    /// Unencapsulated to nodes on the same L2 segment, in VXLAN to those past a router
    #[default]
    Auto,
    /// Unencapsulated everywhere; all nodes must share one segment
    Direct,
    /// In VXLAN everywhere
    Vxlan,
}

impl From<RoutingArg> for tombolo_kube::Routing {
    fn from(routing: RoutingArg) -> Self {
        match routing {
            RoutingArg::Auto => Self::Auto,
            RoutingArg::Direct => Self::Direct,
            RoutingArg::Vxlan => Self::Vxlan,
        }
    }
}

/// The IP families of a lab.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Families {
    /// IPv4 only
    V4,
    /// IPv6 only
    V6,
    /// Both
    #[default]
    Dual,
}

impl Families {
    /// The values of the families that there are, IPv4 first.
    pub fn choose<T>(self, v4: T, v6: T) -> Vec<T> {
        match self {
            Self::V4 => vec![v4],
            Self::V6 => vec![v6],
            Self::Dual => vec![v4, v6],
        }
    }

    /// Whether an address is of one of the families.
    pub fn has(self, address: IpAddr) -> bool {
        match self {
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
            Self::Dual => true,
        }
    }
}

impl fmt::Display for Families {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "v4",
            Self::V6 => "v6",
            Self::Dual => "dual",
        })
    }
}

fn name(text: &str) -> Result<String, String> {
    let valid = (1..=MAX_NAME).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-');
    if valid {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "a lab's name has 1 to {MAX_NAME} lower case letters, digits and dashes, the latter only inside"
        ))
    }
}

fn assignment<T: FromStr<Err: fmt::Display>>(text: &str) -> Result<(String, T), String> {
    let (node, value) = text.split_once('=').ok_or("write it as NODE=VALUE")?;
    Ok((
        node.to_owned(),
        value.parse().map_err(|error| format!("{value:?}: {error}"))?,
    ))
}
