//! ICMP errors: the sender of a packet that goes no further is told why.
//!
//! How the packet in hand becomes the answer, and leaves, is in `answer`.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{bpf_ktime_get_ns, bpf_skb_load_bytes},
};
use tombolo_abi::{Addr, Config, GATEWAY_V4, GATEWAY_V6, Outcome};

use crate::{
    answer::{self, BODY, CUT, IPV4_LEN, IPV6_LEN, folded, sum},
    maps::ICMP_BUCKET,
    parse::{Packet, protocol},
    resolve,
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
    /// Port unreachable (RFC 792; RFC 4443, section 3.1).
    PortUnreachable,
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

const ICMP_LEN: usize = 8;
/// An IPv4 answer is at most 576 bytes long (RFC 1812, section 4.3.2.3).
const QUOTE_V4: u32 = (576 - IPV4_LEN - ICMP_LEN) as u32;
/// An IPv6 answer is at most 1280 bytes long (RFC 4443, section 2.4 c).
const QUOTE_V6: u32 = (1280 - IPV6_LEN - ICMP_LEN) as u32;

/// Where the quote begins in the scratch.
const QUOTE: usize = BODY + ICMP_LEN;

/// Most that the kernel sums up in one call (before Linux 6.13).
const SUM_MAX: u32 = 512;

/// Tells the sender what became of its packet, where the rules allow it; the packet itself is
/// dropped for `reason` either way.
#[inline(always)]
pub fn answer(skb: Skb, packet: &Packet, error: Error, reason: Outcome) -> Verdict {
    let (v4, v6, mtu) = match error {
        Error::TimeExceeded => (11 << 8, 3 << 8, 0),
        Error::TooBig { mtu } => (3 << 8 | 4, 2 << 8, mtu),
        Error::PortUnreachable => (3 << 8 | 3, 1 << 8 | 4, 0),
    };
    let message = if packet.v4 { v4 } else { v6 };
    Verdict {
        action: answer::send(skb, packet, icmp_answer(skb.as_ptr(), packet, message, mtu)),
        outcome: reason,
    }
}

/// A function of its own, with a public name: the verifier looks at such a one once, and not again
/// for each of the places that call it. `message`: its type and code. Returns whether there is an answer.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn icmp_answer(context: *mut __sk_buff, packet: *const Packet, message: u32, mtu: u32) -> i32 {
    // SAFETY: it is called with a reference. The verifier, which looks at it alone, wants it tested.
    match unsafe { packet.as_ref() } {
        Some(packet) => i32::from(turn_back(Skb::new(context), packet, message, mtu).is_some()),
        None => 0,
    }
}

#[inline(always)]
fn turn_back(skb: Skb, packet: &Packet, message: u32, mtu: u32) -> Option<()> {
    if !may_answer(skb, packet) || !take_token() {
        return None;
    }
    let scratch = answer::scratch()?;
    // SAFETY: the scratch is this CPU's own, and programs of one CPU do not interleave here.
    unsafe { become_answer(skb, packet, message, mtu, scratch) }
}

/// Never about ICMP errors, fragments past the first, or to or from what is no single host
/// (RFC 1122, section 3.2.2; RFC 4443, section 2.4 e).
#[inline(always)]
fn may_answer(skb: Skb, packet: &Packet) -> bool {
    if packet.is_later_fragment() || packet.transport >= CUT || !spoof::is_routable(&packet.source) {
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
/// `scratch` must be that of [`answer::scratch`], and used by nothing else.
#[inline(always)]
unsafe fn become_answer(skb: Skb, packet: &Packet, message: u32, mtu: u32, scratch: *mut u8) -> Option<()> {
    let config = resolve::config()?;
    let limit = if packet.v4 { QUOTE_V4 } else { QUOTE_V6 };
    let quoted = bounded(packet.size.min(limit), QUOTE_V6)?;
    let body_len = ICMP_LEN as u32 + quoted;
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
        let pseudo = if packet.v4 {
            // Precedence "internetwork control" (RFC 1812, section 4.3.2.5).
            answer::write_v4(scratch, packet, source_v4(config), 0xc0, protocol::ICMP, body_len);
            0
        } else {
            answer::write_v6(scratch, packet, &source_v6(config), protocol::ICMPV6, body_len)
        };
        write_icmp(scratch, message, mtu, quoted, pseudo);
        answer::replace(skb, packet, scratch, body_len)
    }
}

#[inline(always)]
fn source_v4(config: &Config) -> u32 {
    let Addr(source) = config.node_v4;
    if source[3] == 0 {
        u32::from_ne_bytes(GATEWAY_V4)
    } else {
        source[3]
    }
}

#[inline(always)]
fn source_v6(config: &Config) -> Addr {
    if config.node_v6.is_unspecified() {
        Addr::from_bytes(GATEWAY_V6)
    } else {
        config.node_v6
    }
}

/// # Safety
/// As [`become_answer`].
#[inline(always)]
unsafe fn write_icmp(scratch: *mut u8, message: u32, mtu: u32, quoted: u32, seed: u32) {
    // SAFETY: as the caller promises.
    unsafe {
        let icmp = scratch.add(BODY);
        icmp.cast::<[u8; 4]>()
            .write([(message >> 8) as u8, message as u8, 0, 0]);
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

/// A length that the verifier, too, knows to be from 1 to `max`. Before Linux 6.8 it draws nothing from a test for
/// zero: so what is tested is the length less one.
#[inline(always)]
fn bounded(len: u32, max: u32) -> Option<u32> {
    let less_one = core::hint::black_box(len.wrapping_sub(1));
    if less_one >= max { None } else { Some(less_one + 1) }
}
