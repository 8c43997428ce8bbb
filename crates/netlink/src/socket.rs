//! One NETLINK_ROUTE socket: requests and their answers, dumps, sequence numbers and deadlines.

use std::fmt::{self, Display};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use netlink_packet_core::{
    DecodeError, ErrorMessage, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{SocketAddr, protocols::NETLINK_ROUTE};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::{Error, Namespace, Result};

/// The kernel handles a request inside `send`, so an answer that is not there after this never comes.
const DEADLINE: Duration = Duration::from_secs(10);

/// How often an interrupted dump is read again before giving up.
const DUMP_ATTEMPTS: u32 = 32;

/// The kernel fills dumps in pieces of at most 32 KiB; one message may be longer, then this grows.
const BUFFER_SIZE: usize = 64 * 1024;

/// Size of the header of every netlink message (netlink(7)), in bytes.
const HEADER_SIZE: usize = 16;

/// Attribute of an extended acknowledgement that holds its text (linux/netlink.h, `NLMSGERR_ATTR_MSG`).
const EXTENDED_ACK_MESSAGE: u16 = 1;

/// A connection to the kernel's network configuration, bound for good to the network namespace it was opened in.
/// It can be used from any thread, one request at a time.
pub struct Netlink {
    socket: Socket,
    namespace: Namespace,
}

impl Netlink {
    /// Opens a connection to the calling thread's network namespace.
    pub fn open() -> Result<Self> {
        Ok(Self {
            socket: Socket::open()?,
            namespace: Namespace::current()?,
        })
    }

    /// Opens a connection to the given network namespace.
    pub fn open_in(namespace: &Namespace) -> Result<Self> {
        namespace.run(Self::open)?
    }

    /// The namespace whose configuration this is.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    pub(crate) fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }
}

impl fmt::Debug for Netlink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Netlink")
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

/// How the answer to a request ended.
enum End {
    Complete,
    /// The list changed, or a message did not fit the buffer (which has grown): ask again.
    Again,
}

pub(crate) struct Socket {
    inner: Arc<netlink_sys::Socket>,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    pub(crate) fn open() -> Result<Self> {
        let mut inner = netlink_sys::Socket::new(NETLINK_ROUTE).map_err(|source| Error::Socket {
            operation: "open",
            source,
        })?;
        let set_up = |inner: &mut netlink_sys::Socket| {
            inner.bind_auto()?;
            inner.connect(&SocketAddr::new(0, 0))?;
            inner.set_ext_ack(true)?;
            inner.set_cap_ack(true)?;
            inner.set_netlink_get_strict_chk(true)
        };
        set_up(&mut inner).map_err(|source| Error::Socket {
            operation: "set up",
            source,
        })?;
        let socket = Self {
            inner: Arc::new(inner),
            sequence: 0,
            buffer: vec![0; BUFFER_SIZE],
        };
        socket.set_receive_timeout(DEADLINE)?;
        Ok(socket)
    }

    /// Joins a multicast group (linux/rtnetlink.h, `RTNLGRP_*`).
    pub(crate) fn subscribe(&self, group: u32) -> Result<()> {
        self.inner.add_membership(group).map_err(|source| Error::Socket {
            operation: "subscribe to notifications",
            source,
        })
    }

    /// How many bytes of notifications may wait; the default is 208 KiB, which a burst of pods overruns.
    pub(crate) fn set_receive_buffer(&self, bytes: usize) -> Result<()> {
        setsockopt(&self.inner.as_fd(), sockopt::RcvBufForce, &bytes).map_err(|errno| Error::Socket {
            operation: "set the receive buffer",
            source: errno.into(),
        })
    }

    pub(crate) fn set_receive_timeout(&self, timeout: Duration) -> Result<()> {
        // Zero would mean to wait for ever.
        let micros = i64::try_from(timeout.as_micros()).unwrap_or(i64::MAX).max(1);
        setsockopt(
            &self.inner.as_fd(),
            sockopt::ReceiveTimeout,
            &TimeVal::microseconds(micros),
        )
        .map_err(|errno| Error::Socket {
            operation: "set the receive timeout",
            source: errno.into(),
        })
    }

    /// Sends a request and waits for its acknowledgement; gives the messages that came before it.
    pub(crate) fn request(
        &mut self,
        operation: &dyn Display,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        let mut answers = Vec::new();
        for _ in 0..DUMP_ATTEMPTS {
            answers.clear();
            let packet = self.serialize(message.clone(), NLM_F_ACK | flags);
            self.send(&packet)?;
            if let End::Complete = self.receive_answer(operation, |answer| answers.push(answer))? {
                return Ok(answers);
            }
        }
        Err(Error::Interrupted {
            operation: operation.to_string(),
            attempts: DUMP_ATTEMPTS,
        })
    }

    /// Lists objects; `select` turns the messages that are wanted into values.
    pub(crate) fn dump<T>(
        &mut self,
        operation: &dyn Display,
        message: RouteNetlinkMessage,
        mut select: impl FnMut(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>> {
        let mut found = Vec::new();
        for _ in 0..DUMP_ATTEMPTS {
            found.clear();
            let packet = self.serialize(message.clone(), NLM_F_DUMP);
            self.send(&packet)?;
            if let End::Complete = self.receive_answer(operation, |answer| found.extend(select(answer)))? {
                return Ok(found);
            }
        }
        Err(Error::Interrupted {
            operation: operation.to_string(),
            attempts: DUMP_ATTEMPTS,
        })
    }

    /// A request as bytes, under the next sequence number.
    pub(crate) fn serialize(&mut self, message: RouteNetlinkMessage, flags: u16) -> Vec<u8> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let mut packet = vec![0; message.buffer_len()];
        message.serialize(&mut packet);
        packet
    }

    /// Sends bytes. The kernel carries out what they ask before this returns.
    pub(crate) fn send(&self, packet: &[u8]) -> Result<()> {
        send(&self.inner, packet)
    }

    /// A second handle on the same socket, for sending only.
    pub(crate) fn sender(&self) -> Sender {
        Sender(Arc::clone(&self.inner))
    }

    fn receive_answer(
        &mut self,
        operation: &dyn Display,
        mut each: impl FnMut(RouteNetlinkMessage),
    ) -> Result<End> {
        let sequence = self.sequence;
        let mut interrupted = false;
        // Read on to the end of the answer even when a part of it makes no sense: what would be left in the
        // socket would make the kernel refuse the next dump.
        let mut unreadable = None;
        loop {
            let length = match self.receive() {
                Ok(length) => length,
                Err(Errno::EAGAIN) => {
                    return Err(Error::Timeout {
                        operation: operation.to_string(),
                        deadline: DEADLINE,
                    });
                }
                Err(errno) => {
                    return Err(Error::Socket {
                        operation: "receive",
                        source: errno.into(),
                    });
                }
            };
            if length > self.buffer.len() {
                self.buffer.resize(length.next_power_of_two(), 0);
                interrupted = true;
                continue;
            }
            for message in messages(&self.buffer[..length]) {
                let (header, payload) = match message {
                    Ok(message) if message.header.sequence_number == sequence => message.into_parts(),
                    Ok(_) => continue,
                    Err(error) => {
                        unreadable.get_or_insert(error);
                        continue;
                    }
                };
                interrupted |= header.flags & NLM_F_DUMP_INTR != 0;
                let (code, explanation) = match payload {
                    NetlinkPayload::InnerMessage(message) => {
                        each(message);
                        continue;
                    }
                    NetlinkPayload::Error(error) => (error.raw_code(), extended_ack(&error)),
                    NetlinkPayload::Done(done) => (done.code, explanation(&done.extended_ack)),
                    _ => continue,
                };
                return match (code, unreadable) {
                    (0, None) if interrupted => Ok(End::Again),
                    (0, None) => Ok(End::Complete),
                    (0, Some(source)) => Err(Error::Decode {
                        operation: operation.to_string(),
                        source,
                    }),
                    (code, _) => Err(Error::Refused {
                        operation: operation.to_string(),
                        errno: Errno::from_raw(code.abs()),
                        explanation,
                    }),
                };
            }
        }
    }

    /// Receives what is next: answers and notifications alike. `EAGAIN` after the receive timeout, `ENOBUFS` when
    /// notifications were lost.
    pub(crate) fn receive_messages(
        &mut self,
    ) -> std::result::Result<
        impl Iterator<Item = Result<NetlinkMessage<RouteNetlinkMessage>, DecodeError>> + '_,
        Errno,
    > {
        let length = self.receive()?;
        if length > self.buffer.len() {
            // The rest of it is lost, which for the reader is the same as an overrun.
            self.buffer.resize(length.next_power_of_two(), 0);
            return Err(Errno::ENOBUFS);
        }
        Ok(messages(&self.buffer[..length]))
    }

    /// The true length of the datagram, which may be more than what fitted the buffer.
    fn receive(&mut self) -> std::result::Result<usize, Errno> {
        loop {
            match self.inner.recv(&mut &mut self.buffer[..], libc::MSG_TRUNC) {
                Ok(length) => return Ok(length),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))),
            }
        }
    }
}

/// The sending half of a [`Socket`], for a thread of its own.
pub(crate) struct Sender(Arc<netlink_sys::Socket>);

impl Sender {
    pub(crate) fn send(&self, packet: &[u8]) -> Result<()> {
        send(&self.0, packet)
    }
}

fn send(socket: &netlink_sys::Socket, packet: &[u8]) -> Result<()> {
    loop {
        match socket.send(packet, 0) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => {
                return Err(Error::Socket {
                    operation: "send",
                    source,
                });
            }
        }
    }
}

/// Splits a datagram into its messages.
pub(crate) fn messages(
    mut datagram: &[u8],
) -> impl Iterator<Item = Result<NetlinkMessage<RouteNetlinkMessage>, DecodeError>> + '_ {
    std::iter::from_fn(move || {
        if datagram.is_empty() {
            return None;
        }
        let length = match NetlinkBuffer::new_checked(datagram) {
            Ok(buffer) => buffer.length() as usize,
            Err(error) => {
                datagram = &[];
                return Some(Err(error));
            }
        };
        let (message, _) = datagram.split_at(length);
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(NetlinkMessage::deserialize(message))
    })
}

/// The kernel's words about a refusal, where it has some.
pub(crate) fn extended_ack(error: &ErrorMessage) -> Option<String> {
    // The request's header comes first; NETLINK_CAP_ACK leaves out the rest of the request.
    explanation(error.header.get(HEADER_SIZE..)?)
}

/// The text in the attributes of an extended acknowledgement.
pub(crate) fn explanation(attributes: &[u8]) -> Option<String> {
    let text = NlasIterator::new(attributes)
        .map_while(Result::ok)
        .find(|attribute| attribute.kind() == EXTENDED_ACK_MESSAGE)?;
    let text = String::from_utf8_lossy(text.value());
    Some(text.trim_end_matches('\0').to_owned())
}
