//! Services as they are drawn: from so little that they meet at addresses and backends.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;
use tombolo_abi::{Addr, Backend, BackendState, FrontendKey};
use tombolo_services::{Compiled, Family, Frontend, Port, Scope, Set, Spread};

/// Enough to make a Service of: drawn from so little that Services meet at addresses and backends.
#[derive(Clone, Debug)]
pub struct Draft {
    pub age: Option<i64>,
    pub ports: Vec<PortDraft>,
    pub ranges: BTreeSet<u8>,
    pub whole: BTreeSet<u8>,
}

#[derive(Clone, Debug)]
pub struct PortDraft {
    pub places: BTreeSet<(u8, u8)>,
    pub backends: BTreeMap<u8, bool>,
    /// How many of those that serve are in the external set.
    pub external: usize,
    pub affinity: bool,
    pub limited: bool,
}

pub fn draft() -> impl Strategy<Value = Draft> {
    let port = (
        prop::collection::btree_set((0u8..4, 80u8..82), 0..3),
        prop::collection::btree_map(0u8..8, prop::bool::weighted(0.7), 0..4),
        0usize..4,
        any::<bool>(),
        any::<bool>(),
    );
    let port = port.prop_map(|(places, backends, external, affinity, limited)| PortDraft {
        places,
        backends,
        external,
        affinity,
        limited,
    });
    let ports = prop::collection::vec(port, 0..3);
    let few = || prop::collection::btree_set(0u8..4, 0..3);
    (prop::option::of(0i64..3), ports, few(), few()).prop_map(|(age, ports, ranges, whole)| Draft {
        age,
        ports,
        ranges,
        whole,
    })
}

pub fn v4(a: u8, b: u8) -> Addr {
    IpAddr::V4(Ipv4Addr::new(10, a, 0, b)).into()
}

impl Draft {
    /// As the host ports of a pod, which is Services' backend, too: all of them are served, and each is at some place.
    pub fn of_pod(&self) -> Compiled {
        let mut draft = self.clone();
        draft.age = None;
        draft.whole.clear();
        draft.ranges.clear();
        for port in &mut draft.ports {
            port.backends.retain(|_, serves| *serves);
        }
        let mut compiled = draft.compiled();
        compiled.ports.retain(|port| !port.frontends.is_empty());
        for frontend in compiled.ports.iter_mut().flat_map(|port| &mut port.frontends) {
            frontend.scope = Scope::HostPort;
            frontend.limited = false;
            frontend.flags |= tombolo_abi::Frontend::HOST_PORT;
        }
        compiled
    }

    pub fn compiled(&self) -> Compiled {
        let mut taken = BTreeSet::new();
        let ports = self.ports.iter().enumerate();
        let ports = ports.map(|(i, p)| p.port(i, &mut taken)).collect();
        let second = |s: i64| serde_json::from_value(format!("2026-01-01T00:00:0{s}Z").into()).unwrap();
        Compiled {
            created: self.age.map(second),
            ports,
            addresses: self.whole.iter().map(|a| v4(0, *a)).collect(),
            source_ranges: self
                .ranges
                .iter()
                .map(|r| format!("192.168.{r}.0/24").parse().unwrap())
                .collect(),
            ..Compiled::default()
        }
    }
}

impl PortDraft {
    pub fn port(&self, index: usize, taken: &mut BTreeSet<(u8, u8)>) -> Port {
        let serving: Vec<u32> = (0..)
            .zip(self.backends.values())
            .filter(|(_, s)| **s)
            .map(|(i, _)| i)
            .collect();
        let external = &serving[..self.external.min(serving.len())];
        let wanted = [(Spread::Random, &serving[..]), (Spread::Maglev, external)];
        let sets: Vec<Set> = wanted
            .iter()
            .filter(|(_, m)| !m.is_empty())
            .map(|(spread, m)| Set {
                spread: *spread,
                members: m.to_vec(),
            })
            .collect();
        let set = |spread: Spread| sets.iter().position(|s| s.spread == spread);
        let places = self.places.iter().filter(|p| taken.insert(**p));
        let frontends = places.map(|(address, port)| Frontend {
            key: FrontendKey {
                address: v4(0, *address),
                port: u16::from(*port).to_be(),
                protocol: 6,
                pad: 0,
            },
            scope: Scope::LoadBalancer,
            internal: set(Spread::Random),
            external: set(Spread::Maglev),
            flags: if external.is_empty() {
                tombolo_abi::Frontend::DROP_EXTERNAL
            } else {
                0
            },
            limited: self.limited,
        });
        let state = |serves: bool| {
            if serves {
                BackendState::Serving
            } else {
                BackendState::NotServing
            }
        };
        let backend = |(b, serves): (&u8, &bool)| Backend {
            address: v4(1, *b),
            port: 8080_u16.to_be(),
            protocol: 6,
            state: state(*serves) as u8,
        };
        Port {
            name: format!("p{index}"),
            protocol: 6,
            family: Family::V4,
            affinity_timeout: if self.affinity { 60 } else { 0 },
            backends: self.backends.iter().map(backend).collect(),
            frontends: frontends.collect(),
            sets,
        }
    }
}
