//! Source ports of translated flows: each answer must find its own way back.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_CURRENT_NETNS, bpf_sock, bpf_sock_tuple},
    helpers::{bpf_get_prandom_u32, bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp},
};
use tombolo_abi::{FlowKey, Outcome, SOURCE_PORTS as RANGE};

use crate::{
    flows::{self, Made},
    maps::{FLOW_SCRATCH, SOURCE_PORTS},
    parse::protocol,
    skb::Skb,
};

const FIRST: u16 = *RANGE.start();
/// How many ports there are to choose from.
const COUNT: u32 = (*RANGE.end() - FIRST) as u32 + 1;
/// How many are tried.
const TRIES: u32 = 16;
/// From one to the next: coprime to how many there are, so that all come in turn.
const STEP: u32 = 6_949;

/// Makes the row of a flow's answers, both of which lie in the scratch. The answers come to the port that is returned:
/// the one that their key asks for where that is free.
///
/// `of_node`: the source is the node's own address, whose ports other than these belong to its processes; and of
/// these, those that one has all the same.
///
/// # Errors
/// `NoSourcePort`, `FlowTableFull`.
#[inline(always)]
pub fn allocate(skb: Skb, wanted: u16, of_node: bool) -> Result<u16, Outcome> {
    // SAFETY: a helper call.
    let start = unsafe { bpf_get_prandom_u32() } & 0xffff;
    let skips_first = of_node && u16::from_be(wanted) < FIRST;
    for attempt in u32::from(skips_first)..TRIES {
        let port = if attempt == 0 {
            wanted
        } else {
            (FIRST + ((start + attempt * STEP) % COUNT) as u16).to_be()
        };
        match flow_try_port(skb.as_ptr(), u32::from(port), u32::from(of_node)) {
            0 => return Ok(port),
            FULL => return Err(Outcome::FlowTableFull),
            _ => {}
        }
    }
    Err(Outcome::NoSourcePort)
}

/// What [`flow_try_port`] returns but for 0, which is that the row is made.
const TAKEN: i32 = 1;
const FULL: i32 = 2;

/// Makes the row of answers that come to this port. Public by name, so that the verifier looks at it once, and not for
/// each of the tries.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flow_try_port(context: *mut __sk_buff, port: u32, of_node: u32) -> i32 {
    let Some(scratch) = FLOW_SCRATCH.get_ptr_mut(0) else {
        return FULL;
    };
    // SAFETY: the scratch is this CPU's own, and programs of one CPU do not interleave here.
    let scratch = unsafe { &mut *scratch };
    scratch.answers.destination_port = port as u16;
    if of_node != 0 {
        // First, so that who binds a socket meanwhile looks at the flows.
        if let Some(mark) = mark(scratch.answers.protocol, port as u16) {
            // SAFETY: an aligned word of the map's.
            unsafe { mark.write_volatile(USED) };
        }
        if is_in_use(Skb::new(context), &scratch.answers) {
            return TAKEN;
        }
    }
    for _ in 0..2 {
        match flows::make(&scratch.answers, &scratch.answering) {
            Made::Done => return 0,
            Made::Taken if flows::make_way(&scratch.answers) => {}
            Made::Taken => break,
            Made::Full => return FULL,
        }
    }
    TAKEN
}

/// The mark of a port (network byte order) that no flow has had since it was looked for.
pub const UNUSED: u32 = 0;
/// Of one that a flow may have.
pub const USED: u32 = 1;
/// Of one for which somebody looks through the flows.
pub const LOOKED_FOR: u32 = 2;

/// What says whether a port (network byte order) of the node may be the source of a translated flow. That is noted before
/// it becomes one; and taken back when somebody who wants the port has looked through the flows, unless another was
/// noted meanwhile. So no flow is missed, and its end need not be noted. `None`: it is none of these ports.
#[inline(always)]
pub fn mark(protocol: u8, port: u16) -> Option<*mut u32> {
    let index = u32::from(u16::from_be(port)).checked_sub(u32::from(FIRST))?;
    let of_udp = if protocol == protocol::UDP { COUNT } else { 0 };
    SOURCE_PORTS.get_ptr_mut(index + of_udp)
}

/// Whether a process of the node would take what comes with this key.
#[inline(always)]
fn is_in_use(skb: Skb, key: &FlowKey) -> bool {
    // What is not of the family is left as it is, and not told: zeroing it were a call, for which older kernels have
    // no room on the stack.
    let mut room = core::mem::MaybeUninit::<bpf_sock_tuple>::uninit();
    let tuple = room.as_mut_ptr();
    // SAFETY: writes within the tuple.
    let len = unsafe {
        if key.destination.is_v4() {
            let v4 = &raw mut (*tuple).__bindgen_anon_1.ipv4;
            (*v4).saddr = key.source.0[3];
            (*v4).daddr = key.destination.0[3];
            (*v4).sport = key.source_port;
            (*v4).dport = key.destination_port;
            12
        } else {
            let v6 = &raw mut (*tuple).__bindgen_anon_1.ipv6;
            (*v6).saddr = key.source.0;
            (*v6).daddr = key.destination.0;
            (*v6).sport = key.source_port;
            (*v6).dport = key.destination_port;
            36
        }
    };
    let netns = i64::from(BPF_F_CURRENT_NETNS) as u64;
    // SAFETY: helper calls; what they find is given back.
    unsafe {
        let socket: *mut bpf_sock = match key.protocol {
            protocol::TCP => bpf_skc_lookup_tcp(skb.as_ptr().cast(), tuple, len, netns, 0),
            protocol::UDP => bpf_sk_lookup_udp(skb.as_ptr().cast(), tuple, len, netns, 0),
            _ => return false,
        };
        if socket.is_null() {
            return false;
        }
        bpf_sk_release(socket.cast());
    }
    true
}
