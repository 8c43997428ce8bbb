use std::fmt;
use std::net::IpAddr;

use tombolo_abi::FrontendKey;

/// A frontend's place as people write it: `10.96.0.1:443/TCP`, `[fd00::1]:53/UDP`, `node port 30080/TCP (IPv4)`, and
/// for an address as a whole just that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(pub FrontendKey);

impl Place {
    /// The same, where it is a pod's host port: `host port 8080/TCP (IPv4)`, `127.0.0.1:8080/TCP`.
    pub fn of_host_port(self) -> String {
        self.to_string().replacen("node port", "host port", 1)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = IpAddr::from(self.0.address);
        let port = u16::from_be(self.0.port);
        let protocol = match self.0.protocol {
            0 => return write!(f, "{address}"),
            6 => "TCP".into(),
            17 => "UDP".into(),
            132 => "SCTP".into(),
            other => other.to_string(),
        };
        match address {
            IpAddr::V4(a) if a.is_unspecified() => write!(f, "node port {port}/{protocol} (IPv4)"),
            IpAddr::V6(a) if a.is_unspecified() => write!(f, "node port {port}/{protocol} (IPv6)"),
            IpAddr::V4(a) => write!(f, "{a}:{port}/{protocol}"),
            IpAddr::V6(a) => write!(f, "[{a}]:{port}/{protocol}"),
        }
    }
}
