//! Time to live and hop limit: every program that forwards counts down.

use tombolo_abi::Outcome;

use crate::{
    icmp::{self, Error},
    parse::{Ipv4Header, Ipv6Header, Packet},
    skb::{ETH_LEN, Skb},
    verdict::Verdict,
};

/// Whether the packet may go on; if not, its sender is told.
///
/// # Errors
/// `TtlExceeded`, answered with ICMP time exceeded.
#[inline(always)]
pub fn check(skb: Skb, packet: &Packet) -> Result<(), Verdict> {
    if packet.ttl <= 1 {
        return Err(icmp::answer(
            skb,
            packet,
            Error::TimeExceeded,
            Outcome::TtlExceeded,
        ));
    }
    Ok(())
}

/// Counts down. The packet must have passed [`check`].
#[inline(always)]
pub fn decrement(skb: Skb, packet: &Packet) -> Result<(), Outcome> {
    if packet.v4 {
        let header = skb.at::<Ipv4Header>(ETH_LEN).ok_or(Outcome::Malformed)?;
        // SAFETY: `at` has checked the bounds.
        let ip = unsafe { &mut *header };
        ip.ttl = packet.ttl - 1;
        // The checksum follows (RFC 1624); so a sum over the whole packet stays as it was.
        let sum = u32::from(ip.checksum) + u32::from(0x0100_u16.to_be());
        ip.checksum = (sum + u32::from(sum >= 0xffff)) as u16;
    } else {
        let header = skb.at::<Ipv6Header>(ETH_LEN).ok_or(Outcome::Malformed)?;
        // SAFETY: `at` has checked the bounds.
        unsafe { (*header).hop_limit = packet.ttl - 1 };
        // The hop limit is the low byte of a big-endian word that became one less.
        skb.update_checksum(!u32::from(1_u16.to_be()));
    }
    Ok(())
}
