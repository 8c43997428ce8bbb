//! Where network policy will decide. For now everything is allowed.

use tombolo_abi::Outcome;

use crate::parse::Packet;

/// Whether the sending pod may send this. Decided on the node of the sender.
#[inline(always)]
pub const fn egress(_packet: &Packet) -> Result<(), Outcome> {
    Ok(())
}

/// Whether the receiving pod may receive this. Decided on the node of the receiver.
#[inline(always)]
pub const fn ingress(_packet: &Packet) -> Result<(), Outcome> {
    Ok(())
}
