//! A UDP socket that knows to which address each datagram was sent, and answers from that address.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::cmsg_space;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::sockopt::receive_buffer;
use crate::wire::Seen;

/// A bound UDP socket of one family.
pub struct DatagramSocket {
    fd: AsyncFd<OwnedFd>,
    port: u16,
}

impl DatagramSocket {
    /// Takes over a bound, nonblocking socket. Must be called inside a Tokio runtime.
    pub fn new(socket: socket2::Socket) -> io::Result<Self> {
        let bound = socket
            .local_addr()?
            .as_socket()
            .ok_or(io::ErrorKind::Unsupported)?;
        match bound {
            SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?,
            SocketAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?,
        }
        receive_buffer(&socket, 8 << 20);
        // SAFETY: an owned descriptor stays open, and the same one, until the `AsyncFd` drops it.
        let fd = unsafe { AsyncFd::register(OwnedFd::from(socket)) }?;
        Ok(Self {
            fd,
            port: bound.port(),
        })
    }

    /// Receives one datagram: its size, source and destination.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Seen)> {
        self.fd
            .async_io(Interest::READABLE, |fd| {
                let mut control = cmsg_space!(libc::in6_pktinfo);
                let mut parts = [IoSliceMut::new(buffer)];
                let message = recvmsg::<SockaddrStorage>(
                    fd.as_raw_fd(),
                    &mut parts,
                    Some(&mut control),
                    MsgFlags::empty(),
                )?;
                let client = message.address.as_ref().and_then(socket_address);
                let server = message.cmsgs()?.find_map(|control| destination(&control));
                match (client, server) {
                    (Some(client), Some(server)) => Ok((
                        message.bytes,
                        Seen {
                            client,
                            server: SocketAddr::new(server, self.port),
                        },
                    )),
                    _ => Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "the kernel did not say where a datagram came from or went to",
                    )),
                }
            })
            .await
    }

    /// Sends a datagram to `seen.client`, from `seen.server`.
    pub async fn reply(&self, bytes: &[u8], seen: &Seen) -> io::Result<()> {
        self.fd
            .async_io(Interest::WRITABLE, |fd| {
                let parts = [IoSlice::new(bytes)];
                let to = SockaddrStorage::from(seen.client);
                let send = |control: ControlMessage<'_>| {
                    sendmsg(fd.as_raw_fd(), &parts, &[control], MsgFlags::empty(), Some(&to))
                };
                match seen.server.ip() {
                    IpAddr::V4(from) => send(ControlMessage::Ipv4PacketInfo(&libc::in_pktinfo {
                        ipi_ifindex: 0,
                        ipi_spec_dst: libc::in_addr {
                            s_addr: from.to_bits().to_be(),
                        },
                        ipi_addr: libc::in_addr { s_addr: 0 },
                    })),
                    IpAddr::V6(from) => send(ControlMessage::Ipv6PacketInfo(&libc::in6_pktinfo {
                        ipi6_ifindex: 0,
                        ipi6_addr: libc::in6_addr {
                            s6_addr: from.octets(),
                        },
                    })),
                }?;
                Ok(())
            })
            .await
    }
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddr::new(v4.ip().into(), v4.port()));
    }
    // Scope and flow label are kept: a reply to a link-local client needs its scope.
    address.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into()))
}

fn destination(control: &ControlMessageOwned) -> Option<IpAddr> {
    match control {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            Some(Ipv4Addr::from_bits(u32::from_be(info.ipi_addr.s_addr)).into())
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into()),
        _ => None,
    }
}
