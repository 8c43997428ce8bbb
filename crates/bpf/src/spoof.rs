//! Anti-spoofing: what a pod may claim to be, and to say.

use tombolo_abi::{Addr, Outcome};

use crate::{
    maps::ENDPOINTS,
    parse::{Packet, protocol},
    skb::Skb,
};

/// ICMPv6 type of router advertisements (RFC 4861, section 4.2).
const ROUTER_ADVERTISEMENT: u8 = 134;

/// Holds a pod to its own address, and keeps it from posing as a router.
///
/// # Errors
/// In this order, so that each packet has one fitting reason: `Malformed`: an ICMPv6 packet without
/// a type; `RouterAdvertisement`, whatever its addresses; `NotRoutable`: the destination is one that
/// no packet reaches from a pod, whoever sent it (neighbour discovery and multicast listener reports
/// end here, so that `SpoofedSource` stays a sign of something wrong); `SpoofedSource`.
#[inline(always)]
pub fn check(skb: Skb, packet: &Packet) -> Result<(), Outcome> {
    if packet.protocol == protocol::ICMPV6 && !packet.v4 && !packet.later_fragment {
        match skb.load::<u8>(packet.transport) {
            Some(ROUTER_ADVERTISEMENT) => return Err(Outcome::RouterAdvertisement),
            Some(_) => {}
            None => return Err(Outcome::Malformed),
        }
    }
    // SAFETY: the entry is read at once. Should it be given to another address meanwhile, the
    // packet is judged as of a moment later.
    if unsafe { ENDPOINTS.get(packet.source) }.is_some_and(|endpoint| endpoint.ifindex == skb.ifindex()) {
        // Tables hold routable addresses only: those of the destination are looked at where it is
        // found in none of them.
        return Ok(());
    }
    Err(if is_routable(&packet.destination) {
        Outcome::SpoofedSource
    } else {
        Outcome::NotRoutable
    })
}

/// Whether an address leads anywhere past a link. Not so: multicast, broadcast and reserved,
/// loopback, link-local, unspecified and "this network" (RFC 6890).
#[inline(always)]
pub fn is_routable(address: &Addr) -> bool {
    let Addr([first, second, third, last]) = *address;
    if address.is_v4() {
        let last = u32::from_be(last);
        let top = last >> 24;
        top != 0 && top != 127 && top < 224 && last >> 16 != 0xa9fe
    } else {
        let top = u32::from_be(first) >> 16;
        let loopback_or_unspecified =
            first == 0 && second == 0 && third == 0 && (last == 0 || last == 1_u32.to_be());
        !loopback_or_unspecified && top < 0xff00 && top & 0xffc0 != 0xfe80
    }
}
