//! The overlay's UDP port, which is the nodes' own.

use tombolo_abi::Outcome;

use crate::{
    parse::{Packet, protocol},
    resolve,
    skb::Skb,
};

/// Keeps a pod from speaking with this node's voice. What it sends to a node's address is known by its
/// own source, and is refused there. What it sends out of the cluster leaves with the source of this
/// node, and out there may be an address of a node that nobody has published.
///
/// # Errors
/// `TunnelPort`: to the port of the overlay; `Malformed`: no room for ports.
#[inline(always)]
pub fn check(skb: Skb, packet: &Packet) -> Result<(), Outcome> {
    if packet.protocol != protocol::UDP || packet.is_later_fragment() {
        return Ok(());
    }
    let overlay_port = resolve::config().map_or(0, |config| config.overlay_port);
    let [_, destination] = skb.load::<[u16; 2]>(packet.transport).ok_or(Outcome::Malformed)?;
    if overlay_port != 0 && destination == overlay_port {
        return Err(Outcome::TunnelPort);
    }
    Ok(())
}
