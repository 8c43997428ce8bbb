//! Refusing a TCP connection (RFC 9293, section 3.10.7.1).

use aya_ebpf::bindings::__sk_buff;
use tombolo_abi::Outcome;

use crate::{
    answer::{self, BODY, CUT, folded, sum},
    parse::{Packet, protocol},
    skb::{ETH_LEN, Skb},
    spoof,
    transport::tcp,
    verdict::Verdict,
};

/// Length of a TCP header without options.
const TCP_LEN: u32 = 20;

/// A TCP header, as far as it is needed.
#[repr(C)]
#[derive(Clone, Copy)]
struct Header {
    ports: [u16; 2],
    sequence: u32,
    acknowledgement: u32,
    /// Upper half: length in words.
    offset: u8,
    flags: u8,
}

/// Resets the connection of a packet, in the name of whom it was sent to; the packet is dropped for `reason`.
#[inline(always)]
pub fn reset(skb: Skb, packet: &Packet, reason: Outcome) -> Verdict {
    Verdict {
        action: answer::send(skb, packet, tcp_reset(skb.as_ptr(), packet)),
        outcome: reason,
    }
}

/// Public by name, so that the verifier looks at it once. Returns whether there is an answer.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tcp_reset(context: *mut __sk_buff, packet: *const Packet) -> i32 {
    // SAFETY: it is called with a reference. The verifier, which looks at it alone, wants it tested.
    match unsafe { packet.as_ref() } {
        Some(packet) => i32::from(turn_back(Skb::new(context), packet).is_some()),
        None => 0,
    }
}

#[inline(always)]
fn turn_back(skb: Skb, packet: &Packet) -> Option<()> {
    if packet.is_later_fragment() || packet.transport >= CUT || !spoof::is_routable(&packet.source) {
        return None;
    }
    let header: Header = skb.load(packet.transport)?;
    if header.flags & tcp::RST != 0 {
        return None;
    }
    let (sequence, acknowledgement, flags) = if header.flags & tcp::ACK != 0 {
        (header.acknowledgement, 0, tcp::RST)
    } else {
        let headers = packet.transport - ETH_LEN as u32 + u32::from(header.offset >> 4) * 4;
        let mut len = packet.size.saturating_sub(headers);
        len += u32::from(header.flags & tcp::SYN != 0) + u32::from(header.flags & tcp::FIN != 0);
        let next = u32::from_be(header.sequence).wrapping_add(len).to_be();
        (0, next, tcp::RST | tcp::ACK)
    };
    let scratch = answer::scratch()?;
    // SAFETY: all offsets lie within the scratch.
    unsafe {
        let body = scratch.add(BODY);
        body.cast::<[u16; 2]>()
            .write_unaligned([header.ports[1], header.ports[0]]);
        body.add(4).cast::<u32>().write_unaligned(sequence);
        body.add(8).cast::<u32>().write_unaligned(acknowledgement);
        body.add(12).cast::<[u8; 4]>().write([5 << 4, flags, 0, 0]);
        body.add(16).cast::<u32>().write_unaligned(0);
        let pseudo = if packet.v4 {
            answer::write_v4(
                scratch,
                packet,
                packet.destination.0[3],
                0,
                protocol::TCP,
                TCP_LEN,
            );
            pseudo_header_v4(packet)
        } else {
            answer::write_v6(scratch, packet, &packet.destination, protocol::TCP, TCP_LEN)
        };
        let total = sum(body, TCP_LEN, pseudo);
        body.add(16).cast::<u16>().write_unaligned(folded(total));
        answer::replace(skb, packet, scratch, TCP_LEN)
    }
}

/// The sum of the IPv4 pseudo-header (RFC 9293, section 3.1).
#[inline(always)]
fn pseudo_header_v4(packet: &Packet) -> u32 {
    let total = u64::from(packet.source.0[3])
        + u64::from(packet.destination.0[3])
        + u64::from((TCP_LEN + u32::from(protocol::TCP)).to_be());
    let total = (total & 0xffff_ffff) + (total >> 32);
    ((total & 0xffff_ffff) + (total >> 32)) as u32
}
