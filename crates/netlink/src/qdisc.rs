//! Queueing disciplines, as far as they tell that somebody shapes or filters a link.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};

use crate::{Netlink, Result};

/// A queueing discipline of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qdisc {
    /// The link.
    pub ifindex: u32,
    /// Its kind, such as `noqueue`, `tbf`, `ingress` or `clsact`.
    pub kind: String,
    /// Whether it is the one that the link's packets leave through.
    pub root: bool,
}

impl Netlink {
    /// The queueing disciplines of a link. A veth that nobody touched has `noqueue` alone.
    pub fn qdiscs(&mut self, ifindex: u32) -> Result<Vec<Qdisc>> {
        let mut message = TcMessage::default();
        message.header.index = ifindex.cast_signed();
        let request = RouteNetlinkMessage::GetQueueDiscipline(message);
        self.socket().dump(
            &format_args!("list qdiscs of link {ifindex}"),
            request,
            |answer| match answer {
                // The kernel lists those of all links.
                RouteNetlinkMessage::NewQueueDiscipline(message) => {
                    Qdisc::from_message(&message).filter(|qdisc| qdisc.ifindex == ifindex)
                }
                _ => None,
            },
        )
    }
}

impl Qdisc {
    pub(crate) fn from_message(message: &TcMessage) -> Option<Self> {
        let kind = message.attributes.iter().find_map(|attribute| match attribute {
            TcAttribute::Kind(kind) => Some(kind.clone()),
            _ => None,
        })?;
        Some(Self {
            ifindex: message.header.index.cast_unsigned(),
            kind,
            root: message.header.parent == TcHandle::ROOT,
        })
    }
}
