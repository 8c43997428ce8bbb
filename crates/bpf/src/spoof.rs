//! Anti-spoofing: what a pod may claim to be, and to say.

use tombolo_abi::{Addr, Endpoint, Outcome};

use crate::{
    maps::ENDPOINTS,
    parse::{Packet, protocol},
    skb::Skb,
};

/// ICMPv6 types of neighbour discovery, from router solicitations to redirects (RFC 4861, section 4).
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const REDIRECT: u8 = 137;

/// Holds a pod to its own address, and keeps it from posing as a router or a neighbour; gives the
/// sender.
///
/// # Errors
/// In this order, so that each packet has one fitting reason: `Malformed`: an ICMPv6 packet without
/// a type; `RouterAdvertisement`, whatever its addresses; `NotRoutable`: neighbour discovery, or a
/// destination that no packet reaches from a pod, whoever sent it (what every pod's own stack says to
/// its link ends here, so that `SpoofedSource` stays a sign of something wrong); `SpoofedSource`.
#[inline(always)]
pub fn check(skb: Skb, packet: &Packet) -> Result<&'static Endpoint, Outcome> {
    if packet.protocol == protocol::ICMPV6 && !packet.v4 && !packet.is_later_fragment() {
        match skb.load::<u8>(packet.transport) {
            Some(ROUTER_ADVERTISEMENT) => return Err(Outcome::RouterAdvertisement),
            // To a single address, too: the node's stack would believe it.
            Some(ROUTER_SOLICITATION..=REDIRECT) => return Err(Outcome::NotRoutable),
            Some(_) => {}
            None => return Err(Outcome::Malformed),
        }
    }
    // SAFETY: the entry is read at once. Should it be given to another address meanwhile, the
    // packet is judged as of a moment later.
    if let Some(endpoint) = unsafe { ENDPOINTS.get(packet.source) }
        && endpoint.ifindex == skb.ifindex()
    {
        // Tables hold routable addresses only: those of the destination are looked at where it is
        // found in none of them.
        return Ok(endpoint);
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
