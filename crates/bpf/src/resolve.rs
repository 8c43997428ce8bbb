//! From an address to where it is.
//!
//! An exact hash for pods of this node; then one hash look-up for each block size in use. Tables
//! grow with nodes and blocks, not with the pods of the cluster.

use tombolo_abi::{Addr, Config, Endpoint, Route, RouteKey, RouteKind, Way};

use crate::maps::{CONFIG, ENDPOINTS, ROUTES};

/// The mask of every prefix length, and of what one byte could hold beyond. Computing one takes a dozen branches, which
/// the verifier follows for every block size at every look-up.
static MASKS: [Addr; 256] = {
    let mut masks = [Addr::UNSPECIFIED; 256];
    let mut len = 0;
    while len < masks.len() {
        masks[len] = Addr([u32::MAX; 4]).masked(len as u32);
        len += 1;
    }
    masks
};

/// Where an address is.
pub enum Place {
    /// A pod of this node.
    Endpoint(&'static Endpoint),
    /// An own block, in which no pod has the address.
    OwnBlock,
    /// This node itself.
    OwnNode,
    /// An address of Services.
    Services,
    /// Another node, or a pod there.
    Remote(&'static Route),
    /// Outside of the cluster.
    Outside,
}

/// Finds an address.
#[inline(always)]
pub fn resolve(address: &Addr) -> Place {
    if let Some(endpoint) = endpoint(address) {
        return Place::Endpoint(endpoint);
    }
    match route(address) {
        None => Place::Outside,
        Some(route) if route.way != Way::Local as u8 => Place::Remote(route),
        Some(route) if route.kind == RouteKind::Pods as u8 => Place::OwnBlock,
        Some(route) if route.kind == RouteKind::Services as u8 => Place::Services,
        Some(_) => Place::OwnNode,
    }
}

impl Place {
    /// Whether a Service may have the address: no pod does.
    #[inline(always)]
    pub fn may_be_a_service(&self) -> bool {
        match self {
            Self::Endpoint(_) | Self::OwnBlock => false,
            Self::Remote(route) => route.kind != RouteKind::Pods as u8,
            Self::Services | Self::OwnNode | Self::Outside => true,
        }
    }
}

/// Whether a prefix is this node's.
#[inline(always)]
pub const fn is_local(route: &Route) -> bool {
    route.way == Way::Local as u8
}

/// The pod of this node that has an address.
#[inline(always)]
pub fn endpoint(address: &Addr) -> Option<&'static Endpoint> {
    // SAFETY: the memory stays mapped for the whole run of a program. Should the entry be given to
    // another address meanwhile, one packet is misled to a pod of the same node, which refuses it.
    unsafe { ENDPOINTS.get(*address) }
}

/// The block or node address that covers an address. Out of line, for the room on the stack.
#[inline(never)]
pub fn route(address: &Addr) -> Option<&'static Route> {
    for prefix_len in config()?.prefix_lens {
        if prefix_len == 0 {
            break;
        }
        let Addr(mask) = MASKS[usize::from(prefix_len)];
        let Addr(words) = address;
        let block = Addr([
            words[0] & mask[0],
            words[1] & mask[1],
            words[2] & mask[2],
            words[3] & mask[3],
        ]);
        if let Some(route) = exact(u32::from(prefix_len), block) {
            return Some(route);
        }
    }
    None
}

/// The node address that is exactly this.
#[inline(always)]
pub fn node(address: &Addr) -> Option<&'static Route> {
    exact(128, *address).filter(|route| route.kind == RouteKind::Node as u8)
}

/// Whether this is the address that the node is known by first: no look-up.
#[inline(always)]
pub fn is_node_primary(address: &Addr) -> bool {
    config().is_some_and(|config| *address == config.node_v4 || *address == config.node_v6)
}

/// The node's configuration. `None` never happens: an array has its entries.
#[inline(always)]
pub fn config() -> Option<&'static Config> {
    CONFIG.get(0)
}

#[inline(always)]
fn exact(prefix_len: u32, addr: Addr) -> Option<&'static Route> {
    // SAFETY: as in `endpoint`; routes change with nodes, not with pods.
    unsafe { ROUTES.get(RouteKey { prefix_len, addr }) }
}
