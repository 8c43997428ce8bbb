//! The maps of a node, with types.

use std::{os::fd::OwnedFd, path::Path};

use tombolo_abi::{
    Addr, Affinity, AffinityKey, Backend, Config, Counter, Endpoint, FlowKey, FlowState, Frontend,
    FrontendKey, Hook, MacKey, Outcome, Route, RouteKey, SlabRow, SourceRangeKey, capacity, map,
};

use crate::{Error, Result, Rows, Table, bpf, counters, object::Maps, pins::Pins};

/// The maps of a node.
#[derive(Debug)]
pub struct Tables {
    endpoints: Table<Addr, Endpoint>,
    routes: Table<RouteKey, Route>,
    uplink_macs: Table<MacKey, u32>,
    flows: Table<FlowKey, FlowState>,
    frontends: Table<FrontendKey, Frontend>,
    slabs: Rows<SlabRow>,
    backends: Rows<Backend>,
    affinity: Table<AffinityKey, Affinity>,
    source_ranges: Table<SourceRangeKey, u32>,
    config: OwnedFd,
    counters: OwnedFd,
}

impl Tables {
    /// The maps must be those of this build, by name.
    pub(crate) fn new(mut maps: Maps) -> Result<Self> {
        let mut take = |name: &'static str| {
            maps.remove(name)
                .ok_or_else(|| Error::Object(format!("no map {name}")))
                .map(|fd| (name, fd))
        };
        fn table<K: crate::Plain + Ord, V: crate::Plain + PartialEq>(
            (name, fd): (&'static str, OwnedFd),
            capacity: usize,
        ) -> Table<K, V> {
            Table::new(name, capacity, fd)
        }
        fn rows<V: crate::Plain + PartialEq>(
            (name, fd): (&'static str, OwnedFd),
            capacity: usize,
        ) -> Rows<V> {
            Rows::new(name, capacity, fd)
        }
        Ok(Self {
            endpoints: table(take(map::ENDPOINTS)?, capacity::ENDPOINTS),
            routes: table(take(map::ROUTES)?, capacity::ROUTES),
            uplink_macs: table(take(map::UPLINK_MACS)?, capacity::UPLINK_MACS),
            flows: table(take(map::FLOWS)?, capacity::FLOWS),
            frontends: table(take(map::FRONTENDS)?, capacity::FRONTENDS),
            slabs: rows(take(map::SLABS)?, capacity::SLAB_ROWS),
            backends: rows(take(map::BACKENDS)?, capacity::BACKENDS),
            affinity: table(take(map::AFFINITY)?, capacity::AFFINITY),
            source_ranges: table(take(map::SOURCE_RANGES)?, capacity::SOURCE_RANGES),
            config: take(map::CONFIG)?.1,
            counters: take(map::COUNTERS)?.1,
        })
    }

    /// Pods of this node, by address.
    pub const fn endpoints(&self) -> &Table<Addr, Endpoint> {
        &self.endpoints
    }

    /// Blocks and addresses of all nodes.
    pub const fn routes(&self) -> &Table<RouteKey, Route> {
        &self.routes
    }

    /// MACs of all nodes' uplinks; the value is 1.
    pub const fn uplink_macs(&self) -> &Table<MacKey, u32> {
        &self.uplink_macs
    }

    /// Tracked flows: those of Services, and all others where tracking is on.
    pub const fn flows(&self) -> &Table<FlowKey, FlowState> {
        &self.flows
    }

    /// Where Services are reached.
    pub const fn frontends(&self) -> &Table<FrontendKey, Frontend> {
        &self.frontends
    }

    /// The backends of frontends, by their ids.
    pub const fn slabs(&self) -> &Rows<SlabRow> {
        &self.slabs
    }

    /// Backends, by their ids.
    pub const fn backends(&self) -> &Rows<Backend> {
        &self.backends
    }

    /// Clients that keep their backends; programs write it.
    pub const fn affinity(&self) -> &Table<AffinityKey, Affinity> {
        &self.affinity
    }

    /// Clients that Services let in; the value is 1.
    pub const fn source_ranges(&self) -> &Table<SourceRangeKey, u32> {
        &self.source_ranges
    }

    /// What the programs know of the node.
    pub fn config(&self) -> Result<Config> {
        let config = bpf::map::lookup(&self.config, &0_u32);
        config
            .map(Option::unwrap_or_default)
            .map_err(|source| failed("read", source))
    }

    /// Tells the programs of the node; takes effect with the next packet.
    pub fn set_config(&self, config: &Config) -> Result<()> {
        bpf::map::update(&self.config, &0_u32, config).map_err(|source| failed("write", source))
    }

    /// What became of packets: only what is not zero, summed over the CPUs.
    pub fn counters(&self) -> Result<Vec<(Hook, Outcome, Counter)>> {
        counters::read(&self.counters)
    }
}

fn failed(what: &'static str, source: std::io::Error) -> Error {
    Error::Map {
        what,
        map: map::CONFIG,
        source,
    }
}

/// Opens the maps pinned below a directory for reading; nothing is made.
///
/// # Errors
/// [`Error::Pin`]: no agent of this version has run.
pub fn open_readonly(directory: &Path) -> Result<Tables> {
    let pins = Pins::of(directory);
    let open = |name: &'static str| {
        let path = pins.maps().join(name);
        match bpf::open(&path, true) {
            Ok(fd) => Ok((name, fd)),
            Err(source) => Err(Error::Pin {
                what: "open",
                path,
                source,
            }),
        }
    };
    Tables::new(map::ALL.into_iter().map(open).collect::<Result<_>>()?)
}
