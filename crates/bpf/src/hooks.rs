//! The programs, one to a file; each is named by [`tombolo_abi::Hook::word`].

mod from_overlay;
mod from_pod;
mod from_uplink;
mod to_overlay;
mod to_pod;
mod to_uplink;

use tombolo_abi::Outcome;

use crate::{parse::Packet, skb::Skb, translate::Translation, verdict::Verdict};

/// Hands a packet to the node's stack, as what it becomes.
#[inline(always)]
fn to_stack(skb: Skb, packet: &Packet, to: &Translation) -> Result<Verdict, Verdict> {
    to.apply(skb, packet)?;
    skb.clear_resolved();
    Ok(Verdict::pass(Outcome::ToStack))
}
