//! Into the overlay: VXLAN (RFC 7348), in one of two ways.
//!
//! Here, past everything: headers are put in front of the packet, and it leaves by the uplink. Neither
//! device, nor FIB, nor netfilter, nor the stack is on the way.
//!
//! Through the overlay device: what the first way cannot do. That is an IPv6 underlay, whose UDP checksum
//! must be summed up; a packet that is some tunnel's already, or of an offload that does not stack; one
//! longer than an IPv4 header can say; an endpoint that this node has no route to.

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_F_ADJ_ROOM_ENCAP_L2_ETH, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L4_UDP,
        BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_TUNINFO_IPV6, BPF_F_ZERO_CSUM_TX, bpf_tunnel_key,
        bpf_tunnel_key__bindgen_ty_1,
    },
    helpers::{bpf_get_prandom_u32, bpf_redirect, bpf_skb_set_tunnel_key},
};
use tombolo_abi::{Addr, Config, OVERLAY_VNI, Outcome, Route};

use crate::{
    forward::to_next_hop,
    parse::{Ipv4Header, protocol},
    resolve,
    skb::{ETH_LEN, Skb},
    verdict::Verdict,
};

/// All that is put between the outer Ethernet header and the inner IP header. In halves of words, since
/// IP headers lie at 2 bytes past a word.
#[repr(C)]
#[derive(Clone, Copy)]
struct Headers {
    ip: Ipv4Header,
    udp: Udp,
    vxlan: Vxlan,
    /// The inner frame's own.
    ethernet: Ethernet,
}

/// A UDP header (RFC 768).
#[repr(C)]
#[derive(Clone, Copy)]
struct Udp {
    source: u16,
    destination: u16,
    len: u16,
    checksum: u16,
}

/// A VXLAN header (RFC 7348, section 5): flags, reserved, VNI in the upper three bytes of the last word.
type Vxlan = [u16; 4];

/// An Ethernet header.
type Ethernet = [u16; ETH_LEN / 2];

const HEADERS_LEN: usize = size_of::<Headers>();
const _: () = assert!(HEADERS_LEN == 50);

/// "The VNI is valid."
const VXLAN_FLAGS: u16 = 0x0800_u16.to_be();

/// The first source port of encapsulated packets, and the bits of the flow that are put on it (RFC 7348,
/// section 5: 49152 to 65535), so that the underlay spreads flows over its paths.
const SOURCE_PORTS: u16 = 0xc000;

/// TTL of encapsulated packets, as the kernel's own.
const TTL: u8 = 64;

/// How room is made for the headers; the kernel notes what they are, for offloads.
const ROOM: u64 = (BPF_F_ADJ_ROOM_ENCAP_L3_IPV4
    | BPF_F_ADJ_ROOM_ENCAP_L4_UDP
    | BPF_F_ADJ_ROOM_ENCAP_L2_ETH
    // Pods know the smaller MTU: their segments are the right size already.
    | BPF_F_ADJ_ROOM_FIXED_GSO) as u64
    // How long the inner Ethernet header is (`BPF_F_ADJ_ROOM_ENCAP_L2`): it is found by that when a device
    // wants its segments cut.
    | (size_of::<Ethernet>() as u64) << 56;

/// Sends a packet, of whatever family, through the tunnel to the node of `route`.
#[inline(always)]
pub fn send(skb: Skb, v4: bool, route: &Route) -> Result<Verdict, Verdict> {
    if encapsulate(skb, v4, route)? {
        return Ok(to_next_hop(
            true,
            route.underlay_ifindex,
            &route.underlay_next_hop,
            Outcome::Encapsulated,
        ));
    }
    set_tunnel_key(skb, route)?;
    // SAFETY: a helper call.
    let returned = unsafe { bpf_redirect(route.ifindex, 0) };
    Ok(Verdict::redirect(Outcome::Encapsulated, returned))
}

/// Puts the headers in front of the packet; `false`: it is as it was, and the overlay device's to send.
#[inline(always)]
fn encapsulate(skb: Skb, v4: bool, route: &Route) -> Result<bool, Outcome> {
    let Some(config) = resolve::config() else {
        return Ok(false);
    };
    let inner_len = skb.len() - ETH_LEN as u32;
    let outer_len = inner_len + HEADERS_LEN as u32;
    if route.underlay_ifindex == 0
        || !route.next_hop.is_v4()
        || config.node_v4.is_unspecified()
        || outer_len > u32::from(u16::MAX)
    {
        return Ok(false);
    }
    let ethernet = skb.at::<Ethernet>(0).ok_or(Outcome::Malformed)?;
    // SAFETY: `at` has checked the bounds.
    let ethernet = unsafe { *ethernet };
    // The type of service, or the middle of the traffic class: it begins half a byte earlier.
    let service = skb.at::<u8>(ETH_LEN + 1).ok_or(Outcome::Malformed)?;
    // SAFETY: `at` has checked the bounds.
    let service = unsafe { *service };
    // Whether there was congestion is said outside, too (RFC 6040, section 4.1).
    let ecn = if v4 { service } else { service >> 4 } & 0x03;
    let flow = skb.flow_hash();
    if !skb.make_room_after_mac(HEADERS_LEN as i32, ROOM) {
        return Ok(false);
    }
    let headers = skb.at::<Headers>(ETH_LEN).ok_or(Outcome::Malformed)?;
    let outer_len = outer_len as u16;
    // SAFETY: `at` has checked the bounds.
    unsafe {
        *headers = Headers {
            ip: ip_header(config, route, ecn, outer_len),
            udp: Udp {
                source: ((flow >> 16 ^ flow) as u16 | SOURCE_PORTS).to_be(),
                destination: config.overlay_port,
                len: (outer_len - size_of::<Ipv4Header>() as u16).to_be(),
                // The IP header has a checksum of its own, and the inner packet another (RFC 7348, section 5).
                checksum: 0,
            },
            vxlan: [
                VXLAN_FLAGS,
                0,
                halves(OVERLAY_VNI << 8)[0],
                halves(OVERLAY_VNI << 8)[1],
            ],
            ethernet,
        };
    }
    Ok(true)
}

/// The outer IP header. It may be cut, as what the overlay device sends, should the way be narrower than
/// the nodes know; hence an identification (RFC 6864, section 4.2).
#[inline(always)]
fn ip_header(config: &Config, route: &Route, ecn: u8, len: u16) -> Ipv4Header {
    let (Addr(source), Addr(destination)) = (config.node_v4, route.next_hop);
    let mut header = Ipv4Header {
        version_ihl: 0x45,
        tos: ecn,
        total_len: len.to_be(),
        // SAFETY: a helper call.
        id: unsafe { bpf_get_prandom_u32() } as u16,
        fragment: 0,
        ttl: TTL,
        protocol: protocol::UDP,
        checksum: 0,
        source: wire_halves(source[3]),
        destination: wire_halves(destination[3]),
    };
    // RFC 1071. The order of bytes does not matter as long as it is the same for all.
    let sum = u32::from(u16::from_ne_bytes([header.version_ihl, header.tos]))
        + u32::from(header.total_len)
        + u32::from(header.id)
        + u32::from(u16::from_ne_bytes([header.ttl, header.protocol]))
        + u32::from(header.source[0])
        + u32::from(header.source[1])
        + u32::from(header.destination[0])
        + u32::from(header.destination[1]);
    let sum = (sum & 0xffff) + (sum >> 16);
    header.checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    header
}

/// The halves of a number, in network byte order.
#[inline(always)]
const fn halves(number: u32) -> [u16; 2] {
    wire_halves(number.to_be())
}

/// The halves of a word as it lies on the wire.
#[inline(always)]
const fn wire_halves(word: u32) -> [u16; 2] {
    let [a, b, c, d] = word.to_ne_bytes();
    [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])]
}

/// Tells the overlay device where to send the packet.
#[inline(always)]
pub fn set_tunnel_key(skb: Skb, route: &Route) -> Result<(), Outcome> {
    if set_overlay_receiver(skb.as_ptr(), &raw const route.next_hop) == 0 {
        Ok(())
    } else {
        Err(Outcome::NoRoute)
    }
}

/// Public by name, for the room on the stack. Returns the helper's error; 0: none.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn set_overlay_receiver(context: *mut __sk_buff, node: *const Addr) -> i32 {
    // SAFETY: it is called with a reference. The verifier, which looks at it alone, wants it tested.
    let Some(node) = (unsafe { node.as_ref() }) else {
        return -1;
    };
    // SAFETY: all zero is a valid key.
    let mut key: bpf_tunnel_key = unsafe { core::mem::zeroed() };
    let Addr(words) = *node;
    key.tunnel_id = OVERLAY_VNI;
    let flags = if node.is_v4() {
        key.__bindgen_anon_1 = bpf_tunnel_key__bindgen_ty_1 {
            remote_ipv4: u32::from_be(words[3]),
        };
        // As above.
        BPF_F_ZERO_CSUM_TX
    } else {
        // Nothing but the UDP checksum protects IPv6 addresses (RFC 8200, section 8.1).
        key.__bindgen_anon_1 = bpf_tunnel_key__bindgen_ty_1 { remote_ipv6: words };
        BPF_F_TUNINFO_IPV6
    };
    let len = size_of::<bpf_tunnel_key>() as u32;
    // SAFETY: the key is valid for the call, and has the length that is passed.
    unsafe { bpf_skb_set_tunnel_key(context, &raw mut key, len, u64::from(flags)) as i32 }
}
