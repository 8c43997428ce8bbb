//! What clients meet: as it is asked for, and as the kernel has it.

use std::collections::{BTreeMap, BTreeSet};

use tombolo_abi::{Addr, Backend, FrontendKey};
use tombolo_services::{Compiled, Spread, maglev_table};

use crate::support::Kernel;

/// What a client meets at a frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    internal: Vec<(Addr, u16)>,
    external: Vec<(Addr, u16)>,
    affinity: Option<u32>,
    clients: Option<BTreeSet<(u32, Addr)>>,
    flags: u32,
}

impl View {
    pub fn is_of_pod(&self) -> bool {
        self.flags & tombolo_abi::Frontend::HOST_PORT != 0
    }
}

pub type Views = BTreeMap<FrontendKey, View>;

/// From this number on owners are pods.
pub const PODS: u8 = 4;

/// Those first who get what several claim: pods, then the oldest Services.
pub fn in_order(services: &BTreeMap<u8, Compiled>) -> Vec<(u8, &Compiled)> {
    let mut all: Vec<(u8, &Compiled)> = services.iter().map(|(number, c)| (*number, c)).collect();
    all.sort_by_key(|(number, c)| (*number < PODS, c.created.is_none(), c.created, *number));
    all
}

/// What is asked for, by the slow way: the first who claims it has it.
pub fn wanted(services: &BTreeMap<u8, Compiled>) -> Views {
    let mut views = Views::new();
    for (_, service) in in_order(services) {
        for port in &service.ports {
            let entries = |set: Option<usize>| {
                let Some(set) = set.map(|s| &port.sets[s]) else {
                    return Vec::new();
                };
                let members: Vec<Backend> = set.members.iter().map(|m| port.backends[*m as usize]).collect();
                match set.spread {
                    Spread::Random => members.iter().map(who).collect(),
                    Spread::Maglev => maglev_table(&members)
                        .iter()
                        .map(|i| who(&members[*i as usize]))
                        .collect(),
                }
            };
            let range = |r: &ipnet::IpNet| (96 + u32::from(r.prefix_len()), Addr::from(r.network()));
            for frontend in &port.frontends {
                let maglev = if frontend.external.is_some() {
                    tombolo_abi::Frontend::MAGLEV_EXTERNAL
                } else {
                    0
                };
                views.entry(frontend.key).or_insert_with(|| View {
                    internal: entries(frontend.internal),
                    external: entries(frontend.external),
                    affinity: (port.affinity_timeout > 0).then_some(port.affinity_timeout),
                    clients: frontend
                        .limited
                        .then(|| service.source_ranges.iter().map(range).collect()),
                    flags: frontend.flags | maglev,
                });
            }
        }
    }
    for address in services.values().flat_map(|s| &s.addresses) {
        let key = FrontendKey {
            address: *address,
            ..FrontendKey::default()
        };
        views.entry(key).or_insert(View {
            internal: Vec::new(),
            external: Vec::new(),
            affinity: None,
            clients: None,
            flags: 0,
        });
    }
    views
}

pub fn who(backend: &Backend) -> (Addr, u16) {
    (backend.address, backend.port)
}

pub fn views(kernel: &Kernel) -> Views {
    let view = |row: &tombolo_abi::Frontend| View {
        internal: kernel.slab(row.internal).iter().map(who).collect(),
        external: kernel.slab(row.external).iter().map(who).collect(),
        affinity: (row.affinity != 0).then_some(row.affinity_timeout),
        clients: kernel.clients(row.source_ranges),
        flags: row.flags,
    };
    kernel
        .frontends
        .iter()
        .map(|(key, row)| (*key, view(row)))
        .collect()
}
