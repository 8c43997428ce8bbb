//! The ways to other nodes.

use aya_ebpf::{
    bindings::{bpf_redir_neigh, bpf_redir_neigh__bindgen_ty_1},
    helpers::bpf_redirect_neigh,
};
use tombolo_abi::{Addr, Outcome, Route, RouteKind, Way};

use crate::{mtu, overlay, parse::Packet, skb::Skb, translate::Translation, ttl, verdict::Verdict};

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;

/// Forwards a packet to another node, or a pod there, as what it becomes: counts the hop, minds the MTU, sends.
#[inline(always)]
pub fn forward(skb: Skb, packet: &Packet, to: &Translation, route: &Route) -> Result<Verdict, Verdict> {
    ttl::check(skb, packet)?;
    // With this node's own source, the stack would take it for forged.
    let stack_has_way = route.kind == RouteKind::Pods as u8 && !to.is_of_node();
    mtu::check(skb, packet, to, route.mtu, stack_has_way)?;
    to.apply(skb, packet)?;
    ttl::decrement(skb, packet)?;
    send(skb, packet.v4, route)
}

/// Sends a packet as it is.
#[inline(always)]
pub fn send(skb: Skb, v4: bool, route: &Route) -> Result<Verdict, Verdict> {
    skb.set_resolved();
    if route.way == Way::Overlay as u8 {
        overlay::send(skb, v4, route)
    } else {
        Ok(to_next_hop(v4, route.ifindex, &route.next_hop, Outcome::Routed))
    }
}

/// Out of an uplink, to the next hop that the table names. The kernel's routes are not asked: who wrote
/// the table knew them, and writes it again when they change.
#[inline(always)]
pub fn to_next_hop(v4: bool, ifindex: u32, next_hop: &Addr, outcome: Outcome) -> Verdict {
    let Addr(words) = *next_hop;
    let mut next_hop = if next_hop.is_v4() {
        if !v4 {
            // The kernel knows IPv4 over an IPv6 next hop (RFC 8950), but not the reverse.
            return Outcome::NoRoute.into();
        }
        bpf_redir_neigh {
            nh_family: AF_INET,
            __bindgen_anon_1: bpf_redir_neigh__bindgen_ty_1 {
                ipv6_nh: [words[3], 0, 0, 0],
            },
        }
    } else {
        bpf_redir_neigh {
            nh_family: AF_INET6,
            __bindgen_anon_1: bpf_redir_neigh__bindgen_ty_1 { ipv6_nh: words },
        }
    };
    let len = size_of::<bpf_redir_neigh>() as i32;
    // SAFETY: the next hop is valid for the call, and has the length that is passed.
    let returned = unsafe { bpf_redirect_neigh(ifindex, &raw mut next_hop, len, 0) };
    Verdict::redirect(outcome, returned)
}
