//! The path's MTU: too large a packet is answered, or left to the stack where it may be cut.

use tombolo_abi::Outcome;

use crate::{
    icmp::{self, Error},
    parse::{Packet, protocol},
    resolve,
    skb::{ETH_LEN, Skb},
    translate::Translation,
    verdict::Verdict,
};

/// Length of a UDP header.
const UDP_LEN: u32 = 8;
/// Offset in a TCP header of the byte whose upper half is the header's length in words.
const TCP_DATA_OFFSET: u32 = 12;

/// Whether the packet fits; if not, its sender is told.
///
/// IPv4 that may be cut is left to the stack where `stack_has_way`: it fragments, which a program cannot.
/// To a node's own address it has no such way: its route there is the underlay's. Then the sender is
/// told, whatever it asked for; RFC 1191 has it lower its estimate of the path all the same.
///
/// # Errors
/// `TooBig`, answered with fragmentation needed or packet too big; `ToStack`.
#[inline(always)]
pub fn check(
    skb: Skb,
    packet: &Packet,
    to: &Translation,
    mtu: u16,
    stack_has_way: bool,
) -> Result<(), Verdict> {
    let stack_cuts = stack_has_way && !packet.is_never_cut();
    let fits = packet.size <= u32::from(mtu) || segment(skb, packet) <= u32::from(mtu);
    if fits && !(stack_cuts && may_have_larger_siblings(packet, to, mtu)) {
        return Ok(());
    }
    if stack_cuts {
        to.apply(skb, packet)?;
        skb.clear_resolved();
        return Err(Verdict::pass(Outcome::ToStack));
    }
    let mtu = u32::from(mtu);
    Err(icmp::answer(skb, packet, Error::TooBig { mtu }, Outcome::TooBig))
}

/// Whether other fragments of the same packet may be too large, so that the stack takes them. Then it
/// must have this one as well: where it tracks connections it puts packets together first, and would
/// wait for this one for ever.
#[inline(always)]
fn may_have_larger_siblings(packet: &Packet, to: &Translation, mtu: u16) -> bool {
    packet.is_fragment()
        && match resolve::endpoint(&packet.source) {
            Some(sender) => sender.mtu > mtu,
            // How much a client outside sends at once, nobody here knows.
            None => to.is_set() && to.flags & Translation::FROM_POD == 0,
        }
}

/// The largest packet on the wire that this one becomes, in bytes.
#[inline(always)]
pub fn segment(skb: Skb, packet: &Packet) -> u32 {
    let payload = skb.gso_size();
    if payload == 0 {
        return packet.size;
    }
    let transport_len = match packet.protocol {
        protocol::TCP => skb
            .load::<u8>(packet.transport + TCP_DATA_OFFSET)
            .map_or(0, |offset| u32::from(offset >> 4) * 4),
        // A tunnel inside of a pod: how long its inner headers are is not looked into. A segment
        // past the MTU by those is dropped by the device that it does not fit.
        _ => UDP_LEN,
    };
    packet.transport - ETH_LEN as u32 + transport_len + payload
}
