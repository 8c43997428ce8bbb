//! From bytes to a [`Packet`]: all that later stages know of the headers.

use aya_ebpf::bindings::__sk_buff;
use tombolo_abi::{Addr, Outcome};

use crate::skb::{ETH_LEN, Skb};

/// EtherType of IPv4, as it lies on the wire.
pub const ETH_P_IP: u16 = 0x0800_u16.to_be();
/// EtherType of IPv6, as it lies on the wire.
pub const ETH_P_IPV6: u16 = 0x86dd_u16.to_be();

/// IP protocol numbers.
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;

    /// IPv6 extension headers that are walked (RFC 8200, section 4; RFC 4302; RFC 6275; RFC 7401; RFC 5533).
    pub mod extension {
        /// Hop-by-hop options.
        pub const HOP_BY_HOP: u8 = 0;
        /// Routing.
        pub const ROUTING: u8 = 43;
        /// Fragment.
        pub const FRAGMENT: u8 = 44;
        /// Authentication.
        pub const AUTHENTICATION: u8 = 51;
        /// Destination options.
        pub const DESTINATION: u8 = 60;
        /// Mobility.
        pub const MOBILITY: u8 = 135;
        /// Host identity.
        pub const HIP: u8 = 139;
        /// Shim6.
        pub const SHIM6: u8 = 140;
    }
}

/// Extension headers walked before a packet counts as malformed. RFC 8504, section 5.3, lets a node
/// set such a limit; real packets have one or two.
const MAX_EXTENSIONS: usize = 8;

/// "Don't fragment", in the IPv4 fragment word as it lies on the wire.
const DONT_FRAGMENT: u16 = 0x4000_u16.to_be();
/// "More fragments", in the IPv4 fragment word as it lies on the wire.
const MORE_FRAGMENTS: u16 = 0x2000_u16.to_be();
/// The offset, in the IPv4 fragment word as it lies on the wire.
const OFFSET_V4: u16 = 0x1fff_u16.to_be();
/// The offset, in the IPv6 fragment word as it lies on the wire.
const OFFSET_V6: u16 = 0xfff8_u16.to_be();

/// An IPv4 header without options (RFC 791).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Ipv4Header {
    /// Version (4 bits), header length in words (4 bits).
    pub version_ihl: u8,
    /// Type of service.
    pub tos: u8,
    /// Length of header and payload.
    pub total_len: u16,
    /// Identification.
    pub id: u16,
    /// Flags (3 bits), fragment offset in 8 bytes (13 bits).
    pub fragment: u16,
    /// Time to live.
    pub ttl: u8,
    /// What follows.
    pub protocol: u8,
    /// Checksum of the header.
    pub checksum: u16,
    /// Source address, as it lies on the wire. In halves: IP headers lie at 2 bytes past a word.
    pub source: [u16; 2],
    /// Destination address, as it lies on the wire.
    pub destination: [u16; 2],
}

/// An IPv6 header (RFC 8200).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Ipv6Header {
    /// Version (4 bits), traffic class, flow label.
    pub version: [u8; 4],
    /// Length of what follows the header.
    pub payload_len: u16,
    /// What follows.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub source: [u16; 8],
    /// Destination address.
    pub destination: [u16; 8],
}

impl Ipv4Header {
    /// The source address.
    #[inline(always)]
    pub const fn source(&self) -> Addr {
        Addr::from_v4_word(word(self.source[0], self.source[1]))
    }

    /// The destination address.
    #[inline(always)]
    pub const fn destination(&self) -> Addr {
        Addr::from_v4_word(word(self.destination[0], self.destination[1]))
    }
}

impl Ipv6Header {
    /// The source address.
    #[inline(always)]
    pub const fn source(&self) -> Addr {
        addr(&self.source)
    }

    /// The destination address.
    #[inline(always)]
    pub const fn destination(&self) -> Addr {
        addr(&self.destination)
    }
}

/// What the headers say. No padding: before Linux 6.3 a function may not be handed any.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Packet {
    /// Source address.
    pub source: Addr,
    /// Destination address.
    pub destination: Addr,
    /// Bytes from the IP header on.
    pub size: u32,
    /// Offset of the transport header, from the Ethernet header on.
    pub transport: u32,
    /// What a fragment shares with the others of its packet, as it lies on the wire.
    pub fragment_id: u32,
    /// The transport protocol.
    pub protocol: u8,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// IPv4 on the wire.
    pub v4: bool,
    /// Zero.
    pub pad: u8,
    /// The fragment word of IPv4 as it lies on the wire, or what it would say of an IPv6 packet. Flags of their own
    /// would each be a branch, and double what the verifier follows from there on.
    pub fragment: u16,
    /// Zero.
    pub pad_more: [u8; 2],
}

const _: () = assert!(size_of::<Packet>() == 52);

impl Packet {
    /// Whether it is IPv4 with "don't fragment", or IPv6, whose routers never do.
    #[inline(always)]
    pub const fn is_never_cut(&self) -> bool {
        self.fragment & DONT_FRAGMENT != 0
    }

    /// Whether it is a part of a packet that was cut.
    #[inline(always)]
    pub const fn is_fragment(&self) -> bool {
        self.fragment & (MORE_FRAGMENTS | OFFSET_V4) != 0
    }

    /// Whether it is a fragment past the first: it has no transport header.
    #[inline(always)]
    pub const fn is_later_fragment(&self) -> bool {
        self.fragment & OFFSET_V4 != 0
    }

    /// Moves `transport` and `protocol` past IPv6 extension headers. `None`: they are malformed.
    #[inline(always)]
    pub fn skip_extensions(&mut self, skb: Skb) -> Option<()> {
        (!is_extension(self.protocol) || ipv6_extensions(skb.as_ptr(), self) != 0).then_some(())
    }

    /// Reads the headers.
    ///
    /// # Errors
    /// In this order: `NotIp`; `Malformed`: cut short, or lengths and versions that contradict
    /// each other or the frame; `MappedAddress`.
    #[inline(always)]
    pub fn parse(skb: Skb) -> Result<Self, Outcome> {
        match skb.protocol() {
            _ if skb.is_vlan() => Err(Outcome::NotIp),
            ETH_P_IP => parse_v4(skb),
            ETH_P_IPV6 => parse_v6(skb),
            _ => Err(Outcome::NotIp),
        }
    }
}

#[inline(always)]
fn parse_v4(skb: Skb) -> Result<Packet, Outcome> {
    let header = skb.header::<Ipv4Header>(ETH_LEN).ok_or(Outcome::Malformed)?;
    // SAFETY: `header` has checked the bounds, and the type has no alignment beyond 2.
    let ip = unsafe { &*header };
    let size = skb.len() - ETH_LEN as u32;
    let header_len = u32::from(ip.version_ihl & 0x0f) * 4;
    let total_len = u32::from(u16::from_be(ip.total_len));
    // A total length of 0 is that of a packet of more than 64 kB that is yet to be cut.
    let too_large_to_tell = total_len == 0 && skb.gso_size() != 0;
    if ip.version_ihl >> 4 != 4
        || header_len < size_of::<Ipv4Header>() as u32
        || header_len > size
        || (!too_large_to_tell && (total_len < header_len || total_len > size))
    {
        return Err(Outcome::Malformed);
    }
    Ok(Packet {
        source: ip.source(),
        destination: ip.destination(),
        size,
        transport: ETH_LEN as u32 + header_len,
        fragment_id: u32::from(ip.id),
        protocol: ip.protocol,
        ttl: ip.ttl,
        v4: true,
        pad: 0,
        fragment: ip.fragment,
        pad_more: [0; 2],
    })
}

#[inline(always)]
fn parse_v6(skb: Skb) -> Result<Packet, Outcome> {
    let header = skb.header::<Ipv6Header>(ETH_LEN).ok_or(Outcome::Malformed)?;
    // SAFETY: `header` has checked the bounds, and the type has no alignment beyond 2.
    let ip = unsafe { &*header };
    let size = skb.len() - ETH_LEN as u32;
    let payload_len = u32::from(u16::from_be(ip.payload_len));
    if ip.version[0] >> 4 != 6 || payload_len + size_of::<Ipv6Header>() as u32 > size {
        return Err(Outcome::Malformed);
    }
    let mut packet = Packet {
        source: ip.source(),
        destination: ip.destination(),
        size,
        transport: (ETH_LEN + size_of::<Ipv6Header>()) as u32,
        fragment_id: 0,
        protocol: ip.next_header,
        ttl: ip.hop_limit,
        v4: false,
        pad: 0,
        fragment: DONT_FRAGMENT,
        pad_more: [0; 2],
    };
    if packet.source.is_v4() || packet.destination.is_v4() {
        return Err(Outcome::MappedAddress);
    }
    if packet.skip_extensions(skb).is_none() {
        return Err(Outcome::Malformed);
    }
    Ok(packet)
}

const fn is_extension(next_header: u8) -> bool {
    use protocol::extension::{
        AUTHENTICATION, DESTINATION, FRAGMENT, HIP, HOP_BY_HOP, MOBILITY, ROUTING, SHIM6,
    };
    matches!(
        next_header,
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION | MOBILITY | HIP | SHIM6
    )
}

/// Moves `transport` and `protocol` past the extension headers; 0: they are malformed. Public by name,
/// so that the verifier looks at it once, and not at what follows for each number of headers.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ipv6_extensions(context: *mut __sk_buff, packet: *mut Packet) -> i32 {
    // SAFETY: it is called with a reference. The verifier, which looks at it alone, wants it tested.
    match unsafe { packet.as_mut() } {
        Some(packet) => i32::from(walk_extensions(Skb::new(context), packet).is_some()),
        None => 0,
    }
}

/// The first fragment holds all extension headers (RFC 7112, section 5), or it is malformed; a later
/// one has none to walk.
#[inline(always)]
fn walk_extensions(skb: Skb, packet: &mut Packet) -> Option<()> {
    for _ in 0..MAX_EXTENSIONS {
        let [next, len, hi, lo] = skb.load::<[u8; 4]>(packet.transport)?;
        let is_fragment = packet.protocol == protocol::extension::FRAGMENT;
        if is_fragment {
            // Also one that is the whole packet (RFC 6946).
            packet.fragment |= MORE_FRAGMENTS;
            packet.fragment_id = skb.load(packet.transport + 4)?;
        }
        packet.transport += match packet.protocol {
            protocol::extension::FRAGMENT => 8,
            protocol::extension::AUTHENTICATION => (u32::from(len) + 2) * 4,
            _ => (u32::from(len) + 1) * 8,
        };
        packet.protocol = next;
        if is_fragment && u16::from_ne_bytes([hi, lo]) & OFFSET_V6 != 0 {
            packet.fragment |= OFFSET_V4;
            return Some(());
        }
        if !is_extension(next) {
            return (packet.transport <= skb.len()).then_some(());
        }
    }
    None
}

/// Two halves of a word, as they lie in memory.
#[inline(always)]
const fn word(first: u16, second: u16) -> u32 {
    if cfg!(target_endian = "little") {
        first as u32 | (second as u32) << 16
    } else {
        (first as u32) << 16 | second as u32
    }
}

#[inline(always)]
const fn addr(halves: &[u16; 8]) -> Addr {
    let [a, b, c, d, e, f, g, h] = *halves;
    Addr([word(a, b), word(c, d), word(e, f), word(g, h)])
}
