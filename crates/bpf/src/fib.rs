//! Out of the node by the kernel's own routes: what a Service answers to a client outside of the cluster.
//!
//! The source is an address of this node, or of a Service; a stack that is to forward it would take it for forged.

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_REDIRECT, TC_ACT_SHOT, bpf_fib_lookup},
    helpers,
};
use tombolo_abi::{Addr, Outcome};

use crate::{
    forward::to_next_hop,
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

/// Sends a packet, as what it becomes, where the kernel's routes lead; counts the hop.
#[inline(always)]
pub fn send(skb: Skb, packet: &Packet, to: &Translation) -> Result<Verdict, Verdict> {
    ttl::check(skb, packet)?;
    to.apply(skb, packet)?;
    ttl::decrement(skb, packet)?;
    let action = redirect(skb, &to.ends);
    Ok(Verdict::redirect(Outcome::Routed, i64::from(action)))
}

/// Has a packet with these addresses leave as it is. Returns the action.
#[inline(always)]
pub fn redirect(skb: Skb, ends: &Ends) -> i32 {
    skb.set_resolved();
    fib_redirect(skb.as_ptr(), ends)
}

/// Public by name, so that the verifier looks at it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn fib_redirect(context: *mut __sk_buff, ends: *const Ends) -> i32 {
    // SAFETY: it is called with a reference. The verifier, which looks at it alone, wants it tested.
    match unsafe { ends.as_ref() } {
        Some(ends) => find_and_redirect(Skb::new(context), ends),
        None => TC_ACT_SHOT,
    }
}

#[inline(always)]
fn find_and_redirect(skb: Skb, ends: &Ends) -> i32 {
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
    if found != SUCCESS && found != NO_NEIGHBOUR {
        return TC_ACT_SHOT;
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
        TC_ACT_REDIRECT => TC_ACT_REDIRECT,
        _ => TC_ACT_SHOT,
    }
}
