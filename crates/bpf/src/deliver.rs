//! The one way into a pod, from whichever hook.

use aya_ebpf::helpers::{bpf_redirect, bpf_redirect_peer};
use tombolo_abi::{Endpoint, GATEWAY_MAC, Outcome};

use crate::{mtu, parse::Packet, policy, skb::Skb, translate::Translation, ttl, verdict::Verdict};

/// How a packet that is for a pod enters its link.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// A program takes it there: it forwards, so it counts the hop and minds the MTU.
    Forwarded,
    /// The node's stack has put it on the link, and has done all that.
    FromStack,
}

/// Delivers a packet to a pod of this node, as what it becomes.
#[inline(always)]
pub fn deliver(
    skb: Skb,
    packet: &Packet,
    to: &Translation,
    endpoint: &Endpoint,
    entry: Entry,
) -> Result<Verdict, Verdict> {
    if entry == Entry::Forwarded {
        ttl::check(skb, packet)?;
        mtu::check(skb, packet, to, endpoint.mtu, true)?;
    }
    // What takes the slow path crosses `to_pod`, where the policy is asked.
    let slow = entry == Entry::Forwarded && endpoint.flags & Endpoint::SLOW_INGRESS != 0;
    if !slow {
        policy::ingress(packet)?;
    }
    to.apply(skb, packet)?;
    if entry == Entry::FromStack {
        return Ok(Verdict::pass(Outcome::Delivered));
    }
    ttl::decrement(skb, packet)?;
    if !skb.set_macs(endpoint.mac, GATEWAY_MAC) {
        return Err(Outcome::Malformed.into());
    }
    let returned = if slow {
        // Out by the link's host side: through whatever somebody else has put there.
        // SAFETY: a helper call.
        unsafe { bpf_redirect(endpoint.ifindex, 0) }
    } else {
        // Straight into the pod's namespace, without a queue between.
        // SAFETY: a helper call.
        unsafe { bpf_redirect_peer(endpoint.ifindex, 0) }
    };
    Ok(Verdict::redirect(Outcome::Delivered, returned))
}
