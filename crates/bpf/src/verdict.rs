//! What a program decides: an action for the kernel, an outcome for the counters.

use aya_ebpf::bindings::{TC_ACT_REDIRECT, TC_ACT_SHOT};
use tombolo_abi::Outcome;

/// `TCX_NEXT`, and `TC_ACT_UNSPEC` of clsact: on to the next program, then to the kernel.
const NEXT: i32 = -1;

/// A decision about one packet.
#[derive(Clone, Copy)]
pub struct Verdict {
    /// What the kernel is told.
    pub action: i32,
    /// What is counted.
    pub outcome: Outcome,
}

impl Verdict {
    /// Leaves the packet to the next program and the kernel.
    #[inline(always)]
    pub const fn pass(outcome: Outcome) -> Self {
        Self {
            action: NEXT,
            outcome,
        }
    }

    /// Follows what a redirecting helper returned; where it refused, the packet is dropped.
    #[inline(always)]
    pub const fn redirect(outcome: Outcome, returned: i64) -> Self {
        if returned == TC_ACT_REDIRECT as i64 {
            Self {
                action: TC_ACT_REDIRECT,
                outcome,
            }
        } else {
            Self {
                action: TC_ACT_SHOT,
                outcome: Outcome::NoRoute,
            }
        }
    }
}

/// A reason to drop ends the packet.
impl From<Outcome> for Verdict {
    #[inline(always)]
    fn from(reason: Outcome) -> Self {
        Self {
            action: TC_ACT_SHOT,
            outcome: reason,
        }
    }
}
