//! Queueing disciplines and filters, as far as they tell that somebody shapes or filters a link.

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

/// A direction, as the link's own namespace sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// What comes in.
    Ingress,
    /// What leaves.
    Egress,
}

/// A filter of a link's `ingress` or `clsact` qdisc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The link.
    pub ifindex: u32,
    /// Its kind, such as `u32` or `bpf`.
    pub kind: String,
    /// Filters are asked in ascending order of it.
    pub priority: u16,
    /// Its handle among those of the same priority; 0 for what holds these together.
    pub handle: u32,
}

impl Netlink {
    /// The queueing disciplines of all links. A veth that nobody touched has `noqueue` alone. (The kernel can
    /// be asked for a single one, but then tells everybody who listens to changes that it were new.)
    pub fn qdiscs(&mut self) -> Result<Vec<Qdisc>> {
        let request = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
        self.socket()
            .dump(&"list qdiscs", request, |answer| match answer {
                RouteNetlinkMessage::NewQueueDiscipline(message) => Qdisc::from_message(&message),
                _ => None,
            })
    }

    /// The filters of one direction of a link with a `clsact` qdisc; `ingress` has one direction only, and
    /// the kernel names its filters for either. None where there is no such qdisc, or the link is gone.
    pub fn filters(&mut self, ifindex: u32, direction: Direction) -> Result<Vec<Filter>> {
        let minor = match direction {
            Direction::Ingress => TcHandle::MIN_INGRESS,
            Direction::Egress => TcHandle::MIN_EGRESS,
        };
        let parent = TcHandle {
            minor,
            ..TcHandle::INGRESS
        };
        let mut message = TcMessage::with_index(ifindex.cast_signed());
        message.header.parent = parent;
        let request = RouteNetlinkMessage::GetTrafficFilter(message);
        let operation = format_args!("list filters of link {ifindex}");
        self.socket().dump(&operation, request, |answer| match answer {
            RouteNetlinkMessage::NewTrafficFilter(message) => Filter::from_message(&message),
            _ => None,
        })
    }
}

impl Qdisc {
    pub(crate) fn from_message(message: &TcMessage) -> Option<Self> {
        Some(Self {
            ifindex: message.header.index.cast_unsigned(),
            kind: kind(message)?,
            root: message.header.parent == TcHandle::ROOT,
        })
    }
}

impl Filter {
    pub(crate) fn from_message(message: &TcMessage) -> Option<Self> {
        Some(Self {
            ifindex: message.header.index.cast_unsigned(),
            kind: kind(message)?,
            // The lower half is the EtherType.
            priority: (message.header.info >> 16) as u16,
            handle: message.header.handle.into(),
        })
    }
}

fn kind(message: &TcMessage) -> Option<String> {
    message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Kind(kind) => Some(kind.clone()),
        _ => None,
    })
}
