//! What will be encapsulated.

use aya_ebpf::{EbpfContext as _, macros::classifier, programs::TcContext};
use tombolo_abi::{Hook, Outcome, Way};

use crate::{
    counters::counted,
    icmp::{self, Error},
    mtu,
    overlay::set_tunnel_key,
    parse::Packet,
    resolve::{Place, resolve},
    services,
    skb::Skb,
    spoof,
    verdict::Verdict,
};

/// Egress of the overlay device.
#[classifier]
pub fn to_overlay(context: TcContext) -> i32 {
    counted(Hook::ToOverlay, Skb::new(context.as_ptr().cast()), stages)
}

#[inline(always)]
fn stages(skb: Skb) -> Result<Verdict, Verdict> {
    // A program has set the tunnel key.
    if skb.is_resolved() {
        return Ok(Verdict::pass(Outcome::Encapsulated));
    }
    let packet = Packet::parse(skb)?;
    services::stack_answers(skb, &packet)?;
    match resolve(&packet.destination) {
        Place::Remote(route) if route.way == Way::Overlay as u8 => {
            let mtu = u32::from(route.mtu);
            // The stack has had its chance to cut it: its routes have to know the MTU.
            if packet.size > mtu && mtu::segment(skb, &packet) > mtu {
                return Err(icmp::answer(skb, &packet, Error::TooBig { mtu }, Outcome::TooBig));
            }
            set_tunnel_key(skb, route)?;
            skb.set_resolved();
            Ok(Verdict::pass(Outcome::Encapsulated))
        }
        Place::OwnBlock => Err(Outcome::UnknownEndpoint.into()),
        _ if spoof::is_routable(&packet.destination) => Err(Outcome::NoRoute.into()),
        // What every stack says to its links.
        _ => Err(Outcome::NotRoutable.into()),
    }
}
