//! What goes out to the wire: the last look at what leaves.

use aya_ebpf::{EbpfContext as _, macros::classifier, programs::TcContext};
use tombolo_abi::{Hook, Outcome, RouteKind, Way};

use crate::{
    counters::counted,
    parse::Packet,
    resolve::{self, Place, resolve},
    skb::Skb,
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
    match resolve(&packet.destination) {
        Place::Remote(_) => Ok(Verdict::pass(Outcome::Routed)),
        // Own addresses do not leave by an uplink; where they do, it is none of ours to judge.
        Place::Endpoint(_) | Place::OwnBlock | Place::OwnNode | Place::Outside => {
            match resolve::route(&packet.source) {
                Some(source) if source.kind == RouteKind::Pods as u8 && source.way == Way::Local as u8 => {
                    Err(Outcome::Unmasqueraded.into())
                }
                _ => Ok(Verdict::pass(Outcome::NotOurs)),
            }
        }
    }
}
