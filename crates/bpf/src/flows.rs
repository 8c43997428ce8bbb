//! The table of flows.
//!
//! A flow has a row for each direction, under the key that its packets have on the wire, so that either is found by
//! one look-up; the row says all that becomes of them. How flows end by themselves is in `expiry`.

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::bpf_ktime_get_coarse_ns};
use tombolo_abi::{BackendState, Direction, FlowKey, FlowState, NeighbourFlow, Outcome, bpf_timer};

use crate::{
    expiry,
    maps::{FLOW_SCRATCH, FLOWS, FlowTable, NEIGHBOUR_FLOWS, READ_THROUGH},
    parse::protocol,
    tracking::Tracking,
};

/// The kernel's error where there is an entry already.
const EEXIST: i32 = -17;
/// Where there is none.
const ENOENT: i32 = -2;

/// What is to be done with a packet of a flow.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It goes on.
    GoesOn,
    /// It begins a flow anew, as if there had been none.
    BeginsAnew,
    /// The backend of its connection is gone.
    Gone,
}

/// Nanoseconds of `CLOCK_MONOTONIC`, as of the last tick.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: a helper call.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// What is rare: a flow's state changes, by a packet with this key. `news`: what the packet tells of its direction, as
/// bits of [`Direction::FIN`] and those after it; `state`: the backend's, a [`BackendState`].
#[inline(always)]
pub fn turn(key: &FlowKey, row: &mut Direction, news: u32, state: u8, is_syn: bool) -> Turn {
    let answers = answers_to(key, row);
    let serves = state == BackendState::Serving as u8;
    if row.original != 0 {
        // Connections stay with their backend until it is gone: the next one finds another. What has no connection
        // moves on as soon as it no longer serves.
        let ended = is_closed(row.flags, &answers);
        if (is_syn && (ended || !serves)) || (key.protocol == protocol::UDP && !serves) {
            end(key, &answers);
            return Turn::BeginsAnew;
        }
    }
    if state == BackendState::Gone as u8 && key.protocol != protocol::UDP {
        if row.original != 0 {
            end(key, &answers);
        } else {
            end(&answers, key);
        }
        return Turn::Gone;
    }
    let was = row.flags;
    row.flags = was | news;
    if news & (Direction::FIN | Direction::RST) != 0 && is_closed(row.flags, &answers) {
        expiry::hasten(if row.original != 0 { key } else { &answers });
    }
    Turn::GoesOn
}

/// Whether a connection is over, by the flags of one direction and the key of the other.
#[inline(always)]
fn is_closed(flags: u32, other: &FlowKey) -> bool {
    // SAFETY: as in `tracking`.
    let others = row(other).map_or(0, |other| unsafe { (*other).flags });
    (flags | others) & Direction::RST != 0 || flags & others & Direction::FIN != 0
}

/// The key of the other direction of a flow.
#[inline(always)]
pub const fn answers_to(key: &FlowKey, row: &Direction) -> FlowKey {
    if row.backend == 0 {
        return key.reversed();
    }
    FlowKey {
        source: row.destination,
        destination: row.source,
        source_port: row.destination_port,
        destination_port: row.source_port,
        protocol: key.protocol,
        pad: [0; 3],
    }
}

/// The row of a key. While one version takes over from another, a flow that is in the neighbour's table alone goes on
/// there until the table is carried over.
#[inline(always)]
pub fn row(key: &FlowKey) -> Option<*mut Direction> {
    if let Some(state) = FLOWS.get_ptr_mut(key) {
        // SAFETY: a place within the row.
        return Some(unsafe { &raw mut (*state).direction });
    }
    if READ_THROUGH.load() != 0
        && let Some(state) = NEIGHBOUR_FLOWS.get_ptr_mut(key)
    {
        // SAFETY: as above.
        return Some(unsafe { &raw mut (*state).direction });
    }
    None
}

/// Forgets a flow, by the keys of both directions: the answering one first, since the original one has the timer.
/// Returns `false` where the latter is still there, as the table may be busy on this CPU: then its timer tries again.
#[inline(always)]
pub fn end(original: &FlowKey, answering: &FlowKey) -> bool {
    if READ_THROUGH.load() != 0 {
        let _ = NEIGHBOUR_FLOWS.remove(answering);
        let _ = NEIGHBOUR_FLOWS.remove(original);
    }
    is_gone(FLOWS.remove(answering)) && is_gone(FLOWS.remove(original))
}

const fn is_gone(removed: Result<(), i32>) -> bool {
    matches!(removed, Ok(()) | Err(ENOENT))
}

/// Forgets the connection whose answers have this key, if it is over: its rows stay a while, but its ports may be used
/// anew at once. Returns whether the key is free.
#[inline(always)]
pub fn make_way(answers: &FlowKey) -> bool {
    let Some(found) = row(answers) else {
        return true;
    };
    // SAFETY: as in `tracking`.
    let found = unsafe { &*found };
    let original = answers_to(answers, found);
    if found.original != 0 || !is_closed(found.flags, &original) {
        return false;
    }
    end(&original, answers);
    true
}

/// Has a connection that begins, and stays as it is, get its own answers: those of one that is over, by a Service to
/// the same backend, would have the same key.
#[inline(always)]
pub fn begin_beside(tracking: &mut Tracking) {
    tracking.shared();
    flow_make_way();
    tracking.shared();
}

/// Public by name, so that the verifier looks at it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flow_make_way() -> i32 {
    Tracking::current().map_or(0, |tracking| i32::from(make_way(&tracking.key.reversed())))
}

/// Where rows are put together.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct FlowScratch {
    /// Whole rows: words, since there may be no timer here.
    row: [u64; 16],
    /// The directions of a flow that begins.
    pub original: Direction,
    /// As `original`.
    pub answering: Direction,
    /// The key of the answering direction.
    pub answers: FlowKey,
}

/// What came of making a row.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// It is there.
    Done,
    /// There is another already.
    Taken,
    /// There is no room.
    Full,
}

/// Makes one row; never over another. While one version takes over from another, the flow begins in both tables: its
/// other direction may be the neighbour's.
#[inline(always)]
pub fn make(key: &FlowKey, direction: &Direction) -> Made {
    let Some(scratch) = FLOW_SCRATCH.get_ptr_mut(0) else {
        return Made::Full;
    };
    // SAFETY: a place within the scratch.
    let scratch = unsafe { &raw mut (*scratch).row };
    if READ_THROUGH.load() != 0 {
        let row: *mut NeighbourFlow = scratch.cast();
        // SAFETY: the scratch is this CPU's own, programs of one CPU do not interleave here, and it has the room.
        let row = unsafe {
            (*row).direction = *direction;
            (*row).added = [0; 6];
            &*row
        };
        match insert(&NEIGHBOUR_FLOWS, key, row) {
            Made::Done => {}
            other => return other,
        }
    }
    let row: *mut FlowState = scratch.cast();
    // SAFETY: as above.
    let row = unsafe {
        (*row).direction = *direction;
        (*row).timer = bpf_timer::default();
        #[cfg(feature = "abi-next")]
        {
            (*row).began = now();
        }
        &*row
    };
    let made = insert(&FLOWS, key, row);
    if READ_THROUGH.load() != 0 && made != Made::Done {
        let _ = NEIGHBOUR_FLOWS.remove(key);
    }
    made
}

#[inline(always)]
fn insert<V>(table: &FlowTable<V>, key: &FlowKey, row: &V) -> Made {
    match table.insert(key, row, u64::from(BPF_NOEXIST)) {
        Ok(()) => Made::Done,
        Err(EEXIST) => Made::Taken,
        Err(_) => Made::Full,
    }
}

/// Begins a flow whose packets stay as they are. Out of line: once in a flow.
///
/// # Errors
/// `FlowTableFull`: only flows that are there go on.
#[inline(always)]
pub fn begin_untranslated(tracking: &mut Tracking) -> Result<(), Outcome> {
    tracking.shared();
    if flow_begin() == 0 {
        Ok(())
    } else {
        Err(Outcome::FlowTableFull)
    }
}

/// Public by name, so that the verifier looks at it once. Returns 0, or that there is no room.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flow_begin() -> i32 {
    let Some(Tracking { key, .. }) = Tracking::current() else {
        return 0;
    };
    let key: &FlowKey = key;
    let original = Direction {
        last_seen: now(),
        original: 1,
        ..Direction::default()
    };
    let answering = Direction::default();
    // Another CPU may have begun the same flow, or its answer: then that one stands.
    let answers = key.reversed();
    match make(&answers, &answering) {
        Made::Full => return 1,
        Made::Taken => return 0,
        Made::Done => {}
    }
    match make(key, &original) {
        Made::Done => {
            expiry::arm(key);
            0
        }
        Made::Taken => 0,
        Made::Full => {
            end(key, &answers);
            1
        }
    }
}
