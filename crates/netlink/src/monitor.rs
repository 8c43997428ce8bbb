//! What others change: notifications about links, addresses, routes, and traffic control.

use std::collections::VecDeque;
use std::time::Duration;

use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;

use crate::socket::Socket;
use crate::{Address, Error, Filter, Link, Namespace, Qdisc, Result, Route};

/// The multicast groups: links, traffic control, addresses and routes of both families (linux/rtnetlink.h,
/// `RTNLGRP_*`).
const GROUPS: [u32; 6] = [1, 4, 5, 9, 7, 11];

/// Room for notifications that wait to be read, in bytes.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Reports what changes in a namespace, whoever changes it. For a thread of its own.
pub struct Monitor {
    socket: Socket,
    waiting: VecDeque<Event>,
}

/// Something changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A link is new, or something of it has changed.
    Link(Link),
    /// A link is gone.
    LinkRemoved(Link),
    /// An address is new, or something of it has changed.
    Address(Address),
    /// An address is gone.
    AddressRemoved(Address),
    /// A route of the main table is new, or has changed.
    Route(Route),
    /// A route of the main table is gone. The kernel does not say so of IPv4 routes that went with their link.
    RouteRemoved(Route),
    /// A queueing discipline is new, or has changed.
    Qdisc(Qdisc),
    /// A queueing discipline is gone. The kernel does not say so of those that went with their link.
    QdiscRemoved(Qdisc),
    /// A filter is new, or has changed.
    Filter(Filter),
    /// A filter is gone. The kernel does not say so of those that went with their link or qdisc.
    FilterRemoved(Filter),
    /// Events were lost, as they came faster than they were read: read the present state anew.
    Overrun,
}

impl Monitor {
    /// Starts to listen in the calling thread's network namespace. What happens from now on is reported.
    pub fn open() -> Result<Self> {
        let socket = Socket::open()?;
        socket.set_receive_buffer(RECEIVE_BUFFER)?;
        for group in GROUPS {
            socket.subscribe(group)?;
        }
        Ok(Self {
            socket,
            waiting: VecDeque::new(),
        })
    }

    /// Starts to listen in the given network namespace.
    pub fn open_in(namespace: &Namespace) -> Result<Self> {
        namespace.run(Self::open)?
    }

    /// Waits for the next event; none if there is none for as long as `timeout`.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<Event>> {
        self.socket.set_receive_timeout(timeout)?;
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Ok(Some(event));
            }
            match self.socket.receive_messages() {
                // What cannot be read counts as lost.
                Ok(messages) => self.waiting.extend(messages.filter_map(|message| match message {
                    Ok(message) => event(message.payload),
                    Err(_) => Some(Event::Overrun),
                })),
                Err(Errno::ENOBUFS) => return Ok(Some(Event::Overrun)),
                Err(Errno::EAGAIN) => return Ok(None),
                Err(errno) => {
                    return Err(Error::Socket {
                        operation: "receive",
                        source: errno.into(),
                    });
                }
            }
        }
    }
}

/// None: it is about something else, such as another routing table or a bridge's port.
pub(crate) fn event(payload: NetlinkPayload<RouteNetlinkMessage>) -> Option<Event> {
    let NetlinkPayload::InnerMessage(message) = payload else {
        return None;
    };
    match message {
        RouteNetlinkMessage::NewLink(link) if link.header.interface_family == AddressFamily::Unspec => {
            Link::from_message(&link).map(Event::Link)
        }
        RouteNetlinkMessage::DelLink(link) if link.header.interface_family == AddressFamily::Unspec => {
            Link::from_message(&link).map(Event::LinkRemoved)
        }
        RouteNetlinkMessage::NewAddress(address) => Address::from_message(&address).map(Event::Address),
        RouteNetlinkMessage::DelAddress(address) => {
            Address::from_message(&address).map(Event::AddressRemoved)
        }
        RouteNetlinkMessage::NewRoute(route) => Route::from_message(&route).map(Event::Route),
        RouteNetlinkMessage::DelRoute(route) => Route::from_message(&route).map(Event::RouteRemoved),
        RouteNetlinkMessage::NewQueueDiscipline(qdisc) => Qdisc::from_message(&qdisc).map(Event::Qdisc),
        RouteNetlinkMessage::DelQueueDiscipline(qdisc) => {
            Qdisc::from_message(&qdisc).map(Event::QdiscRemoved)
        }
        RouteNetlinkMessage::NewTrafficFilter(filter) => Filter::from_message(&filter).map(Event::Filter),
        RouteNetlinkMessage::DelTrafficFilter(filter) => {
            Filter::from_message(&filter).map(Event::FilterRemoved)
        }
        _ => None,
    }
}
