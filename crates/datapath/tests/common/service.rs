//! Services in the tables of a cluster.

use tombolo_abi::{
    Addr, Backend, BackendState, Config, Frontend, FrontendKey, RouteKind, SLAB_ROW, Slab, SlabRow, Way,
};

use super::{
    cluster::{Cluster, Family, row},
    frame::ip,
};

/// The Service's address.
pub const fn cluster_ip(f: Family) -> &'static str {
    if f.v4 { "10.96.0.10" } else { "fd00:10:96::10" }
}

/// An address of Services that none has.
pub const fn unused_ip(f: Family) -> &'static str {
    if f.v4 { "10.96.0.99" } else { "fd00:10:96::99" }
}

pub const PORT: u16 = 80;
pub const NODE_PORT: u16 = 30080;
/// Where the backends listen.
pub const TARGET_PORT: u16 = 8080;

/// The address that stands for all that take node ports.
pub fn every_address(f: Family) -> &'static str {
    if f.v4 { "0.0.0.0" } else { "::" }
}

pub fn frontend_key(address: &str, port: u16, protocol: u8) -> FrontendKey {
    let address = if address == "0.0.0.0" {
        Addr::from_v4_word(0)
    } else {
        Addr::from(ip(address))
    };
    FrontendKey {
        address,
        port: port.to_be(),
        protocol,
        pad: 0,
    }
}

/// Has the programs look for Services; the Service ranges are routed nowhere, and the node's address takes node ports.
pub fn turn_on(cluster: &Cluster) {
    let mut config = cluster.datapath.config().unwrap();
    config.flags |= Config::SERVICES;
    config.prefix_lens = [120, 112, 128, 108, 0, 0, 0, 0];
    cluster.datapath.set_config(&config).unwrap();
    for prefix in ["10.96.0.0/12", "fd00:10:96::/108"] {
        let (key, route) = row(prefix, 1, RouteKind::Services, Way::Local, 0, "");
        cluster.datapath.routes().insert(&key, &route).unwrap();
    }
    let mut routes = cluster.datapath.routes().entries().unwrap();
    for route in routes.values_mut() {
        if route.kind == RouteKind::Node as u8 && route.way == Way::Local as u8 {
            route.flags = tombolo_abi::Route::NODE_PORTS;
        }
    }
    cluster.datapath.routes().reconcile(&routes).unwrap();
}

/// Writes backends, with ids from `first` on, and a slab at row `base` that names them.
pub fn slab(cluster: &Cluster, base: u32, first: u32, protocol: u8, backends: &[&str]) -> Slab {
    let rows: Vec<(u32, Backend)> = (first..)
        .zip(backends)
        .map(|(id, address)| (id, backend(address, protocol)))
        .collect();
    cluster.datapath.backends().write(&rows).unwrap();
    let ids: Vec<u32> = rows.iter().map(|(id, _)| *id).collect();
    slab_of(cluster, base, &ids)
}

/// Writes a slab at row `base`.
pub fn slab_of(cluster: &Cluster, base: u32, ids: &[u32]) -> Slab {
    let rows: Vec<(u32, SlabRow)> = (base..)
        .zip(ids.chunks(SLAB_ROW))
        .map(|(index, ids)| {
            let mut row = SlabRow::default();
            row.backends[..ids.len()].copy_from_slice(ids);
            (index, row)
        })
        .collect();
    cluster.datapath.slabs().write(&rows).unwrap();
    Slab::new(base, ids.len() as u16, 1)
}

pub fn backend(address: &str, protocol: u8) -> Backend {
    Backend {
        address: ip(address).into(),
        port: TARGET_PORT.to_be(),
        protocol,
        state: BackendState::Serving as u8,
    }
}

pub fn set_state(cluster: &Cluster, id: u32, state: BackendState) {
    let mut backend = cluster.datapath.backends().get(id).unwrap().unwrap();
    backend.state = state as u8;
    cluster.datapath.backends().write(&[(id, backend)]).unwrap();
}

/// Has an address and port lead to the same backends for everybody.
pub fn publish(cluster: &Cluster, address: &str, port: u16, protocol: u8, slab: Slab) {
    let frontend = Frontend {
        internal: slab,
        external: slab,
        ..Frontend::default()
    };
    cluster
        .datapath
        .frontends()
        .insert(&frontend_key(address, port, protocol), &frontend)
        .unwrap();
}

/// A table of `size` entries, a prime, that changes little when a backend comes or goes (Eisenbud and others, "Maglev: A
/// Fast and Reliable Software Network Load Balancer", 2016, section 3.4).
pub fn maglev(backends: &[u32], size: u32) -> Vec<u32> {
    let hash = |id: u32, seed: u64| {
        let mixed = (u64::from(id) + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ mixed >> 31).wrapping_mul(0xd6e8_feb8_6659_fd93);
        (mixed ^ mixed >> 32) as u32
    };
    let mut turns: Vec<(u32, u32)> = backends
        .iter()
        .map(|id| (hash(*id, 1) % size, hash(*id, 2 << 32) % (size - 1) + 1))
        .collect();
    let mut table = vec![0; size as usize];
    let mut left = size;
    loop {
        for (id, (next, skip)) in backends.iter().zip(&mut turns) {
            while table[*next as usize] != 0 {
                *next = (*next + *skip) % size;
            }
            table[*next as usize] = *id;
            left -= 1;
            if left == 0 {
                return table;
            }
        }
    }
}
