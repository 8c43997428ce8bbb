//! Answers: the packet in hand becomes what is said to its sender, and leaves the way any packet there would.

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_REDIRECT, TC_ACT_SHOT},
    helpers::{bpf_csum_diff, bpf_redirect},
};
use tombolo_abi::{Addr, GATEWAY_MAC};

use crate::{
    fib, forward,
    maps::ANSWER_SCRATCH,
    parse::Packet,
    resolve::{self, Place},
    skb::{ETH_LEN, Skb},
    translate::Ends,
};

pub const IPV4_LEN: usize = 20;
pub const IPV6_LEN: usize = 40;
/// Room for what follows the IP header: an ICMPv6 error is at most 1280 bytes long (RFC 4443, section 2.4 c).
pub const BODY_MAX: usize = 1280 - IPV6_LEN;

/// Offsets in the scratch. What follows the IP header lies at the same place for both families; what precedes it is
/// shorter for IPv4, so that answer begins later.
const FRAME_V6: usize = 2;
const IP_V6: usize = FRAME_V6 + ETH_LEN;
/// Where the body begins.
pub const BODY: usize = IP_V6 + IPV6_LEN;
const IP_V4: usize = BODY - IPV4_LEN;
const FRAME_V4: usize = IP_V4 - ETH_LEN;
const SCRATCH_LEN: usize = BODY + BODY_MAX + 8;

/// Where an answer is put together.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct Scratch([u8; SCRATCH_LEN]);

/// How much is cut out of a packet after its MAC header to end its offloads. More than the offset
/// of any transport header that is answered.
pub const CUT: u32 = 256;

/// This CPU's scratch, valid for [`BODY`] and [`BODY_MAX`] bytes, and some. Programs of one CPU do not interleave
/// here.
#[inline(always)]
pub fn scratch() -> Option<*mut u8> {
    Some(ANSWER_SCRATCH.get_ptr_mut(0)?.cast())
}

/// Writes the IPv4 header of an answer from `source` to the packet's sender.
///
/// # Safety
/// `scratch` must be that of [`scratch`].
#[inline(always)]
pub unsafe fn write_v4(scratch: *mut u8, packet: &Packet, source: u32, tos: u8, protocol: u8, body_len: u32) {
    let total_len = IPV4_LEN as u16 + body_len as u16;
    // SAFETY: as the caller promises.
    unsafe {
        let ip = scratch.add(IP_V4);
        let [hi, lo] = total_len.to_be_bytes();
        ip.cast::<[u8; 4]>().write([0x45, tos, hi, lo]);
        // Never cut, so it needs no identification (RFC 6864, section 4.1).
        ip.add(4).cast::<[u8; 4]>().write([0, 0, 0x40, 0]);
        ip.add(8).cast::<[u8; 4]>().write([64, protocol, 0, 0]);
        ip.add(12).cast::<u32>().write_unaligned(source);
        ip.add(16).cast::<u32>().write_unaligned(packet.source.0[3]);
        ip.add(10)
            .cast::<u16>()
            .write_unaligned(folded(sum(ip, IPV4_LEN as u32, 0)));
    }
}

/// The same for IPv6; returns the sum of the pseudo-header.
///
/// # Safety
/// As [`write_v4`].
#[inline(always)]
pub unsafe fn write_v6(scratch: *mut u8, packet: &Packet, source: &Addr, protocol: u8, body_len: u32) -> u32 {
    // SAFETY: as the caller promises.
    unsafe {
        let ip = scratch.add(IP_V6);
        ip.cast::<[u8; 4]>().write([0x60, 0, 0, 0]);
        ip.add(4).cast::<u16>().write_unaligned((body_len as u16).to_be());
        ip.add(8).cast::<Addr>().write_unaligned(*source);
        ip.add(24).cast::<Addr>().write_unaligned(packet.source);
        // The pseudo-header (RFC 8200, section 8.1): addresses, length, protocol. Length and
        // protocol lie in what the header keeps its next header and hop limit in, and are written
        // so that their sum is the same.
        ip.add(6).cast::<[u8; 2]>().write([0, protocol]);
        let pseudo = sum(ip.add(4), (IPV6_LEN - 4) as u32, 0);
        ip.add(6).cast::<[u8; 2]>().write([protocol, 64]);
        pseudo
    }
}

/// Puts the answer, whose body has this many bytes, in the packet's place.
///
/// # Safety
/// As [`write_v4`]; the body has no more than [`BODY_MAX`] bytes.
#[inline(always)]
pub unsafe fn replace(skb: Skb, packet: &Packet, scratch: *mut u8, body_len: u32) -> Option<()> {
    // SAFETY: all offsets lie within the scratch.
    unsafe {
        let (frame, frame_len) = if packet.v4 {
            (scratch.add(FRAME_V4), (BODY - FRAME_V4) as u32 + body_len)
        } else {
            (scratch.add(FRAME_V6), (BODY - FRAME_V6) as u32 + body_len)
        };
        // An answer to a pod of this node finds its MAC here.
        let pod = resolve::endpoint(&packet.source).map_or([0; 6], |endpoint| endpoint.mac);
        frame.cast::<[u8; 6]>().write(pod);
        frame.add(6).cast::<[u8; 6]>().write(GATEWAY_MAC);
        frame.add(12).cast::<u16>().write_unaligned(skb.protocol());

        // A checksum that a device was still to fill in would end up inside of the answer. The
        // kernel forgets it once its place has been cut out.
        let cut = skb.set_len(CUT + (ETH_LEN + IPV6_LEN) as u32) && skb.cut_after_mac(CUT as i32);
        (cut && skb.set_len(frame_len) && skb.store(frame, frame_len)).then_some(())
    }
}

/// # Safety
/// `from` must be valid for `len` bytes.
#[inline(always)]
pub unsafe fn sum(from: *mut u8, len: u32, seed: u32) -> u32 {
    // SAFETY: as the caller promises.
    unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, from.cast(), len, seed) as u32 }
}

/// The checksum of a sum (RFC 1071).
#[inline(always)]
pub const fn folded(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

/// Sends the answer that has taken a packet's place where the packet came from; where there is none, the packet is
/// dropped all the same. Returns the action.
#[inline(always)]
pub fn send(skb: Skb, packet: &Packet, is_answer: i32) -> i32 {
    if is_answer == 0 {
        return TC_ACT_SHOT;
    }
    answer_send(skb.as_ptr(), packet)
}

/// Public by name, so that the verifier looks at it once. Not called by those that make answers, which are, too: on the
/// stack, there is no room for all of them at a time.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn answer_send(context: *mut __sk_buff, packet: *const Packet) -> i32 {
    // SAFETY: it is called with a reference. The verifier, which looks at it alone, wants it tested.
    match unsafe { packet.as_ref() } {
        Some(packet) => send_back(Skb::new(context), packet).unwrap_or(TC_ACT_SHOT),
        None => TC_ACT_SHOT,
    }
}

#[inline(always)]
fn send_back(skb: Skb, packet: &Packet) -> Option<i32> {
    match resolve::resolve(&packet.source) {
        // Through the pod's link, so that the answer enters the pod as all else does.
        // SAFETY: a helper call.
        Place::Endpoint(endpoint) => Some(unsafe { bpf_redirect(endpoint.ifindex, 0) } as i32),
        Place::Remote(route) => match forward::send(skb, packet.v4, route) {
            Ok(verdict) | Err(verdict) => Some(verdict.action),
        },
        // A client of a Service.
        Place::Outside => {
            let ends = Ends {
                source: packet.destination,
                destination: packet.source,
            };
            fib::send_as_it_is(skb, &ends).then_some(TC_ACT_REDIRECT)
        }
        // The stack keeps to the MTU of its routes by itself.
        Place::OwnNode | Place::OwnBlock | Place::Services => None,
    }
}
