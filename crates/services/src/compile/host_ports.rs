//! A pod's host ports → what they want of the tables.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;

use tombolo_abi::{self as abi, Backend, BackendState};

use super::ports::key;
use crate::compiled::{Compiled, Family, Frontend, Port, Scope, Set, Spread};
use crate::{Attachment, Place};

/// IP protocol number.
const SCTP: u8 = 132;

/// A port of the node that leads to a pod on it (`hostPort` of a container's port).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// IP protocol number.
    pub protocol: u8,
    /// The node's port.
    pub port: NonZeroU16,
    /// At which address of the node (`hostIP`); none: at all of them, and an unspecified one: at all of its family.
    pub address: Option<IpAddr>,
    /// The pod's port.
    pub container_port: NonZeroU16,
}

impl HostPort {
    /// The address of which the node must be the holder; none where any of its own will do.
    pub fn fixed_address(&self) -> Option<IpAddr> {
        self.address.filter(|a| !a.is_unspecified() && !a.is_loopback())
    }
}

/// Compiles what the host ports of a pod want of this node's tables: `addresses` are the pod's, `node` those that the
/// node has now. Of several addresses of one family a port leads to the first: it can lead to one alone.
///
/// Without regard to others': that no two pods have the same is known before. A port at an address that is not the
/// node's leads nowhere, with a [problem](Compiled::problems): a pod must not get what is somebody else's.
pub fn compile_host_ports(
    pod: &Attachment,
    addresses: &[IpAddr],
    ports: &[HostPort],
    node: &BTreeSet<IpAddr>,
) -> Compiled {
    let mut compiled = Compiled::default();
    let first = |is_ipv4: bool| addresses.iter().find(|a| a.is_ipv4() == is_ipv4);
    let of_each_family = [first(true), first(false)];
    for port in ports {
        for &address in of_each_family.into_iter().flatten() {
            let at = match port.address {
                Some(at) if at.is_ipv4() != address.is_ipv4() => continue,
                Some(at) => at,
                None if address.is_ipv4() => Ipv4Addr::UNSPECIFIED.into(),
                None => Ipv6Addr::UNSPECIFIED.into(),
            };
            let key = key(at, port.port.get(), port.protocol);
            if port.fixed_address().is_some_and(|fixed| !node.contains(&fixed)) {
                compiled.problems.push(format!(
                    "{pod}: host port {} is not served: the node does not have {at} now",
                    Place(key)
                ));
                continue;
            }
            if port.protocol == SCTP && port.port != port.container_port {
                compiled.problems.push(format!(
                    "{pod}: what comes to {} is dropped, since SCTP's checksum covers the port, which would be {} to the pod; give both the same number",
                    Place(key).of_host_port(),
                    port.container_port
                ));
            }
            let backend = Backend {
                address: address.into(),
                port: port.container_port.get().to_be(),
                protocol: port.protocol,
                state: BackendState::Serving as u8,
            };
            let frontend = Frontend {
                key,
                scope: Scope::HostPort,
                internal: Some(0),
                external: Some(0),
                flags: abi::Frontend::HOST_PORT,
                limited: false,
            };
            compiled.ports.push(Port {
                name: Place(key).to_string(),
                protocol: port.protocol,
                family: Family::of(address),
                affinity_timeout: 0,
                backends: vec![backend],
                sets: vec![Set {
                    spread: Spread::Random,
                    members: vec![0],
                }],
                frontends: vec![frontend],
            });
        }
    }
    compiled
}
