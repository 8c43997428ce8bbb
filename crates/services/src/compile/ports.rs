//! A Service's ports: where each is reached, and what it leads to.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tombolo_abi::{self as abi, Addr, Backend, BackendState, FrontendKey};

use super::endpoints::{Endpoint, Endpoints};
use super::spec::{PortSpec, Spec};
use super::topology::{self, Usable};
use crate::compiled::{Family, Frontend, Port, Scope, Set, Spread};
use crate::{Facts, Place, ServiceName};

/// A slab says in 16 bits how long it is.
const MAX_BACKENDS: usize = u16::MAX as usize;

/// Builds each port in each family, and counts the ready endpoints on this node.
pub(super) fn build(
    spec: &Spec<'_>,
    endpoints: &Endpoints<'_>,
    facts: &Facts,
    name: &ServiceName,
    problems: &mut Vec<String>,
) -> (Vec<Port>, u32) {
    let mut taken = BTreeMap::new();
    let mut ports = Vec::new();
    let mut local_ready = [Vec::new(), Vec::new()];
    for port in &spec.ports {
        for &cluster_ip in &spec.cluster_ips {
            let family = Family::of(cluster_ip);
            let mut endpoints = endpoints.of(port.name, port.protocol, family);
            if endpoints.len() > MAX_BACKENDS {
                problems.push(format!(
                    "Service {name}: port `{}` has {} endpoints; those past the first {MAX_BACKENDS} are left out",
                    port.name,
                    endpoints.len()
                ));
                endpoints.truncate(MAX_BACKENDS);
            }
            let here = endpoints.iter().filter(|e| e.local && e.ready).map(|e| e.address);
            local_ready[usize::from(family == Family::V6)].extend(here);
            let mut builder = Builder {
                spec,
                policy: topology::usable(&endpoints, facts),
                family,
                sets: Vec::new(),
            };
            let mut frontends = builder.frontends(port);
            frontends.retain(|f| match taken.entry(f.key) {
                Entry::Vacant(place) => {
                    place.insert(port.name);
                    true
                }
                Entry::Occupied(other) => {
                    // One address in two fields is no mistake: the first stands, with its limits.
                    if *other.get() != port.name {
                        problems.push(format!(
                            "Service {name}: port `{}` does not get {}, which port `{}` has",
                            port.name,
                            Place(f.key),
                            other.get()
                        ));
                    }
                    false
                }
            });
            ports.push(Port {
                name: port.name.to_owned(),
                protocol: port.protocol,
                family,
                affinity_timeout: spec.affinity_timeout,
                backends: endpoints.iter().map(|e| backend(e, port.protocol)).collect(),
                sets: builder.sets,
                frontends,
            });
        }
    }
    let local_endpoints = local_ready.map(|mut addresses| {
        addresses.sort();
        addresses.dedup();
        addresses.len() as u32
    });
    (ports, local_endpoints.into_iter().max().unwrap_or(0))
}

/// The addresses that are the Service's as a whole: what is for other ports there goes nowhere else. Not external IPs,
/// which may be anybody's, nor a load balancer's address that is a node's.
pub(super) fn whole_addresses(spec: &Spec<'_>, facts: &Facts) -> Vec<Addr> {
    let vips = spec.load_balancer_ips.iter();
    let vips = vips.filter(|a| !facts.node_addresses.contains(a));
    let all: BTreeSet<IpAddr> = spec.cluster_ips.iter().chain(vips).copied().collect();
    all.into_iter().map(Addr::from).collect()
}

fn backend(endpoint: &Endpoint<'_>, protocol: u8) -> Backend {
    let state = if endpoint.works() {
        BackendState::Serving
    } else {
        BackendState::NotServing
    };
    Backend {
        address: endpoint.address.into(),
        port: endpoint.port.to_be(),
        protocol,
        state: state as u8,
    }
}

/// Builds the frontends of one port in one family.
struct Builder<'a> {
    spec: &'a Spec<'a>,
    policy: Usable,
    family: Family,
    sets: Vec<Set>,
}

impl Builder<'_> {
    fn frontends(&mut self, port: &PortSpec<'_>) -> Vec<Frontend> {
        let spec = self.spec;
        let mut frontends = Vec::new();
        for &ip in self.own(&spec.cluster_ips) {
            frontends.push(self.by_cluster_ip(key(ip, port.port, port.protocol)));
        }
        for &ip in self.own(&spec.load_balancer_ips) {
            frontends.push(self.by_outside_address(key(ip, port.port, port.protocol), Scope::LoadBalancer));
        }
        for &ip in self.own(&spec.external_ips) {
            frontends.push(self.by_outside_address(key(ip, port.port, port.protocol), Scope::ExternalIp));
        }
        if let Some(node_port) = port.node_port {
            let any = match self.family {
                Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            };
            frontends.push(self.by_outside_address(key(any, node_port, port.protocol), Scope::NodePort));
        }
        frontends
    }

    /// A cluster IP follows the internal policy, whoever asks.
    fn by_cluster_ip(&mut self, key: FrontendKey) -> Frontend {
        let set = self.set(self.spec.internal_local, Spread::Random);
        let drop = if self.drops(self.spec.internal_local) {
            abi::Frontend::DROP_INTERNAL | abi::Frontend::DROP_EXTERNAL
        } else {
            0
        };
        Frontend {
            key,
            scope: Scope::ClusterIp,
            internal: set,
            external: set,
            flags: drop,
            limited: false,
        }
    }

    /// What is reached from outside follows the external policy. Clients of this cluster are let in as if they had gone
    /// out and come back by a load balancer, which would have found them a node with endpoints.
    fn by_outside_address(&mut self, key: FrontendKey, scope: Scope) -> Frontend {
        let local = self.spec.external_local;
        Frontend {
            key,
            scope,
            internal: self.set(false, Spread::Random),
            external: self.set(local, Spread::Maglev),
            flags: if self.drops(local) {
                abi::Frontend::DROP_EXTERNAL
            } else {
                0
            },
            limited: scope == Scope::LoadBalancer && self.spec.is_limited(self.family),
        }
    }

    /// A policy that keeps packets on this node drops them if there are endpoints on others only, so that a client
    /// tries again. With no endpoint anywhere they are refused.
    fn drops(&self, local: bool) -> bool {
        local && self.policy.local.is_empty() && !self.policy.cluster.is_empty()
    }

    /// The set of a policy's endpoints, made when it is named first.
    fn set(&mut self, local: bool, spread: Spread) -> Option<usize> {
        let members = if local {
            &self.policy.local
        } else {
            &self.policy.cluster
        };
        if members.is_empty() {
            return None;
        }
        let is_it = |s: &Set| s.spread == spread && s.members == *members;
        Some(self.sets.iter().position(is_it).unwrap_or_else(|| {
            self.sets.push(Set {
                spread,
                members: members.clone(),
            });
            self.sets.len() - 1
        }))
    }

    fn own<'b>(&self, addresses: &'b [IpAddr]) -> impl Iterator<Item = &'b IpAddr> + use<'b> {
        let family = self.family;
        addresses.iter().filter(move |a| Family::of(**a) == family)
    }
}

/// The key of a place.
pub(super) fn key(address: IpAddr, port: u16, protocol: u8) -> FrontendKey {
    FrontendKey {
        address: address.into(),
        port: port.to_be(),
        protocol,
        pad: 0,
    }
}
