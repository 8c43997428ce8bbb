//! A datagram through all that reads one.

use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::RouteNetlinkMessage;

use crate::Neighbour;
use crate::monitor::event;
use crate::socket::{explanation, extended_ack, messages};

/// Reads a datagram in every way in which answers, lists and notifications are read, for the fuzz target: whatever
/// its bytes are, that ends, and without a panic.
#[doc(hidden)]
pub fn decode(datagram: &[u8]) {
    for message in messages(datagram).flatten() {
        match &message.payload {
            NetlinkPayload::Error(error) => drop(extended_ack(error)),
            NetlinkPayload::Done(done) => drop(explanation(&done.extended_ack)),
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(neighbour)) => {
                let _ = Neighbour::from_message(neighbour);
            }
            // Links, addresses, routes, qdiscs and filters are read alike in lists and in notifications.
            _ => {}
        }
        drop(event(message.payload));
    }
}
