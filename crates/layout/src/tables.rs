//! The rows and routes of all members.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use tombolo_abi::{Addr, Config, MAX_BLOCK_SIZES, MacKey, Route, RouteKey, RouteKind, Way};

use crate::members::{Member, Members};
use crate::mtu::IPV6_MIN_MTU;
use crate::paths::{NoPath, Path, Paths};
use crate::settings::{Settings, key_len};
use crate::{Desired, KernelRoute, Local, Masquerade, Overlay};

/// Builds all tables.
pub(crate) fn build(local: &Local, settings: &Settings, members: Members<'_>, pod_mtu: u16) -> Desired {
    let Members {
        own,
        others,
        mut warnings,
    } = members;
    let mut tables = Tables {
        own: &own,
        routes: BTreeMap::new(),
        kernel: BTreeMap::new(),
        macs: BTreeMap::new(),
    };
    tables.pools(settings, local, pod_mtu);
    let paths = Paths {
        settings,
        local,
        own: &own,
        pod_mtu,
    };
    for other in &others {
        if let Err(why) = tables.other(settings, &paths, other) {
            warnings.push(format!("node {} is out of reach: {why}", other.name));
        }
        if let Some(router) = paths.direct_past_router(other) {
            warnings.push(format!(
                "node {} is past the router {router}, and the Network's routing is direct: pods here and there reach each other only if that router has routes to the blocks of both; use routing auto or vxlan",
                other.name
            ));
        }
    }
    tables.own(settings, pod_mtu);
    let Tables {
        routes, kernel, macs, ..
    } = tables;

    if own.blocks.is_empty() {
        warnings.push(format!(
            "node {} has no block of pod addresses, so no pod can start on it; see the operator's log, and add a pool to the Network if its pools are used up",
            own.name
        ));
    }
    let addresses = others.iter().flat_map(|o| &o.addresses);
    let node_addresses = addresses.chain(&own.addresses).copied().collect();
    let blocks = others.iter().flat_map(|o| &o.blocks).chain(&own.blocks);
    let outside_pools: BTreeSet<IpNet> = blocks.filter(|b| !settings.in_pools(b)).copied().collect();
    let pods: BTreeSet<IpNet> = settings.pools.iter().copied().chain(outside_pools).collect();
    let cluster = pods.iter().chain(&settings.node_cidrs).copied().collect();

    Desired {
        config: Config {
            node: own.index,
            overlay_ifindex: if settings.overlays() {
                local.overlay_ifindex.unwrap_or(0)
            } else {
                0
            },
            node_v4: own.primary(true).map_or(Addr::UNSPECIFIED, Addr::from),
            node_v6: own.primary(false).map_or(Addr::UNSPECIFIED, Addr::from),
            prefix_lens: prefix_lens(&routes),
            overlay_port: if settings.overlays() {
                settings.overlay_port.to_be()
            } else {
                0
            },
            flags: if local.services { Config::SERVICES } else { 0 },
        },
        routes,
        uplink_macs: macs,
        kernel_routes: kernel,
        overlay: settings.overlays().then(|| Overlay {
            port: settings.overlay_port,
            // With less, the kernel takes IPv6 from the device; routes say what the way carries.
            mtu: pod_mtu.max(IPV6_MIN_MTU),
            mac: overlay_mac(own.index),
        }),
        masquerade: Masquerade { pods, cluster },
        blocks: own.blocks,
        addresses: own.addresses,
        node_addresses,
        pod_mtu,
        warnings,
    }
}

struct Tables<'a> {
    own: &'a Member<'a>,
    routes: BTreeMap<RouteKey, Route>,
    kernel: BTreeMap<IpNet, KernelRoute>,
    macs: BTreeMap<MacKey, u32>,
}

impl Tables<'_> {
    /// The kernel's routes of whole pools: into the overlay, or nowhere. More specific ones follow.
    fn pools(&mut self, settings: &Settings, local: &Local, pod_mtu: u16) {
        for &pool in &settings.pools {
            let route = if !settings.overlays() {
                KernelRoute::Unreachable
            } else if local.overlay_ifindex.is_some() {
                KernelRoute::Overlay {
                    source: self.source(&pool),
                    mtu: pod_mtu,
                }
            } else {
                continue;
            };
            self.kernel.insert(pool, route);
        }
    }

    /// This node's own blocks and addresses, and those of Services, which are on every node. The kernel has a
    /// route for each pod; the rest of a block is nowhere.
    fn own(&mut self, settings: &Settings, pod_mtu: u16) {
        let row = |kind: RouteKind| Route {
            node: self.own.index,
            kind: kind as u8,
            way: Way::Local as u8,
            mtu: pod_mtu,
            ..Route::default()
        };
        for &block in &self.own.blocks {
            self.routes.insert(key(block), row(RouteKind::Pods));
            self.kernel.insert(block, KernelRoute::Unreachable);
        }
        for &address in &self.own.addresses {
            let flags = if self.takes_node_ports(settings, address) {
                Route::NODE_PORTS
            } else {
                0
            };
            let row = Route {
                flags,
                ..row(RouteKind::Node)
            };
            self.routes.insert(key(address.into()), row);
        }
        for &cidr in &settings.service_cidrs {
            self.routes.insert(key(cidr), row(RouteKind::Services));
        }
    }

    /// Whether this address of the node's own takes node ports.
    fn takes_node_ports(&self, settings: &Settings, address: IpAddr) -> bool {
        match &settings.node_port_addresses[..] {
            [] => self.own.primary(address.is_ipv4()) == Some(address),
            ranges => ranges.iter().any(|r| r.contains(&address)),
        }
    }

    /// Another node's blocks and addresses. The first reason why some cannot be reached is returned
    /// after all that can be are in.
    fn other(&mut self, settings: &Settings, paths: &Paths<'_>, other: &Member<'_>) -> Result<(), String> {
        let mut broken = None;
        let mut path_of = |v4: bool| match paths.find(other, v4) {
            Ok(path) => Some(path),
            Err(NoPath::NotYet) => None,
            Err(NoPath::Broken(why)) => {
                broken.get_or_insert(why);
                None
            }
        };
        let (path_v4, path_v6) = (path_of(true), path_of(false));
        let path = |v4: bool| if v4 { path_v4 } else { path_v6 };
        for &block in &other.blocks {
            let v4 = block.addr().is_ipv4();
            let Some(path) = path(v4) else { continue };
            self.routes
                .insert(key(block), path.row(other.index, RouteKind::Pods));
            // The pool's route does for most of what travels in the overlay. Not past a smaller MTU: the
            // stack cuts packets by its routes, and the overlay device could only drop them.
            if !path.is_plain_overlay(paths.pod_mtu) || !settings.in_pools(&block) {
                let route = path.kernel_route(v4, self.source(&block));
                self.kernel.extend(route.map(|r| (block, r)));
            }
        }
        for &address in &other.addresses {
            if let Some(path) = path(address.is_ipv4()) {
                self.routes
                    .insert(key(address.into()), path.row(other.index, RouteKind::Node));
            }
        }
        if [path_v4, path_v6]
            .iter()
            .flatten()
            .any(|p| matches!(p, Path::Direct { .. }))
        {
            let keys = other.uplink_macs.iter().map(|&mac| MacKey {
                node: other.index,
                mac,
                pad: [0; 2],
            });
            self.macs.extend(keys.map(|key| (key, 1)));
        }
        broken.map_or(Ok(()), Err)
    }

    /// The source of this node's own packets to `net`.
    fn source(&self, net: &IpNet) -> Option<IpAddr> {
        self.own.primary(net.addr().is_ipv4())
    }
}

/// The key of a prefix.
fn key(net: IpNet) -> RouteKey {
    RouteKey {
        prefix_len: key_len(&net, net.prefix_len()).into(),
        addr: net.network().into(),
    }
}

/// The prefix lengths in use: first those of pods, of which most packets are, the most frequent first.
fn prefix_lens(routes: &BTreeMap<RouteKey, Route>) -> [u8; MAX_BLOCK_SIZES] {
    let mut uses: BTreeMap<u32, usize> = BTreeMap::new();
    for (key, route) in routes {
        *uses.entry(key.prefix_len).or_default() += usize::from(route.kind == RouteKind::Pods as u8);
    }
    let mut lens: Vec<(u32, usize)> = uses.into_iter().collect();
    lens.sort_by_key(|&(len, pods)| (std::cmp::Reverse(pods), std::cmp::Reverse(len)));
    let mut out = [0; MAX_BLOCK_SIZES];
    for (slot, (len, _)) in out.iter_mut().zip(lens) {
        *slot = len as u8;
    }
    out
}

/// A locally administered MAC address of a node's own.
fn overlay_mac(index: u32) -> [u8; 6] {
    let [_, a, b, c] = index.to_be_bytes();
    [0x02, 0x74, 0x76, a, b, c]
}
