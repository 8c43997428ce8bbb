//! ICMP errors of routers and receivers: they quote the packet that they are about, which may have been translated.
//!
//! Whoever sent that packet knows it as it was before, so the error is translated on its way there, outside and inside
//! (RFC 5508, section 4). It goes the other way than the packet did: the row of the packets that answer says what becomes
//! of it, and, read backwards, what the quoted packet was.

use aya_ebpf::bindings::__sk_buff;
use tombolo_abi::FlowKey;

use crate::{
    flows,
    parse::{Ipv4Header, Ipv6Header, Packet, protocol},
    skb::Skb,
    tracking::Tracking,
    translate::{
        Ends, IPV4_ADDRESSES, IPV6_ADDRESSES, TCP_CHECKSUM, Translation, UDP_CHECKSUM, difference, folded,
        halves, port_difference,
    },
};

/// Bytes of an ICMP header, after which the quote begins.
const ICMP_LEN: u32 = 8;
/// Offset of the checksum in an ICMP header, and in an IPv4 header.
const ICMP_CHECKSUM: u32 = 2;
const IPV4_CHECKSUM: u32 = 10;

/// The quoted packet.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Quote {
    /// Its headers; `size` is not told.
    packet: Packet,
    /// Its ports, in network byte order.
    ports: [u16; 2],
    /// What its addresses were.
    was: Ends,
    /// What its ports were.
    ports_were: [u16; 2],
}

/// Whether a packet is an error about one that was translated; what becomes of it is then known. Where it is looked for
/// is written to `key`.
#[inline(always)]
pub fn find(skb: Skb, packet: &Packet, key: &mut FlowKey, to: &mut Translation, quote: &mut Quote) -> bool {
    is_error(skb, packet) && read(skb, packet, quote).is_some() && {
        let quoted = &quote.packet;
        key.source = quoted.destination;
        key.destination = quoted.source;
        key.source_port = quote.ports[1];
        key.destination_port = quote.ports[0];
        key.protocol = quoted.protocol;
        key.pad = [0; 3];
        // It is sent to whom the quoted packet was from, or is forged.
        packet.destination == quoted.source && set(packet, key, to, quote)
    }
}

/// Errors that tell the sender of its packet: unreachable, time exceeded, parameter problem (RFC 792); these and too big
/// (RFC 4443).
#[inline(always)]
fn is_error(skb: Skb, packet: &Packet) -> bool {
    if packet.is_fragment() {
        return false;
    }
    match (packet.protocol, skb.load::<u8>(packet.transport)) {
        (protocol::ICMP, Some(kind)) => packet.v4 && matches!(kind, 3 | 11 | 12),
        (protocol::ICMPV6, Some(kind)) => !packet.v4 && matches!(kind, 1..=4),
        _ => false,
    }
}

/// Reads the quoted headers, as far as the ports.
#[inline(always)]
fn read(skb: Skb, packet: &Packet, quote: &mut Quote) -> Option<()> {
    let offset = packet.transport + ICMP_LEN;
    let quoted = &mut quote.packet;
    quoted.v4 = packet.v4;
    if packet.v4 {
        let ip: Ipv4Header = skb.load(offset)?;
        quoted.source = ip.source();
        quoted.destination = ip.destination();
        quoted.fragment = ip.fragment;
        quoted.protocol = ip.protocol;
        quoted.transport = offset + u32::from(ip.version_ihl & 0x0f) * 4;
    } else {
        let ip: Ipv6Header = skb.load(offset)?;
        quoted.source = ip.source();
        quoted.destination = ip.destination();
        quoted.fragment = 0;
        quoted.protocol = ip.next_header;
        quoted.transport = offset + size_of::<Ipv6Header>() as u32;
        quoted.skip_extensions(skb)?;
    }
    let has_ports = matches!(quoted.protocol, protocol::TCP | protocol::UDP | protocol::SCTP);
    if quoted.is_later_fragment() || !has_ports {
        return None;
    }
    quote.ports = skb.load(quoted.transport)?;
    Some(())
}

#[inline(always)]
fn set(packet: &Packet, key: &FlowKey, to: &mut Translation, quote: &mut Quote) -> bool {
    let Some(row) = flows::row(key) else {
        return false;
    };
    // SAFETY: as in `tracking`.
    let row = unsafe { &*row };
    if row.backend == 0 {
        return false;
    }
    to.set(key, row);
    to.ports = to.old_ports;
    // Who is neither end of the flow speaks for itself, also as a pod.
    to.flags |= Translation::QUOTES | Translation::FROM_POD;
    if packet.source != key.source {
        to.ends.source = packet.source;
    }
    quote.was.source = row.destination;
    quote.was.destination = row.source;
    quote.ports_were = [row.destination_port, row.source_port];
    true
}

/// Makes the quoted packet what it was. Public by name, so that the verifier looks at it once. Returns whether it could.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn rewrite_quote(context: *mut __sk_buff, packet: *const Packet) -> i32 {
    // SAFETY: it is called with a reference. The verifier, which looks at it alone, wants it tested.
    match (unsafe { packet.as_ref() }, Tracking::current()) {
        (Some(packet), Some(tracking)) => {
            i32::from(rewrite(Skb::new(context), packet, &tracking.quote).is_some())
        }
        _ => 0,
    }
}

#[inline(always)]
fn rewrite(skb: Skb, packet: &Packet, quote: &Quote) -> Option<()> {
    let (quoted, was) = (&quote.packet, &quote.was);
    let start = packet.transport + ICMP_LEN;
    let addresses = difference(&quoted.source, &was.source, 0);
    let addresses = difference(&quoted.destination, &was.destination, addresses);
    let ports_difference = port_difference(quote.ports, quote.ports_were);
    // What the error's own checksum is to be corrected by.
    let mut changed = u64::from(ports_difference);
    let stored = if quoted.v4 {
        let sum: u16 = skb.load(start + IPV4_CHECKSUM)?;
        let sum = !folded(u64::from(!sum) + u64::from(addresses));
        // The header sums up to the same as before.
        skb.store_at(start + IPV4_CHECKSUM, &sum)
            && skb.store_at(
                start + IPV4_ADDRESSES,
                &[halves(was.source.0[3]), halves(was.destination.0[3])],
            )
    } else {
        changed += u64::from(addresses);
        skb.store_at(start + IPV6_ADDRESSES, was)
    };
    if !stored || !skb.store_at(quoted.transport, &quote.ports_were) {
        return None;
    }
    let offset = match quoted.protocol {
        protocol::TCP => TCP_CHECKSUM,
        protocol::UDP => UDP_CHECKSUM,
        _ => 0,
    };
    // Eight bytes past the IP header is all that has to be quoted.
    if offset != 0
        && let Some(sum) = skb.load::<u16>(quoted.transport + offset)
        && (sum != 0 || quoted.protocol == protocol::TCP)
    {
        let new = !folded(u64::from(!sum) + u64::from(addresses) + u64::from(ports_difference));
        if !skb.store_at(quoted.transport + offset, &new) {
            return None;
        }
        changed += u64::from(!sum) + u64::from(new);
    }
    let changed = u32::from(folded(changed));
    skb.update_transport_checksum(packet.transport + ICMP_CHECKSUM, changed, 0)
        .then_some(())
}
