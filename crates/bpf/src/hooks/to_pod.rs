//! What the node's stack sends to a pod: of the node's own processes, and what came back through a
//! translation of the stack's.

use aya_ebpf::{EbpfContext as _, macros::classifier, programs::TcContext};
use tombolo_abi::{Hook, Outcome};

use crate::{
    counters::counted,
    deliver::{Entry, deliver},
    parse::Packet,
    resolve, services,
    skb::Skb,
    spoof,
    tracking::Tracking,
    verdict::Verdict,
};

/// Egress of the host side of a pod's link.
#[classifier]
pub fn to_pod(context: TcContext) -> i32 {
    counted(Hook::ToPod, Skb::new(context.as_ptr().cast()), stages)
}

#[inline(always)]
fn stages(skb: Skb) -> Result<Verdict, Verdict> {
    let packet = Packet::parse(skb)?;
    let tracking = Tracking::begin()?;
    services::goes_on(skb, &packet, tracking)?;
    match resolve::endpoint(&packet.destination) {
        Some(endpoint) if endpoint.ifindex == skb.ifindex() => {
            deliver(skb, &packet, &tracking.to, endpoint, Entry::FromStack)
        }
        _ if spoof::is_routable(&packet.destination) => Err(Outcome::UnknownEndpoint.into()),
        _ => Err(Outcome::NotRoutable.into()),
    }
}
