//! The programs, one to a file; each is named by [`tombolo_abi::Hook::word`].

mod from_overlay;
mod from_pod;
mod from_uplink;
mod to_overlay;
mod to_pod;
mod to_uplink;

use tombolo_abi::Outcome;

use crate::{skb::Skb, verdict::Verdict};

/// Hands a packet to the node's stack.
#[inline(always)]
fn to_stack(skb: Skb) -> Verdict {
    skb.clear_resolved();
    Verdict::pass(Outcome::ToStack)
}
