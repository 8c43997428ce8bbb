//! Source ports of translated flows: each answer must find its own way back.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_CURRENT_NETNS, bpf_sock, bpf_sock_tuple},
    helpers::{bpf_get_prandom_u32, bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp},
};
use tombolo_abi::{Direction, FlowKey, Outcome};

use crate::{
    flows::{self, Made},
    parse::protocol,
    skb::Skb,
};

/// The ports that are chosen from; the node's own connections are kept out of them.
const FIRST: u16 = 40_960;
const COUNT: u32 = 65_536 - FIRST as u32;
/// How many are tried.
const TRIES: u32 = 16;
/// From one to the next: coprime to how many there are, so that all come in turn.
const STEP: u32 = 6_949;

/// Makes the row of a flow's answers, which come to the port that is returned: the one that the key asks for where
/// that is free.
///
/// `of_node`: the source is the node's own address, whose ports other than these belong to its processes; and of
/// these, those that one has all the same.
///
/// # Errors
/// `NoSourcePort`, `FlowTableFull`.
#[inline(always)]
pub fn allocate(skb: Skb, answers: &mut FlowKey, row: &Direction, of_node: bool) -> Result<u16, Outcome> {
    // SAFETY: a helper call.
    let start = unsafe { bpf_get_prandom_u32() } & 0xffff;
    let skips_first = of_node && u16::from_be(answers.destination_port) < FIRST;
    for attempt in u32::from(skips_first)..TRIES {
        if attempt != 0 {
            answers.destination_port = (FIRST + ((start + attempt * STEP) % COUNT) as u16).to_be();
        }
        if of_node && port_in_use(skb.as_ptr(), answers) != 0 {
            continue;
        }
        match flows::make(answers, row) {
            Made::Done => return Ok(answers.destination_port),
            Made::Taken => {}
            Made::Full => return Err(Outcome::FlowTableFull),
        }
    }
    Err(Outcome::NoSourcePort)
}

/// Whether a process of the node would take what comes with this key. Public by name, so that the verifier looks at
/// it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn port_in_use(context: *mut __sk_buff, answers: *const FlowKey) -> i32 {
    // SAFETY: it is called with a reference. The verifier, which looks at it alone, wants it tested.
    let Some(key) = (unsafe { answers.as_ref() }) else {
        return 1;
    };
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
            protocol::TCP => bpf_skc_lookup_tcp(context.cast(), tuple, len, netns, 0),
            protocol::UDP => bpf_sk_lookup_udp(context.cast(), tuple, len, netns, 0),
            _ => return 0,
        };
        if socket.is_null() {
            return 0;
        }
        bpf_sk_release(socket.cast());
    }
    1
}
