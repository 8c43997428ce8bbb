use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;

use serde::{Deserialize, Serialize};

/// A port of the node that is to lead to the pod (`hostPort` of a container's port).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostPort {
    /// The protocol.
    pub protocol: Protocol,
    /// At which address of the node; none: at all of them, and `0.0.0.0` or `::`: at all of its family.
    #[serde(default, rename = "hostIP", skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
    /// The node's port.
    pub host_port: NonZeroU16,
    /// The pod's.
    pub container_port: NonZeroU16,
}

impl HostPort {
    /// Whether both are of the same protocol and port, and of addresses of the node that `hostIP` says the same of: one
    /// at all addresses and one at all of a family are.
    pub fn is_at(&self, other: &Self) -> bool {
        let any = |ip: Option<IpAddr>| ip.is_none_or(|ip| ip.is_unspecified());
        let (a, b) = (self.host_ip, other.host_ip);
        let addresses = a == b || any(a) && any(b) && (a.is_none() || b.is_none());
        (self.protocol, self.host_port) == (other.protocol, other.host_port) && addresses
    }

    /// Whether the other one is [at](Self::is_at) the same place, and at no address that this one is not at.
    pub fn covers(&self, other: &Self) -> bool {
        self.is_at(other) && (self.host_ip.is_none() || self.host_ip == other.host_ip)
    }
}

/// `8080/TCP`, `192.0.2.1:8080/TCP`, `[2001:db8::1]:53/UDP`.
impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            protocol,
            host_ip,
            host_port,
            ..
        } = self;
        match host_ip {
            None => write!(f, "{host_port}/{protocol}"),
            Some(IpAddr::V4(ip)) => write!(f, "{ip}:{host_port}/{protocol}"),
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:{host_port}/{protocol}"),
        }
    }
}

/// What host ports are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The IP protocol number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}
