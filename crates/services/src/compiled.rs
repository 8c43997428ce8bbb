//! What is compiled of one Service.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::jiff::Timestamp;
use tombolo_abi::{Addr, Backend, FrontendKey};

/// What one Service wants of the tables, without regard to others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// When the Service was created: of two that claim one address and port, the older gets it.
    pub created: Option<Timestamp>,
    /// Its ports, each once for each of its families.
    pub ports: Vec<Port>,
    /// Addresses that are this Service's as a whole: what is for another port there is refused.
    pub addresses: Vec<Addr>,
    /// The clients that may come by frontends that are [limited](Frontend::limited) (`loadBalancerSourceRanges`).
    pub source_ranges: Vec<IpNet>,
    /// What a load balancer asks this node, to know whether to send clients here.
    pub health_check: Option<HealthCheck>,
    /// What is wrong with the objects, for a person: what was left out, because of what.
    pub problems: Vec<String>,
}

/// One port of a Service in one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name; empty where the only port has none.
    pub name: String,
    /// IP protocol number.
    pub protocol: u8,
    /// The family of its frontends and backends.
    pub family: Family,
    /// For how many seconds a client without traffic keeps its backend (`sessionAffinity: ClientIP`); 0: not at all.
    pub affinity_timeout: u32,
    /// Every endpoint that a slice names for this port, used or not, by address and port.
    pub backends: Vec<Backend>,
    /// The sets of backends that frontends name; none is empty.
    pub sets: Vec<Set>,
    /// Where this port is reached.
    pub frontends: Vec<Frontend>,
}

/// Some of a port's backends, to choose one of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Set {
    /// How one is chosen.
    pub spread: Spread,
    /// Indexes into [`Port::backends`], ascending.
    pub members: Vec<u32>,
}

/// How a backend is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Spread {
    /// At random.
    Random,
    /// By the flow's hash, on every node alike.
    Maglev,
}

/// Where a port of a Service is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontend {
    /// The row's key.
    pub key: FrontendKey,
    /// Which field of the Service this address is from.
    pub scope: Scope,
    /// The index in [`Port::sets`] for clients of this cluster; none: they find no backend.
    pub internal: Option<usize>,
    /// The same for all other clients.
    pub external: Option<usize>,
    /// Bits of [`DROP_INTERNAL`](tombolo_abi::Frontend::DROP_INTERNAL),
    /// [`DROP_EXTERNAL`](tombolo_abi::Frontend::DROP_EXTERNAL) and [`HOST_PORT`](tombolo_abi::Frontend::HOST_PORT).
    pub flags: u32,
    /// Whether only clients of [`Compiled::source_ranges`] are let in.
    pub limited: bool,
}

/// Which field of a Service an address is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// `clusterIPs`.
    ClusterIp,
    /// `status.loadBalancer.ingress`.
    LoadBalancer,
    /// `externalIPs`.
    ExternalIp,
    /// `nodePort`.
    NodePort,
    /// `hostPort`, of a pod and not of a Service.
    HostPort,
}

/// What this node answers at a Service's `healthCheckNodePort`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// The port.
    pub port: u16,
    /// How many ready endpoints the Service has on this node. A pod with addresses of both families counts once.
    pub local_endpoints: u32,
}

/// An IP family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// What Kubernetes calls it in `ipFamilies` and `addressType`.
    pub fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}
