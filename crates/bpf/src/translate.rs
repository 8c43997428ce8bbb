//! Rewriting a packet's addresses and ports.
//!
//! What becomes of a packet is decided early, since its new destination says which way it goes, and done late: until
//! it is certain that the packet goes on it stays as its sender made it, and so an ICMP error about it quotes what
//! the sender knows.

use aya_ebpf::bindings::{__sk_buff, BPF_F_MARK_MANGLED_0};
use tombolo_abi::{Addr, Direction, FlowKey, Outcome};

use crate::{
    parse::{Ipv4Header, Packet, protocol},
    quote, resolve,
    skb::{ETH_LEN, Skb},
};

/// Offsets of the checksums in TCP and UDP headers.
pub const TCP_CHECKSUM: u32 = 16;
/// As [`TCP_CHECKSUM`].
pub const UDP_CHECKSUM: u32 = 6;
const ICMPV6_CHECKSUM: u32 = 2;
/// Offset of the addresses in IP headers.
pub const IPV4_ADDRESSES: u32 = 12;
/// As [`IPV4_ADDRESSES`].
pub const IPV6_ADDRESSES: u32 = 8;

/// From where to where.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Ends {
    /// Source address.
    pub source: Addr,
    /// Destination address.
    pub destination: Addr,
}

/// What becomes of a packet's addresses and ports.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Translation {
    /// The addresses.
    pub ends: Ends,
    /// Source and destination port, in network byte order.
    pub ports: [u16; 2],
    /// The ports that the packet has.
    pub old_ports: [u16; 2],
    /// Bits of [`Translation::DONE`] and those after it; 0: the packet stays as it is.
    pub flags: u32,
}

const _: () = assert!(size_of::<Translation>() == 44);

impl Translation {
    /// The packet stays as it is.
    pub const NONE: Self = Self {
        ends: Ends {
            source: Addr::UNSPECIFIED,
            destination: Addr::UNSPECIFIED,
        },
        ports: [0; 2],
        old_ports: [0; 2],
        flags: 0,
    };

    /// The rest says what becomes of the packet.
    pub const SET: u32 = 1;
    /// It answers: its source becomes the address that the client knows.
    pub const REPLY: u32 = 2;
    /// Its direction of the flow is held to the way that a pod's packets take ([`Direction::FROM_POD`]).
    pub const FROM_POD: u32 = 4;

    /// It is an ICMP error, and quotes a packet that is translated, too ([`quote`]).
    pub const QUOTES: u32 = 8;

    /// What the row of a flow says of a packet with this key.
    #[inline(always)]
    pub fn set(&mut self, key: &FlowKey, row: &Direction) {
        self.ends.source = row.source;
        self.ends.destination = row.destination;
        self.ports = [row.source_port, row.destination_port];
        self.old_ports = [key.source_port, key.destination_port];
        self.flags = Self::SET;
        if row.original == 0 {
            self.flags |= Self::REPLY;
        }
        if row.flags & Direction::FROM_POD != 0 {
            self.flags |= Self::FROM_POD;
        }
    }

    /// Whether anything changes.
    #[inline(always)]
    pub const fn is_set(&self) -> bool {
        self.flags != 0
    }

    /// Whether the source becomes an address of this node.
    #[inline(always)]
    pub fn is_of_node(&self) -> bool {
        self.is_set() && resolve::node(&self.ends.source).is_some_and(resolve::is_local)
    }

    /// Whether the packet answers one that was translated.
    #[inline(always)]
    pub const fn is_reply(&self) -> bool {
        self.flags & Self::REPLY != 0
    }

    /// Whether the packet is an error about one that was translated.
    #[inline(always)]
    pub const fn is_quoting(&self) -> bool {
        self.flags & Self::QUOTES != 0
    }

    /// Where the packet is going.
    #[inline(always)]
    pub const fn destination<'a>(&'a self, packet: &'a Packet) -> &'a Addr {
        if self.is_set() {
            &self.ends.destination
        } else {
            &packet.destination
        }
    }

    /// Makes the packet what it becomes. Pointers into it are void then.
    ///
    /// # Errors
    /// `Malformed`: a header is cut short.
    #[inline(always)]
    pub fn apply(&self, skb: Skb, packet: &Packet) -> Result<(), Outcome> {
        if self.is_set() && rewrite_packet(skb.as_ptr(), packet, self) == 0 {
            return Err(Outcome::Malformed);
        }
        if self.is_quoting() && quote::rewrite_quote(skb.as_ptr(), packet) == 0 {
            return Err(Outcome::Malformed);
        }
        Ok(())
    }
}

/// Public by name, so that the verifier looks at it once. Returns whether it could.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn rewrite_packet(
    context: *mut __sk_buff,
    packet: *const Packet,
    to: *const Translation,
) -> i32 {
    // SAFETY: it is called with references. The verifier, which looks at it alone, wants them tested.
    match unsafe { (packet.as_ref(), to.as_ref()) } {
        (Some(packet), Some(to)) => i32::from(rewrite(Skb::new(context), packet, to).is_some()),
        _ => 0,
    }
}

#[inline(always)]
fn rewrite(skb: Skb, packet: &Packet, to: &Translation) -> Option<()> {
    let addresses = difference(&packet.source, &to.ends.source, 0);
    let addresses = difference(&packet.destination, &to.ends.destination, addresses);
    // The checksums of TCP and UDP cover addresses and ports (a sum of zero says that there is none, in UDP); the one
    // of SCTP covers the ports, which are the same; that of ICMP, neither.
    let sum = match packet.protocol {
        _ if packet.is_later_fragment() => None,
        protocol::TCP => Some((TCP_CHECKSUM, 0)),
        protocol::UDP => Some((UDP_CHECKSUM, u64::from(BPF_F_MARK_MANGLED_0))),
        protocol::ICMPV6 => Some((ICMPV6_CHECKSUM, 0)),
        _ => None,
    };
    if let Some((offset, flags)) = sum {
        let offset = packet.transport + offset;
        if !skb.update_pseudo_header_checksum(offset, addresses, flags) {
            return None;
        }
        if to.ports != to.old_ports {
            // Apart from the addresses: where a device is to sum up the packet, the pseudo-header is in what it is
            // given, and the ports are not.
            let ports = port_difference(to.old_ports, to.ports);
            if !skb.update_transport_checksum(offset, ports, flags)
                || !skb.store_at(packet.transport, &to.ports)
            {
                return None;
            }
        }
    }
    if packet.v4 {
        let header = skb.header::<Ipv4Header>(ETH_LEN)?;
        // SAFETY: `header` has checked the bounds, and the type has no alignment beyond 2.
        let ip = unsafe { &mut *header };
        ip.source = halves(to.ends.source.0[3]);
        ip.destination = halves(to.ends.destination.0[3]);
        ip.checksum = !folded(u64::from(!ip.checksum) + u64::from(addresses));
        Some(())
    } else {
        // Where the checksum was corrected above, the kernel has taken that for a change of the packet's own sum, as
        // it is where the IP header has a checksum. Here, addresses and checksum cancel each other out; where there is
        // none, the addresses alone have changed.
        skb.update_checksum(addresses);
        skb.store_at(ETH_LEN as u32 + IPV6_ADDRESSES, &to.ends)
            .then_some(())
    }
}

/// What is added to a one's complement sum (RFC 1071) when one address takes the place of another, added to what
/// there is to add already.
#[inline(always)]
pub fn difference(old: &Addr, new: &Addr, sum: u32) -> u32 {
    let (Addr(old), Addr(new)) = (*old, *new);
    let total = u64::from(sum)
        + u64::from(!old[0])
        + u64::from(new[0])
        + u64::from(!old[1])
        + u64::from(new[1])
        + u64::from(!old[2])
        + u64::from(new[2])
        + u64::from(!old[3])
        + u64::from(new[3]);
    let total = (total & 0xffff_ffff) + (total >> 32);
    ((total & 0xffff_ffff) + (total >> 32)) as u32
}

/// As [`difference`], of both ports.
#[inline(always)]
pub const fn port_difference(old: [u16; 2], new: [u16; 2]) -> u32 {
    let [a, b] = old;
    let [c, d] = new;
    (!a) as u32 + (!b) as u32 + c as u32 + d as u32
}

/// A sum in 16 bits.
#[inline(always)]
pub const fn folded(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// The halves of a word as it lies on the wire.
#[inline(always)]
pub const fn halves(word: u32) -> [u16; 2] {
    let [a, b, c, d] = word.to_ne_bytes();
    [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])]
}
