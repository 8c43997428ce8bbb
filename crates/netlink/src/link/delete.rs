//! Deleting links without waiting longer than it takes.
//!
//! The kernel takes a link out of all tables, notifies, and only then waits for its last readers (RCU) before it
//! acknowledges the request: 16 to 28 ms later. The notification is what counts; a thread of its own, which sends
//! the request and is held up in that, stays behind.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use netlink_packet_core::{NLM_F_ACK, NetlinkPayload};
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;

use crate::socket::{Sender, Socket, extended_ack};
use crate::{Error, Namespace, Netlink, Result};

/// The multicast group of links (linux/rtnetlink.h, `RTNLGRP_LINK`).
const LINK_GROUP: u32 = 1;

/// How long a notification may take: seconds when hundreds of links go at once.
const DEADLINE: Duration = Duration::from_secs(30);

/// How often to look whether the link is still there, should notifications get lost.
const LOOK: Duration = Duration::from_secs(1);

/// Room for the notifications of others that may come before ours, in bytes.
const RECEIVE_BUFFER: usize = 1 << 20;

impl Netlink {
    /// Deletes a link, with its addresses, routes and, for a veth, its other end. Returns as soon as the kernel
    /// says that it is gone; its name is free then. False: it was not there.
    pub fn delete_link(&mut self, name: &str) -> Result<bool> {
        let Some(link) = self.link(name)? else {
            return Ok(false);
        };
        let operation = format!("delete link {name}");
        let namespace = self.namespace().try_clone()?;
        let (prepared, preparation) = mpsc::sync_channel(1);
        let (sent, sending) = mpsc::sync_channel(1);
        let deleter = move || match Deletion::prepare(&namespace, link.index) {
            Ok(deletion) => {
                let _ = prepared.send(Ok(deletion.answers));
                let _ = sent.send(deletion.sender.send(&deletion.request));
            }
            Err(error) => drop(prepared.send(Err(error))),
        };
        let lost = |source| Error::Socket {
            operation: "start a thread to delete a link",
            source,
        };
        thread::Builder::new()
            .name("delete-link".into())
            .spawn(deleter)
            .map_err(lost)?;
        let mut answers = preparation
            .recv()
            .map_err(|gone| lost(std::io::Error::other(gone)))??;
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline {
            match answer(&mut answers, link.index) {
                Ok(Some(Answer::Gone)) => return Ok(true),
                Ok(Some(Answer::Refused(Errno::ENODEV, _))) => return Ok(false),
                Ok(Some(Answer::Refused(errno, explanation))) => {
                    return Err(Error::Refused {
                        operation,
                        errno,
                        explanation,
                    });
                }
                Ok(None) => {}
                // Nothing came for a while, or something got lost.
                Err(Errno::EAGAIN | Errno::ENOBUFS) => {
                    if let Ok(Err(error)) = sending.try_recv() {
                        return Err(error);
                    }
                    if self.link_by_index(link.index)?.is_none() {
                        return Ok(true);
                    }
                }
                Err(errno) => {
                    return Err(Error::Socket {
                        operation: "receive",
                        source: errno.into(),
                    });
                }
            }
        }
        Err(Error::Timeout {
            operation,
            deadline: DEADLINE,
        })
    }
}

/// All that it takes, made before the request leaves, so that no notification is missed.
struct Deletion {
    answers: Socket,
    sender: Sender,
    request: Vec<u8>,
}

impl Deletion {
    /// Moves the calling thread into the namespace.
    fn prepare(namespace: &Namespace, index: u32) -> Result<Self> {
        namespace.enter()?;
        let mut answers = Socket::open()?;
        answers.set_receive_buffer(RECEIVE_BUFFER)?;
        answers.set_receive_timeout(LOOK)?;
        answers.subscribe(LINK_GROUP)?;
        let mut message = LinkMessage::default();
        message.header.index = index;
        let request = answers.serialize(RouteNetlinkMessage::DelLink(message), NLM_F_ACK);
        Ok(Self {
            sender: answers.sender(),
            answers,
            request,
        })
    }
}

enum Answer {
    Gone,
    Refused(Errno, Option<String>),
}

/// Looks for what the next datagram says of the link.
fn answer(answers: &mut Socket, index: u32) -> Result<Option<Answer>, Errno> {
    // What cannot be read is about other links.
    for message in answers.receive_messages()?.flatten() {
        match message.payload {
            // A bridge that loses a port tells so with the port's index, under its own family.
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link))
                if link.header.index == index && link.header.interface_family == AddressFamily::Unspec =>
            {
                return Ok(Some(Answer::Gone));
            }
            NetlinkPayload::Error(error) => {
                return Ok(Some(match error.code {
                    None => Answer::Gone,
                    Some(code) => Answer::Refused(Errno::from_raw(code.get().abs()), extended_ack(&error)),
                }));
            }
            _ => {}
        }
    }
    Ok(None)
}
