//! What the agent tells the command line of Services, from the kernel's tables as they are.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use nix::time::{ClockId, clock_gettime};
use tombolo_abi::{
    self as abi, Addr, AffinityKey, BackendState, FrontendKey, SLAB_ROW, Slab, SlabRow, SourceRangeKey,
};
use tombolo_cni::agent::{Backend, Backends, ClientWay, Frontend, Outcome};
use tombolo_datapath::Tables;
use tombolo_services::{Attachment, Owner, Place};

use super::Services;
use crate::error::Error;

impl Services {
    /// All frontends, by their Services; and what becomes of a client that comes to this node.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn view(&self, client: Option<IpAddr>) -> Result<Vec<Frontend>, Error> {
        let rows = self.kernel.datapath.frontends().entries()?;
        let kernel = Kernel::read(&self.kernel.datapath, client)?;
        let owners: HashMap<FrontendKey, Owner> = {
            let programmed = self.lock();
            programmed
                .tables
                .owners()
                .map(|(key, owner)| (*key, owner.clone()))
                .collect()
        };
        let of_ports = rows.iter().filter(|(key, _)| key.protocol != 0);
        let mut frontends = Vec::new();
        for (key, row) in of_ports {
            frontends.push(kernel.frontend(key, row, owners.get(key))?);
        }
        frontends.sort_by(|a, b| (&a.service, &a.pod, &a.frontend).cmp(&(&b.service, &b.pod, &b.frontend)));
        Ok(frontends)
    }
}

/// The tables that frontends refer to.
struct Kernel<'a> {
    tables: &'a Tables,
    slabs: BTreeMap<u32, SlabRow>,
    backends: BTreeMap<u32, abi::Backend>,
    ranges: Vec<SourceRangeKey>,
    client: Option<Client>,
}

struct Client {
    address: IpAddr,
    /// A pod of this node.
    internal: bool,
}

impl<'a> Kernel<'a> {
    fn read(tables: &'a Tables, client: Option<IpAddr>) -> Result<Self, Error> {
        let client = match client {
            Some(address) => Some(Client {
                address,
                internal: tables.endpoints().get(&address.into())?.is_some(),
            }),
            None => None,
        };
        Ok(Self {
            slabs: tables.slabs().used()?,
            backends: tables.backends().used()?,
            ranges: tables.source_ranges().entries()?.into_keys().collect(),
            tables,
            client,
        })
    }

    fn frontend(
        &self,
        key: &FrontendKey,
        row: &abi::Frontend,
        owner: Option<&Owner>,
    ) -> Result<Frontend, Error> {
        let ranges = (row.source_ranges != 0).then(|| self.source_ranges(row.source_ranges));
        let set = |slab: Slab, maglev: u32, drop: u32| Backends {
            backends: self.backends(slab),
            choice: if row.flags & maglev == 0 {
                "random"
            } else {
                "maglev"
            }
            .into(),
            drops: row.flags & drop != 0,
        };
        let internal = set(row.internal, 0, abi::Frontend::DROP_INTERNAL);
        let external = set(
            row.external,
            abi::Frontend::MAGLEV_EXTERNAL,
            abi::Frontend::DROP_EXTERNAL,
        );
        let client = match &self.client {
            Some(client) => {
                let set = if client.internal { &internal } else { &external };
                Some(self.way(client, row, set, ranges.as_deref())?)
            }
            None => None,
        };
        Ok(Frontend {
            service: owner.and_then(Owner::service).map(ToString::to_string),
            pod: owner.and_then(Owner::pod).map(pod_name),
            frontend: if row.flags & abi::Frontend::HOST_PORT != 0 {
                Place(*key).of_host_port()
            } else {
                Place(*key).to_string()
            },
            internal,
            external,
            affinity_seconds: row.affinity_timeout,
            source_ranges: ranges,
            client,
        })
    }

    /// As the programs decide.
    fn way(
        &self,
        client: &Client,
        row: &abi::Frontend,
        set: &Backends,
        ranges: Option<&[IpNet]>,
    ) -> Result<ClientWay, Error> {
        let way = |outcome, to| ClientWay {
            client: client.address,
            outcome,
            to,
        };
        if ranges.is_some_and(|ranges| !ranges.iter().any(|r| r.contains(&client.address))) {
            return Ok(way(Outcome::NotLetIn, Vec::new()));
        }
        let serving = set
            .backends
            .iter()
            .filter(|b| b.state == state_word(BackendState::Serving as u8));
        let serving: Vec<SocketAddr> = serving.map(|b| b.address).collect();
        if serving.is_empty() {
            let outcome = if set.drops {
                Outcome::Dropped
            } else {
                Outcome::Refused
            };
            return Ok(way(outcome, Vec::new()));
        }
        if let Some(kept) = self
            .kept(client.address, row)?
            .filter(|kept| serving.contains(kept))
        {
            return Ok(way(Outcome::Kept, vec![kept]));
        }
        let outcome = if set.choice == "maglev" {
            Outcome::Hash
        } else {
            Outcome::Random
        };
        Ok(way(outcome, serving))
    }

    /// The backend that a client keeps.
    fn kept(&self, client: IpAddr, row: &abi::Frontend) -> Result<Option<SocketAddr>, Error> {
        if row.affinity == 0 {
            return Ok(None);
        }
        let key = AffinityKey {
            client: client.into(),
            affinity: row.affinity,
        };
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_err(|errno| Error::Clock(errno.into()))?;
        let now = now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64;
        let kept = self.tables.affinity().get(&key)?;
        let kept = kept
            .filter(|k| now.saturating_sub(k.last_seen) < u64::from(row.affinity_timeout) * 1_000_000_000);
        Ok(kept.and_then(|k| self.backends.get(&k.backend)).map(address))
    }

    fn backends(&self, slab: Slab) -> Vec<Backend> {
        let rows = usize::from(slab.len()).div_ceil(SLAB_ROW) as u32;
        let ids = (slab.base()..slab.base() + rows).filter_map(|at| self.slabs.get(&at));
        let ids = ids.flat_map(|row| row.backends).take(slab.len().into());
        let backend = |b: &abi::Backend| Backend {
            address: address(b),
            state: state_word(b.state).into(),
        };
        let mut all: Vec<Backend> = ids.filter_map(|id| self.backends.get(&id)).map(backend).collect();
        all.sort();
        all.dedup();
        all
    }

    fn source_ranges(&self, number: u32) -> Vec<IpNet> {
        let own = self
            .ranges
            .iter()
            .filter(|key| u32::from_be(key.ranges) == number);
        own.filter_map(|key| {
            let address = IpAddr::from(key.address);
            let bits = key
                .prefix_len
                .checked_sub(if address.is_ipv4() { 32 + 96 } else { 32 })?;
            IpNet::new(address, u8::try_from(bits).ok()?).ok()
        })
        .collect()
    }
}

/// `namespace/name`, or what the runtime calls it.
fn pod_name(pod: &Attachment) -> String {
    pod.pod.clone().unwrap_or_else(|| pod.to_string())
}

fn address(backend: &abi::Backend) -> SocketAddr {
    SocketAddr::new(Addr::into(backend.address), u16::from_be(backend.port))
}

const fn state_word(state: u8) -> &'static str {
    const SERVING: u8 = BackendState::Serving as u8;
    const NOT_SERVING: u8 = BackendState::NotServing as u8;
    match state {
        SERVING => "serving",
        NOT_SERVING => "not-serving",
        _ => "gone",
    }
}
