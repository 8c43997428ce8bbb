//! Exactly one outcome is counted for each packet that enters a program.

use tombolo_abi::{Hook, Outcome, slot};

use crate::{maps::COUNTERS, skb::Skb, verdict::Verdict};

/// Runs the stages of a hook on a packet, counts what became of it, and gives the kernel its answer.
#[inline(always)]
pub fn counted(hook: Hook, skb: Skb, stages: impl FnOnce(Skb) -> Result<Verdict, Verdict>) -> i32 {
    // The length on entry: an ICMP answer replaces the packet.
    let bytes = skb.len();
    let verdict = match stages(skb) {
        Ok(verdict) | Err(verdict) => verdict,
    };
    count(hook, verdict.outcome, bytes);
    verdict.action
}

/// Counts one.
#[inline(always)]
pub fn count(hook: Hook, outcome: Outcome, bytes: u32) {
    if let Some(counter) = COUNTERS.get_ptr_mut(slot(hook, outcome)) {
        // SAFETY: the slot is this CPU's own, and programs of one CPU that count there do not interleave; but for those
        // at sockets, where one call in very many is lost to the count.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += u64::from(bytes);
        }
    }
}
