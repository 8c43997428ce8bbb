//! What was decapsulated.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{__sk_buff, BPF_F_TUNINFO_IPV6, bpf_tunnel_key},
    helpers::bpf_skb_get_tunnel_key,
    macros::classifier,
    programs::TcContext,
};
use tombolo_abi::{Addr, Hook, OVERLAY_VNI, Outcome, Route};

use super::to_stack;
use crate::{
    counters::counted,
    deliver::{Entry, deliver},
    parse::Packet,
    resolve::{self, Place, resolve},
    services,
    skb::Skb,
    tracking::Tracking,
    verdict::Verdict,
};

/// Ingress of the overlay device.
#[classifier]
pub fn from_overlay(context: TcContext) -> i32 {
    counted(Hook::FromOverlay, Skb::new(context.as_ptr().cast()), stages)
}

#[inline(always)]
fn stages(skb: Skb) -> Result<Verdict, Verdict> {
    let sender = node_of(overlay_sender(skb.as_ptr()))?;
    let packet = Packet::parse(skb)?;
    // A node speaks for itself and its pods only.
    if resolve::route(&packet.source).is_none_or(|route| route.node != sender) {
        return Err(Outcome::UnknownNode.into());
    }
    let tracking = Tracking::begin()?;
    // Inner frames carry the addresses of the pod's link, not those of this device.
    skb.set_for_host();
    match resolve(&packet.destination) {
        Place::Endpoint(endpoint) => {
            services::goes_on(skb, &packet, tracking)?;
            deliver(skb, &packet, &tracking.to, endpoint, Entry::Forwarded)
        }
        Place::OwnNode => match services::arrived(skb, &packet, tracking, || Ok(()))? {
            Some(verdict) => Ok(verdict),
            None => to_stack(skb, &packet, &tracking.to),
        },
        Place::OwnBlock => Err(Outcome::UnknownEndpoint.into()),
        // Never forwarded: two nodes that each take the other for the owner would play ball.
        Place::Remote(_) | Place::Services | Place::Outside => Err(Outcome::NotLocal.into()),
    }
}

/// The node, or the reason that there is none, that [`overlay_sender`] returns.
#[inline(always)]
fn node_of(returned: i64) -> Result<u32, Outcome> {
    if returned >= 0 {
        return Ok(returned as u32);
    }
    Err(if returned == -(Outcome::WrongVni as i64) {
        Outcome::WrongVni
    } else {
        Outcome::UnknownNode
    })
}

/// The index of the node that encapsulated the packet, or the negative of an outcome's number. Public by name, for the
/// room on the stack.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn overlay_sender(context: *mut __sk_buff) -> i64 {
    match sender(Skb::new(context)) {
        Ok(route) => i64::from(route.node),
        Err(reason) => -(reason as i64),
    }
}

/// The node that encapsulated the packet.
///
/// # Errors
/// `WrongVni`; `UnknownNode`: the outer source is no node's address, or there is none.
#[inline(always)]
fn sender(skb: Skb) -> Result<&'static Route, Outcome> {
    // SAFETY: all zero is a valid key.
    let mut key: bpf_tunnel_key = unsafe { core::mem::zeroed() };
    let outer = if get_tunnel_key(skb, &mut key, 0) {
        // SAFETY: the helper said that the outer packet is IPv4; it gives the address in host order.
        Addr::from_v4_word(unsafe { key.__bindgen_anon_1.remote_ipv4 }.to_be())
    } else if get_tunnel_key(skb, &mut key, BPF_F_TUNINFO_IPV6) {
        // SAFETY: the helper said that the outer packet is IPv6.
        Addr(unsafe { key.__bindgen_anon_1.remote_ipv6 })
    } else {
        return Err(Outcome::UnknownNode);
    };
    if key.tunnel_id != OVERLAY_VNI {
        return Err(Outcome::WrongVni);
    }
    resolve::node(&outer).ok_or(Outcome::UnknownNode)
}

/// Reads the key of a packet whose outer family is that of the flags.
#[inline(always)]
fn get_tunnel_key(skb: Skb, key: &mut bpf_tunnel_key, flags: u32) -> bool {
    let len = size_of::<bpf_tunnel_key>() as u32;
    // SAFETY: the key is valid for the call, and has the length that is passed.
    unsafe { bpf_skb_get_tunnel_key(skb.as_ptr(), key, len, u64::from(flags)) == 0 }
}
