//! What a pod sends.

use aya_ebpf::{EbpfContext as _, macros::classifier, programs::TcContext};
use tombolo_abi::{Endpoint, Hook, Outcome};

use super::to_stack;
use crate::{
    counters::counted,
    deliver::{Entry, deliver},
    flows,
    forward::forward,
    parse::Packet,
    policy,
    resolve::{Place, resolve},
    skb::Skb,
    spoof, tunnel,
    verdict::Verdict,
};

/// Ingress of the host side of a pod's link.
#[classifier]
pub fn from_pod(context: TcContext) -> i32 {
    counted(Hook::FromPod, Skb::new(context.as_ptr().cast()), stages)
}

#[inline(always)]
fn stages(skb: Skb) -> Result<Verdict, Verdict> {
    let packet = Packet::parse(skb)?;
    let sender = spoof::check(skb, &packet)?;
    flows::track(skb, &packet)?;
    policy::egress(&packet)?;
    match resolve(&packet.destination) {
        // The next filter at the link is somebody else's, and then the stack has the same ways.
        Place::Endpoint(_) | Place::Remote(_) if sender.flags & Endpoint::SLOW_EGRESS != 0 => {
            Ok(to_stack(skb))
        }
        Place::Endpoint(endpoint) => deliver(skb, &packet, endpoint, Entry::Forwarded),
        Place::Remote(route) => forward(skb, &packet, route),
        Place::OwnNode => Ok(to_stack(skb)),
        // Never forwarded: the default route would bring it back.
        Place::OwnBlock => Err(Outcome::UnknownEndpoint.into()),
        Place::Outside if spoof::is_routable(&packet.destination) => {
            tunnel::check(skb, &packet)?;
            // The stack counts the hop, routes and masquerades.
            Ok(to_stack(skb))
        }
        Place::Outside => Err(Outcome::NotRoutable.into()),
    }
}
