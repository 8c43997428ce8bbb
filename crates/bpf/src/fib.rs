//! Out of the node by the kernel's own routes: what a Service answers to a client outside of the cluster.
//!
//! The source is an address of this node, or of a Service; a stack that is to forward it would take it for forged.

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_REDIRECT, bpf_fib_lookup},
    helpers,
};
use tombolo_abi::{Addr, Outcome};

use crate::{
    forward::to_next_hop,
    icmp::{self, Error},
    mtu,
    parse::Packet,
    skb::Skb,
    translate::{Ends, Translation},
    ttl,
    verdict::Verdict,
};

/// Words of a request.
const WORDS: usize = size_of::<bpf_fib_lookup>() / 8;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// What the look-up returns when it has found a way (linux/bpf.h), the second when the next hop's MAC is not known
/// yet, which is learned when the packet goes there.
const SUCCESS: i64 = 0;
const NO_NEIGHBOUR: i64 = 7;
/// The same, when the packet does not fit.
const TOO_BIG: i64 = 8;

/// Sends a packet, as what it becomes, where the kernel's routes lead; counts the hop, minds the MTU.
#[inline(always)]
pub fn send(skb: Skb, packet: &Packet, to: &Translation) -> Result<Verdict, Verdict> {
    ttl::check(skb, packet)?;
    skb.set_resolved();
    match fib_redirect(skb.as_ptr(), &raw const to.ends, packet) {
        NO_WAY => return Err(Outcome::NoRoute.into()),
        REDIRECTED => {}
        mtu => return Err(icmp::answer(skb, packet, Error::TooBig { mtu }, Outcome::TooBig)),
    }
    // It leaves when the program ends.
    to.apply(skb, packet)?;
    ttl::decrement(skb, packet)?;
    Ok(Verdict::redirect(Outcome::Routed, i64::from(TC_ACT_REDIRECT)))
}

/// Sends what has these addresses and fits everywhere; `false`: there is no way.
#[inline(always)]
pub fn send_as_it_is(skb: Skb, ends: &Ends) -> bool {
    skb.set_resolved();
    fib_redirect(skb.as_ptr(), ends, core::ptr::null()) == REDIRECTED
}

/// What [`fib_redirect`] returns but for an MTU.
const NO_WAY: u32 = 0;
const REDIRECTED: u32 = 1;

/// Has a packet leave where one with these addresses would; where the packet (if one is given) is too big, returns the
/// MTU. Public by name, so that the verifier looks at it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn fib_redirect(context: *mut __sk_buff, ends: *const Ends, packet: *const Packet) -> u32 {
    // SAFETY: it is called with a reference. The verifier, which looks at it alone, wants it tested.
    match unsafe { ends.as_ref() } {
        // SAFETY: it is called with a reference, or null.
        Some(ends) => find_and_redirect(Skb::new(context), ends, unsafe { packet.as_ref() }),
        None => NO_WAY,
    }
}

#[inline(always)]
fn find_and_redirect(skb: Skb, ends: &Ends, packet: Option<&Packet>) -> u32 {
    let mut request = core::mem::MaybeUninit::<[u64; WORDS]>::uninit();
    let words: *mut u64 = request.as_mut_ptr().cast();
    for word in 0..WORDS {
        // One by one: a call would need room on the stack that there is none of on older kernels.
        // SAFETY: within the request.
        unsafe { words.add(word).write_volatile(0) };
    }
    // SAFETY: all zero is a valid request, and words are as well aligned.
    let way = unsafe { &mut *words.cast::<bpf_fib_lookup>() };
    let v4 = ends.destination.is_v4();
    way.ifindex = skb.ifindex();
    if v4 {
        way.family = AF_INET;
        way.__bindgen_anon_3.ipv4_src = ends.source.0[3];
        way.__bindgen_anon_4.ipv4_dst = ends.destination.0[3];
    } else {
        way.family = AF_INET6;
        way.__bindgen_anon_3.ipv6_src = ends.source.0;
        way.__bindgen_anon_4.ipv6_dst = ends.destination.0;
    }
    // SAFETY: the request is valid for the call, and has the length that is passed.
    let found = unsafe {
        helpers::bpf_fib_lookup(
            skb.as_ptr().cast(),
            &raw mut *way,
            size_of::<bpf_fib_lookup>() as i32,
            0,
        )
    };
    // Without a length of the packet, the helper takes the packet's own, and writes the MTU in its place: not where it
    // knows no MAC, and what does not fit is answered when it does.
    // SAFETY: either is a number.
    let mtu = u32::from(unsafe { way.__bindgen_anon_1.mtu_result });
    match found {
        SUCCESS | NO_NEIGHBOUR => {}
        TOO_BIG => return mtu,
        _ => return NO_WAY,
    }
    if let Some(packet) = packet
        && mtu != 0
        && packet.size > mtu
        && mtu::segment(skb, packet) > mtu
    {
        return mtu;
    }
    // SAFETY: whichever family the helper has set, it has written that address.
    let next_hop = unsafe {
        if way.family == AF_INET {
            Addr::from_v4_word(way.__bindgen_anon_4.ipv4_dst)
        } else {
            Addr(way.__bindgen_anon_4.ipv6_dst)
        }
    };
    match to_next_hop(v4, way.ifindex, &next_hop, Outcome::Routed).action {
        TC_ACT_REDIRECT => REDIRECTED,
        _ => NO_WAY,
    }
}
