//! The ways to other nodes.

use aya_ebpf::{
    bindings::{
        BPF_F_TUNINFO_IPV6, BPF_F_ZERO_CSUM_TX, bpf_redir_neigh, bpf_redir_neigh__bindgen_ty_1,
        bpf_tunnel_key, bpf_tunnel_key__bindgen_ty_1,
    },
    helpers::{bpf_redirect, bpf_redirect_neigh, bpf_skb_set_tunnel_key},
};
use tombolo_abi::{Addr, OVERLAY_VNI, Outcome, Route, RouteKind, Way};

use crate::{mtu, parse::Packet, skb::Skb, ttl, verdict::Verdict};

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;

/// Forwards a packet to another node, or a pod there: counts the hop, minds the MTU, sends.
#[inline(always)]
pub fn forward(skb: Skb, packet: &Packet, route: &Route) -> Result<Verdict, Verdict> {
    ttl::check(skb, packet)?;
    mtu::check(skb, packet, route.mtu, route.kind == RouteKind::Pods as u8)?;
    ttl::decrement(skb, packet)?;
    send(skb, packet.v4, route)
}

/// Sends a packet as it is.
#[inline(always)]
pub fn send(skb: Skb, v4: bool, route: &Route) -> Result<Verdict, Verdict> {
    skb.set_resolved();
    if route.way == Way::Overlay as u8 {
        set_tunnel_key(skb, route)?;
        // SAFETY: a helper call.
        let returned = unsafe { bpf_redirect(route.ifindex, 0) };
        Ok(Verdict::redirect(Outcome::Encapsulated, returned))
    } else {
        send_direct(v4, route)
    }
}

/// Out of the uplink, to the next hop that the table names. The kernel's routes are not asked: who
/// wrote the table knew them, and writes it again when they change.
#[inline(always)]
fn send_direct(v4: bool, route: &Route) -> Result<Verdict, Verdict> {
    let Addr(words) = route.next_hop;
    let mut next_hop = if route.next_hop.is_v4() {
        if !v4 {
            // The kernel knows IPv4 over an IPv6 next hop (RFC 8950), but not the reverse.
            return Err(Outcome::NoRoute.into());
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
    // SAFETY: the next hop is valid for the call, and has the length that is passed.
    let returned = unsafe {
        bpf_redirect_neigh(
            route.ifindex,
            &raw mut next_hop,
            size_of::<bpf_redir_neigh>() as i32,
            0,
        )
    };
    Ok(Verdict::redirect(Outcome::Routed, returned))
}

/// Tells the overlay device where to send the packet.
#[inline(always)]
pub fn set_tunnel_key(skb: Skb, route: &Route) -> Result<(), Outcome> {
    // SAFETY: all zero is a valid key.
    let mut key: bpf_tunnel_key = unsafe { core::mem::zeroed() };
    let Addr(words) = route.next_hop;
    key.tunnel_id = OVERLAY_VNI;
    let flags = if route.next_hop.is_v4() {
        key.__bindgen_anon_1 = bpf_tunnel_key__bindgen_ty_1 {
            remote_ipv4: u32::from_be(words[3]),
        };
        // The IPv4 header has a checksum of its own, and the inner packet another (RFC 7348, section 5).
        BPF_F_ZERO_CSUM_TX
    } else {
        // Nothing but the UDP checksum protects IPv6 addresses (RFC 8200, section 8.1).
        key.__bindgen_anon_1 = bpf_tunnel_key__bindgen_ty_1 { remote_ipv6: words };
        BPF_F_TUNINFO_IPV6
    };
    // SAFETY: the key is valid for the call, and has the length that is passed.
    match unsafe {
        bpf_skb_set_tunnel_key(
            skb.as_ptr(),
            &raw mut key,
            size_of::<bpf_tunnel_key>() as u32,
            u64::from(flags),
        )
    } {
        0 => Ok(()),
        _ => Err(Outcome::NoRoute),
    }
}
