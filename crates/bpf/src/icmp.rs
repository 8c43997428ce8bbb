//! ICMP errors: the sender of a packet that goes no further is told why.
//!
//! The packet in hand becomes the answer, and leaves the way any packet to its sender would.

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_SHOT},
    helpers::{bpf_csum_diff, bpf_ktime_get_ns, bpf_redirect, bpf_skb_load_bytes},
};
use tombolo_abi::{Addr, Config, GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6, Outcome};

use crate::{
    forward,
    maps::{ICMP_BUCKET, ICMP_SCRATCH},
    parse::{Packet, protocol},
    resolve::{self, Place},
    skb::{ETH_LEN, Skb},
    spoof,
    verdict::Verdict,
};

/// What the sender is told.
#[derive(Clone, Copy)]
pub enum Error {
    /// Time to live or hop limit exceeded (RFC 792; RFC 4443, section 3.3).
    TimeExceeded,
    /// Fragmentation needed (RFC 1191, section 4) or packet too big (RFC 4443, section 3.2).
    TooBig {
        /// The largest packet that fits, in bytes.
        mtu: u32,
    },
}

/// The error messages go out at this rate and burst on each CPU, as the kernel's own do.
const NS_PER_MESSAGE: u64 = 1_000_000;
const BURST: u64 = 50;

/// What a CPU may still say.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Bucket {
    /// Nanoseconds saved up.
    credit: u64,
    /// When it was last looked at, in nanoseconds of `CLOCK_MONOTONIC`.
    filled: u64,
}

const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const ICMP_LEN: usize = 8;
/// An IPv4 answer is at most 576 bytes long (RFC 1812, section 4.3.2.3).
const QUOTE_V4: u32 = (576 - IPV4_LEN - ICMP_LEN) as u32;
/// An IPv6 answer is at most 1280 bytes long (RFC 4443, section 2.4 c).
const QUOTE_V6: u32 = (1280 - IPV6_LEN - ICMP_LEN) as u32;

/// Offsets in the scratch. The quote lies at the same place for both families; what precedes it is
/// shorter for IPv4, so that answer begins later.
const FRAME_V6: usize = 2;
const IP_V6: usize = FRAME_V6 + ETH_LEN;
const ICMP: usize = IP_V6 + IPV6_LEN;
const QUOTE: usize = ICMP + ICMP_LEN;
const IP_V4: usize = ICMP - IPV4_LEN;
const FRAME_V4: usize = IP_V4 - ETH_LEN;
const SCRATCH_LEN: usize = QUOTE + QUOTE_V6 as usize + 8;

/// Where an answer is put together.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct Scratch([u8; SCRATCH_LEN]);

/// Most that the kernel sums up in one call (before Linux 6.13).
const SUM_MAX: u32 = 512;

/// How much is cut out of a packet after its MAC header to end its offloads. More than the offset
/// of any transport header that is answered.
const CUT: u32 = 256;

/// Tells the sender what became of its packet, where the rules allow it; the packet itself is
/// dropped for `reason` either way.
#[inline(always)]
pub fn answer(skb: Skb, packet: &Packet, error: Error, reason: Outcome) -> Verdict {
    let mtu = match error {
        Error::TimeExceeded => 0,
        Error::TooBig { mtu } => mtu,
    };
    Verdict {
        action: icmp_answer(skb.as_ptr(), packet, mtu),
        outcome: reason,
    }
}

/// A function of its own, with a public name: the verifier looks at such a one once, and not again
/// for each of the places that call it. Returns the action.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn icmp_answer(context: *mut __sk_buff, packet: *const Packet, mtu: u32) -> i32 {
    // SAFETY: it is called with a reference. The verifier, which looks at it alone, wants it tested.
    match unsafe { packet.as_ref() } {
        Some(packet) => turn_back(Skb::new(context), packet, mtu).unwrap_or(TC_ACT_SHOT),
        None => TC_ACT_SHOT,
    }
}

#[inline(always)]
fn turn_back(skb: Skb, packet: &Packet, mtu: u32) -> Option<i32> {
    if !may_answer(skb, packet) || !take_token() {
        return None;
    }
    let scratch: *mut u8 = ICMP_SCRATCH.get_ptr_mut(0)?.cast();
    // SAFETY: the scratch is this CPU's own, and programs of one CPU do not interleave here.
    unsafe { become_answer(skb, packet, mtu, scratch)? };
    send(skb, packet)
}

/// Never about ICMP errors, fragments past the first, or to or from what is no single host
/// (RFC 1122, section 3.2.2; RFC 4443, section 2.4 e).
#[inline(always)]
fn may_answer(skb: Skb, packet: &Packet) -> bool {
    if packet.later_fragment || packet.transport >= CUT || !spoof::is_routable(&packet.source) {
        return false;
    }
    let icmp = if packet.v4 {
        protocol::ICMP
    } else {
        protocol::ICMPV6
    };
    if packet.protocol != icmp {
        return true;
    }
    match skb.load::<u8>(packet.transport) {
        // Only queries and their answers, since unknown types may be errors.
        Some(kind) if packet.v4 => matches!(kind, 0 | 8 | 13 | 14),
        Some(kind) => kind & 0x80 != 0,
        None => false,
    }
}

#[inline(always)]
fn take_token() -> bool {
    let Some(bucket) = ICMP_BUCKET.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: the bucket is this CPU's own, and programs of one CPU do not interleave here.
    let bucket = unsafe { &mut *bucket };
    // SAFETY: a helper call.
    let now = unsafe { bpf_ktime_get_ns() };
    let credit = (bucket.credit + (now - bucket.filled)).min(BURST * NS_PER_MESSAGE);
    bucket.filled = now;
    bucket.credit = credit.saturating_sub(NS_PER_MESSAGE);
    if credit < NS_PER_MESSAGE {
        bucket.credit = credit;
        return false;
    }
    true
}

/// Replaces the packet by the answer.
///
/// # Safety
/// `scratch` must be valid for [`SCRATCH_LEN`] bytes, and used by nothing else.
#[inline(always)]
unsafe fn become_answer(skb: Skb, packet: &Packet, mtu: u32, scratch: *mut u8) -> Option<()> {
    let config = resolve::config()?;
    let limit = if packet.v4 { QUOTE_V4 } else { QUOTE_V6 };
    let quoted = bounded(packet.size.min(limit), QUOTE_V6)?;
    // SAFETY: all offsets below lie within the scratch, `quoted` included.
    unsafe {
        // The sum is taken over whole words: what follows the quote is zero.
        scratch
            .add(QUOTE + quoted as usize)
            .cast::<u32>()
            .write_unaligned(0);
        let to = scratch.add(QUOTE).cast();
        if bpf_skb_load_bytes(skb.as_ptr().cast(), ETH_LEN as u32, to, quoted) != 0 {
            return None;
        }
        let (frame, frame_len) = if packet.v4 {
            write_v4(scratch, config, packet, mtu, quoted);
            (scratch.add(FRAME_V4), (QUOTE - FRAME_V4) as u32 + quoted)
        } else {
            write_v6(scratch, config, packet, mtu, quoted);
            (scratch.add(FRAME_V6), (QUOTE - FRAME_V6) as u32 + quoted)
        };
        // An answer to a pod of this node finds its MAC here.
        let pod = resolve::endpoint(&packet.source).map_or([0; 6], |endpoint| endpoint.mac);
        frame.cast::<[u8; 6]>().write(pod);
        frame.add(6).cast::<[u8; 6]>().write(GATEWAY_MAC);
        frame.add(12).cast::<u16>().write_unaligned(skb.protocol());

        // A checksum that a device was still to fill in would end up inside of the quote. The
        // kernel forgets it once its place has been cut out.
        let cut = skb.set_len(CUT + (ETH_LEN + IPV6_LEN) as u32) && skb.cut_after_mac(CUT as i32);
        (cut && skb.set_len(frame_len) && skb.store(frame, frame_len)).then_some(())
    }
}

/// # Safety
/// As [`become_answer`].
#[inline(always)]
unsafe fn write_v4(scratch: *mut u8, config: &Config, packet: &Packet, mtu: u32, quoted: u32) {
    let Addr(source) = config.node_v4;
    let source = if source[3] == 0 {
        u32::from_ne_bytes(GATEWAY_V4)
    } else {
        source[3]
    };
    let total_len = (IPV4_LEN + ICMP_LEN) as u16 + quoted as u16;
    // SAFETY: as the caller promises.
    unsafe {
        let ip = scratch.add(IP_V4);
        // Version and length, precedence "internetwork control" (RFC 1812, section 4.3.2.5), length.
        let [hi, lo] = total_len.to_be_bytes();
        ip.cast::<[u8; 4]>().write([0x45, 0xc0, hi, lo]);
        // Never cut, so it needs no identification (RFC 6864, section 4.1).
        ip.add(4).cast::<[u8; 4]>().write([0, 0, 0x40, 0]);
        ip.add(8).cast::<[u8; 4]>().write([64, protocol::ICMP, 0, 0]);
        ip.add(12).cast::<u32>().write_unaligned(source);
        ip.add(16).cast::<u32>().write_unaligned(packet.source.0[3]);
        ip.add(10)
            .cast::<u16>()
            .write_unaligned(folded(sum(ip, IPV4_LEN as u32, 0)));
        let (kind, code) = if mtu == 0 { (11, 0) } else { (3, 4) };
        write_icmp(scratch, kind, code, mtu, quoted, 0);
    }
}

/// # Safety
/// As [`become_answer`].
#[inline(always)]
unsafe fn write_v6(scratch: *mut u8, config: &Config, packet: &Packet, mtu: u32, quoted: u32) {
    let source = if config.node_v6.is_unspecified() {
        Addr::from_bytes(GATEWAY_V6)
    } else {
        config.node_v6
    };
    let payload_len = ICMP_LEN as u16 + quoted as u16;
    // SAFETY: as the caller promises.
    unsafe {
        let ip = scratch.add(IP_V6);
        ip.cast::<[u8; 4]>().write([0x60, 0, 0, 0]);
        ip.add(4).cast::<u16>().write_unaligned(payload_len.to_be());
        ip.add(8).cast::<Addr>().write_unaligned(source);
        ip.add(24).cast::<Addr>().write_unaligned(packet.source);
        // The pseudo-header (RFC 8200, section 8.1): addresses, length, protocol. Length and
        // protocol lie in what the header keeps its next header and hop limit in, and are written
        // so that their sum is the same.
        ip.add(6).cast::<[u8; 2]>().write([0, protocol::ICMPV6]);
        let pseudo = sum(ip.add(4), (IPV6_LEN - 4) as u32, 0);
        ip.add(6).cast::<[u8; 2]>().write([protocol::ICMPV6, 64]);
        let kind = if mtu == 0 { 3 } else { 2 };
        write_icmp(scratch, kind, 0, mtu, quoted, pseudo);
    }
}

/// # Safety
/// As [`become_answer`].
#[inline(always)]
unsafe fn write_icmp(scratch: *mut u8, kind: u8, code: u8, mtu: u32, quoted: u32, seed: u32) {
    // SAFETY: as the caller promises.
    unsafe {
        let icmp = scratch.add(ICMP);
        icmp.cast::<[u8; 4]>().write([kind, code, 0, 0]);
        // IPv4 has 16 bits for it, with zeros before (RFC 1191, section 4).
        icmp.add(4).cast::<[u8; 4]>().write(mtu.to_be_bytes());
        let words = (ICMP_LEN as u32 + quoted + 3) & !3;
        let total = sum_part::<0>(icmp, words, seed);
        let total = sum_part::<{ SUM_MAX }>(icmp, words, total);
        let total = sum_part::<{ 2 * SUM_MAX }>(icmp, words, total);
        icmp.add(2).cast::<u16>().write_unaligned(folded(total));
    }
}

/// Adds what one call sums up, from `BEGIN` on, of a message of `len` bytes. Each part has limits of
/// its own, which the verifier has to see as constants.
///
/// # Safety
/// `icmp` must be valid for the longest message.
#[inline(always)]
unsafe fn sum_part<const BEGIN: u32>(icmp: *mut u8, len: u32, seed: u32) -> u32 {
    let most = (ICMP_LEN as u32 + QUOTE_V6 - BEGIN).min(SUM_MAX);
    match bounded(len.saturating_sub(BEGIN).min(most), most) {
        // SAFETY: as the caller promises.
        Some(len) => unsafe { sum(icmp.add(BEGIN as usize), len & !3, seed) },
        None => seed,
    }
}

/// # Safety
/// `from` must be valid for `len` bytes.
#[inline(always)]
unsafe fn sum(from: *mut u8, len: u32, seed: u32) -> u32 {
    // SAFETY: as the caller promises.
    unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, from.cast(), len, seed) as u32 }
}

/// The checksum of a sum (RFC 1071).
#[inline(always)]
const fn folded(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

/// A length that the verifier, too, knows to be from 1 to `max`. Before Linux 6.8 it draws nothing from a test for
/// zero: so what is tested is the length less one.
#[inline(always)]
fn bounded(len: u32, max: u32) -> Option<u32> {
    let less_one = core::hint::black_box(len.wrapping_sub(1));
    if less_one >= max { None } else { Some(less_one + 1) }
}

/// Sends the answer where its packet came from.
#[inline(always)]
fn send(skb: Skb, packet: &Packet) -> Option<i32> {
    match resolve::resolve(&packet.source) {
        // Through the pod's link, so that the answer enters the pod as all else does.
        // SAFETY: a helper call.
        Place::Endpoint(endpoint) => Some(unsafe { bpf_redirect(endpoint.ifindex, 0) } as i32),
        Place::Remote(route) => match forward::send(skb, packet.v4, route) {
            Ok(verdict) | Err(verdict) => Some(verdict.action),
        },
        // The stack keeps to the MTU of its routes by itself.
        Place::OwnNode | Place::OwnBlock | Place::Outside => None,
    }
}
