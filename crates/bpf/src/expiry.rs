//! How flows end: by themselves, in the kernel, since they must not pile up while nobody is there to look.
//!
//! Each flow has a timer, in the row of its original direction. It looks at when either direction was seen last, and
//! goes off again when that one's time is up, or ends both. So a packet writes nothing but `last_seen`, and nothing
//! ever walks the table.
//!
//! Timers go off together, at the next of moments that are a few hundredths of a second apart: the kernel's clock
//! interrupts a CPU once for all that are due, and to program it costs more than all else in a flow's life.

use core::ffi::{c_long, c_void};

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, bpf_timer},
    helpers::{
        bpf_for_each_map_elem, bpf_ktime_get_ns, bpf_timer_init, bpf_timer_set_callback, bpf_timer_start,
    },
    macros::classifier,
    programs::TcContext,
};
use tombolo_abi::{Direction, FlowKey, FlowState};

use crate::{
    flows::{answers_to, end, now},
    maps::{FLOWS, TIMEOUTS},
    parse::protocol,
};

const CLOCK_MONOTONIC: u64 = 1;
/// When a table's flow could not be ended for the moment.
const AGAIN: u64 = 100_000_000;
/// From one moment at which timers go off to the next: 33.6 ms, a power of two.
const MOMENTS: u64 = 1 << 25;

/// Starts the timer of a flow that has just begun, by its original direction's key.
#[inline(always)]
pub fn arm(key: &FlowKey) {
    if let Some(state) = FLOWS.get_ptr_mut(key) {
        arm_row(state, key.protocol);
    }
}

#[inline(always)]
fn arm_row(state: *mut FlowState, protocol: u8) {
    let timeouts = TIMEOUTS.load();
    let first = if protocol == protocol::TCP {
        timeouts.half_open
    } else {
        timeouts.other
    };
    // SAFETY: helper calls, with the map that the row is of.
    unsafe {
        let timer: *mut bpf_timer = (&raw mut (*state).timer).cast();
        // One that is there already goes on.
        if bpf_timer_init(timer, table(), CLOCK_MONOTONIC) == 0 {
            bpf_timer_set_callback(timer, goes_off as *mut c_void);
            start(timer, first);
        }
    }
}

/// Has a timer go off at the first moment when so many nanoseconds are over. By the precise clock, since the coarse one
/// is behind by up to a tick, which would set apart those that are to go off together.
#[inline(always)]
fn start(timer: *mut bpf_timer, nanoseconds: u64) {
    // SAFETY: helper calls, with a row's timer; the second fails where it was never initialized.
    unsafe {
        let now = bpf_ktime_get_ns();
        let moment = (now + nanoseconds) | (MOMENTS - 1);
        bpf_timer_start(timer, moment - now, 0);
    }
}

/// Has the timer of a connection that is over go off soon.
#[inline(always)]
pub fn hasten(original: &FlowKey) {
    if let Some(state) = FLOWS.get_ptr_mut(original) {
        // SAFETY: a place within the row.
        let timer = unsafe { &raw mut (*state).timer };
        start(timer.cast(), TIMEOUTS.load().closing);
    }
}

const fn table() -> *mut c_void {
    (&raw const FLOWS).cast_mut().cast()
}

/// What a timer does. Not public by name, as the verifier wants it.
extern "C" fn goes_off(_map: *mut c_void, key: *const FlowKey, state: *mut FlowState) -> c_long {
    // SAFETY: the kernel calls it with the row's key and value, which stay until they are removed.
    let (key, row) = unsafe { (*key, &(*state).direction) };
    let answers = answers_to(&key, row);
    // SAFETY: read at once.
    let left = match unsafe { FLOWS.get(answers) } {
        Some(other) => left(key.protocol, row, &other.direction),
        None => 0,
    };
    let again = match left {
        0 if end(&key, &answers) => return 0,
        0 => AGAIN,
        left => left,
    };
    // SAFETY: a place within the row, which is still there.
    start(unsafe { &raw mut (*state).timer }.cast(), again);
    0
}

/// Nanoseconds that a flow has left.
#[inline(always)]
fn left(protocol: u8, original: &Direction, answering: &Direction) -> u64 {
    let timeouts = TIMEOUTS.load();
    let flags = original.flags | answering.flags;
    let timeout = match protocol {
        protocol::TCP => {
            let both_ended = original.flags & answering.flags & Direction::FIN != 0;
            if both_ended || flags & Direction::RST != 0 {
                timeouts.closing
            } else if answering.last_seen != 0 && original.flags & Direction::ESTABLISHED != 0 {
                timeouts.established
            } else {
                timeouts.half_open
            }
        }
        protocol::UDP if answering.last_seen != 0 => timeouts.stream,
        _ => timeouts.other,
    };
    let last_seen = original.last_seen.max(answering.last_seen);
    (last_seen + timeout).saturating_sub(now())
}

/// Starts the timers of flows that were written from outside, as the agent does when one ABI version takes over from
/// another. Run on whatever packet; it is no hook.
#[classifier]
pub fn arm_flows(_context: TcContext) -> i32 {
    // SAFETY: a helper call, with the map that the callback expects.
    unsafe { bpf_for_each_map_elem(table(), arm_each as *mut c_void, core::ptr::null_mut(), 0) };
    TC_ACT_SHOT
}

extern "C" fn arm_each(
    _map: *mut c_void,
    key: *const FlowKey,
    state: *mut FlowState,
    _: *mut c_void,
) -> c_long {
    // SAFETY: the kernel calls it with a row's key and value.
    unsafe {
        if (*state).direction.original != 0 {
            arm_row(state, (*key).protocol);
        }
    }
    0
}
