//! What a Service's slices say of its endpoints.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::{self, EndpointPort, EndpointSlice};

use super::{address, port_number, protocol_number};
use crate::Family;

/// All slices of a Service, read and checked.
pub(super) struct Endpoints<'a>(Vec<Slice<'a>>);

struct Slice<'a> {
    family: Family,
    ports: Vec<SlicePort<'a>>,
    endpoints: Vec<Endpoint<'a>>,
}

struct SlicePort<'a> {
    name: &'a str,
    protocol: u8,
    port: u16,
}

/// An endpoint of one port.
#[derive(Clone, Copy)]
pub(super) struct Endpoint<'a> {
    pub address: IpAddr,
    /// That of the port which was asked for.
    pub port: u16,
    /// May receive traffic: as a rule because it serves and does not terminate.
    pub ready: bool,
    /// Is able to.
    pub serving: bool,
    pub terminating: bool,
    /// On this node.
    pub local: bool,
    zones: &'a [v1::ForZone],
    nodes: &'a [v1::ForNode],
}

impl<'a> Endpoints<'a> {
    /// Reads the slices, which may be in any order.
    pub fn read(
        slices: impl Iterator<Item = &'a EndpointSlice>,
        node: &str,
        problems: &mut Vec<String>,
    ) -> Self {
        let mut slices: Vec<&EndpointSlice> = slices.collect();
        slices.sort_by_key(|s| &s.metadata.name);
        Self(
            slices
                .into_iter()
                .filter_map(|s| Slice::read(s, node, problems))
                .collect(),
        )
    }

    /// The endpoints of a Service's port in one family, by address and port. Slices name a port by the *name* that the
    /// Service gives it, and have looked up its number, so that a named `targetPort` may be another on each pod.
    ///
    /// An endpoint that moves from one slice to another is in both for a moment, and the address of a pod that ends may
    /// be another pod's already: the one that lives counts, then the one that is better off.
    pub fn of(&self, name: &str, protocol: u8, family: Family) -> Vec<Endpoint<'a>> {
        let mut found: BTreeMap<(IpAddr, u16), Endpoint<'a>> = BTreeMap::new();
        for slice in self.0.iter().filter(|s| s.family == family) {
            let ports = slice.ports.iter();
            for port in ports.filter(|p| p.name == name && p.protocol == protocol) {
                for endpoint in &slice.endpoints {
                    let endpoint = Endpoint {
                        port: port.port,
                        ..*endpoint
                    };
                    match found.entry((endpoint.address, endpoint.port)) {
                        Entry::Vacant(place) => {
                            place.insert(endpoint);
                        }
                        Entry::Occupied(mut other) if endpoint.rank() > other.get().rank() => {
                            other.insert(endpoint);
                        }
                        Entry::Occupied(_) => {}
                    }
                }
            }
        }
        found.into_values().collect()
    }
}

impl<'a> Slice<'a> {
    fn read(slice: &'a EndpointSlice, node: &str, problems: &mut Vec<String>) -> Option<Self> {
        let mut problem = |what: String| {
            let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
            let name = slice.metadata.name.as_deref().unwrap_or_default();
            problems.push(format!("EndpointSlice {namespace}/{name}: {what}"));
        };
        let family = match slice.address_type.as_str() {
            "IPv4" => Family::V4,
            "IPv6" => Family::V6,
            other => {
                problem(format!(
                    "addressType `{other}` is neither IPv4 nor IPv6; the slice is left out"
                ));
                return None;
            }
        };
        let ports = slice.ports.as_deref().unwrap_or_default();
        let ports = ports
            .iter()
            .filter_map(|p| SlicePort::read(p).map_err(&mut problem).ok())
            .collect();
        let endpoints = slice
            .endpoints
            .iter()
            .filter_map(|e| Endpoint::read(e, family, node).map_err(&mut problem).ok())
            .collect();
        Some(Self {
            family,
            ports,
            endpoints,
        })
    }
}

impl<'a> SlicePort<'a> {
    fn read(port: &'a EndpointPort) -> Result<Self, String> {
        let name = port.name.as_deref().unwrap_or_default();
        let protocol = protocol_number(port.protocol.as_deref()).ok_or_else(|| {
            format!("port `{name}` has a protocol that is none of TCP, UDP and SCTP, and is left out")
        })?;
        let port = port.port.and_then(port_number);
        let port =
            port.ok_or_else(|| format!("port `{name}` has no number within 1 to 65535, and is left out"))?;
        Ok(Self { name, protocol, port })
    }
}

impl<'a> Endpoint<'a> {
    /// What a condition that is not given means is in the API's own description of EndpointConditions.
    fn read(endpoint: &'a v1::Endpoint, family: Family, node: &str) -> Result<Self, String> {
        // No meaning is defined for further addresses.
        let text = endpoint
            .addresses
            .first()
            .ok_or("an endpoint has no address, and is left out")?;
        let address = address::parse(text).map_err(|why| format!("{why}, and is left out"))?;
        if Family::of(address) != family {
            return Err(format!(
                "`{text}` is no {} address, and is left out",
                family.name()
            ));
        }
        let conditions = endpoint.conditions.as_ref();
        let hints = endpoint.hints.as_ref();
        Ok(Self {
            address,
            port: 0,
            ready: conditions.and_then(|c| c.ready).unwrap_or(true),
            serving: conditions.and_then(|c| c.serving).unwrap_or(true),
            terminating: conditions.and_then(|c| c.terminating).unwrap_or(false),
            local: endpoint.node_name.as_deref() == Some(node),
            zones: hints.and_then(|h| h.for_zones.as_deref()).unwrap_or_default(),
            nodes: hints.and_then(|h| h.for_nodes.as_deref()).unwrap_or_default(),
        })
    }

    /// Which of two under one address and port counts: the higher.
    fn rank(&self) -> (bool, bool, bool, bool) {
        (!self.terminating, self.ready, self.serving, self.local)
    }

    /// Whether flows may stay with it.
    pub fn works(&self) -> bool {
        self.ready || self.drains()
    }

    /// Whether it may still be used where no endpoint is ready (KEP-1669).
    pub fn drains(&self) -> bool {
        self.serving && self.terminating
    }

    /// Whether it has hints for zones, and one is for `zone`.
    pub fn zone_hint(&self, zone: Option<&str>) -> Hint {
        Hint::of(self.zones.iter().map(|z| z.name.as_str()), zone)
    }

    /// Whether it has hints for nodes, and one is for `node`.
    pub fn node_hint(&self, node: &str) -> Hint {
        Hint::of(self.nodes.iter().map(|n| n.name.as_str()), Some(node))
    }
}

/// What an endpoint's hints say of a place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Hint {
    /// There are none.
    Missing,
    /// They are for other places.
    Elsewhere,
    /// It is for this place.
    Here,
}

impl Hint {
    fn of<'h>(mut hints: impl ExactSizeIterator<Item = &'h str>, place: Option<&str>) -> Self {
        match hints.len() {
            0 => Self::Missing,
            _ if hints.any(|h| Some(h) == place) => Self::Here,
            _ => Self::Elsewhere,
        }
    }
}
