//! What a pod sends.

use aya_ebpf::{EbpfContext as _, macros::classifier, programs::TcContext};
use tombolo_abi::{Endpoint, Hook, Outcome, RouteKind};

use super::to_stack;
use crate::{
    counters::counted,
    deliver::{Entry, deliver},
    fib,
    forward::forward,
    parse::Packet,
    policy,
    resolve::Place,
    services::{self, Client},
    skb::Skb,
    spoof,
    tracking::Tracking,
    tunnel,
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
    let tracking = Tracking::begin()?;
    let place = services::place(skb, &packet, Client::Pod, tracking)?;
    policy::egress(&packet)?;
    match place {
        // The next filter at the link is somebody else's, and then the stack has the same ways.
        Place::Endpoint(_) | Place::Remote(_) if sender.flags & Endpoint::SLOW_EGRESS != 0 => {
            to_stack(skb, &packet, &tracking.to)
        }
        Place::Endpoint(endpoint) => deliver(skb, &packet, &tracking.to, endpoint, Entry::Forwarded),
        // What answers from this node's own address goes as what the node sends itself.
        Place::Remote(route) if tracking.to.is_reply() && route.kind == RouteKind::Node as u8 => {
            fib::send(skb, &packet, &tracking.to)
        }
        Place::Remote(route) => forward(skb, &packet, &tracking.to, route),
        Place::OwnNode => to_stack(skb, &packet, &tracking.to),
        Place::Services => Err(services::unknown(skb, &packet)),
        // Never forwarded: the default route would bring it back.
        Place::OwnBlock => Err(Outcome::UnknownEndpoint.into()),
        Place::Outside if tracking.to.is_reply() => fib::send(skb, &packet, &tracking.to),
        Place::Outside if spoof::is_routable(tracking.to.destination(&packet)) => {
            tunnel::check(skb, &packet)?;
            // The stack counts the hop, routes and masquerades.
            to_stack(skb, &packet, &tracking.to)
        }
        Place::Outside => Err(Outcome::NotRoutable.into()),
    }
}
