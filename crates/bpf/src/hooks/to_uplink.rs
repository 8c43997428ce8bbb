//! What goes out to the wire: the last look at what leaves.

use aya_ebpf::{EbpfContext as _, macros::classifier, programs::TcContext};
use tombolo_abi::{Hook, Outcome, RouteKind, Way};

use crate::{
    counters::counted,
    forward::send,
    mtu,
    parse::Packet,
    resolve::{self, Place, resolve},
    services,
    skb::Skb,
    translate::Translation,
    verdict::Verdict,
};

/// Egress of an uplink.
#[classifier]
pub fn to_uplink(context: TcContext) -> i32 {
    counted(Hook::ToUplink, Skb::new(context.as_ptr().cast()), stages)
}

#[inline(always)]
fn stages(skb: Skb) -> Result<Verdict, Verdict> {
    // A program has sent it: unencapsulated, or by way of the overlay device.
    if skb.is_resolved() {
        return Ok(Verdict::pass(Outcome::Routed));
    }
    let Ok(packet) = Packet::parse(skb) else {
        return Ok(Verdict::pass(Outcome::NotOurs));
    };
    if services::stack_answers(skb, &packet)? {
        return Ok(Verdict::pass(Outcome::Routed));
    }
    match resolve(&packet.destination) {
        // The slow path of a pod to another node: the stack's route there is the underlay's, which
        // need not carry the addresses of pods.
        Place::Remote(route) if route.way == Way::Overlay as u8 && is_of_own_pod(&packet) => {
            mtu::check(skb, &packet, &Translation::NONE, route.mtu, false)?;
            send(skb, packet.v4, route)
        }
        Place::Remote(_) => Ok(Verdict::pass(Outcome::Routed)),
        // Never forwarded: nobody out there has it.
        Place::Services => Err(Outcome::NoService.into()),
        // Own addresses do not leave by an uplink; where they do, it is none of ours to judge.
        Place::Endpoint(_) | Place::OwnBlock | Place::OwnNode | Place::Outside => {
            if is_of_own_pod(&packet) {
                Err(Outcome::Unmasqueraded.into())
            } else {
                Ok(Verdict::pass(Outcome::NotOurs))
            }
        }
    }
}

/// Whether the source is of a block of this node.
#[inline(always)]
fn is_of_own_pod(packet: &Packet) -> bool {
    resolve::route(&packet.source)
        .is_some_and(|source| source.kind == RouteKind::Pods as u8 && source.way == Way::Local as u8)
}
