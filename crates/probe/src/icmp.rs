//! Checks over ICMP and ICMPv6 echo (RFC 792, RFC 4443), by raw sockets: the process must be root.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::socket::{SockaddrStorage, recvfrom};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use crate::check::{Attempts, Check, Failure, Kind, Success};
use crate::sockopt::{dont_fragment, echo_replies_only, receive_buffer};
use crate::udp::source_to;
use crate::wire::pattern;

const HEADER: usize = 8;

/// What one raw socket serves: all checks of a family with the same fragmentation and source.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Way {
    v4: bool,
    dont_fragment: bool,
    source: Option<IpAddr>,
}

/// The raw sockets of this process, opened as checks need them.
#[derive(Default)]
pub struct Pingers(Mutex<HashMap<Way, Arc<Pinger>>>);

impl Pingers {
    /// Sends an echo request with `check.size` bytes of data until its reply comes.
    pub async fn run(&self, check: &Check, attempts: &mut Attempts) -> Result<Success, Failure> {
        let way = Way {
            v4: check.address.is_ipv4(),
            dont_fragment: check.dont_fragment,
            source: check.source,
        };
        let pinger = {
            let mut pingers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match pingers.get(&way) {
                Some(pinger) => pinger.clone(),
                None => {
                    let pinger = Pinger::open(way)?;
                    pingers.insert(way, pinger.clone());
                    pinger
                }
            }
        };
        pinger.run(check, attempts).await
    }
}

struct Pinger {
    fd: AsyncFd<Socket>,
    v4: bool,
    id: u16,
    next: AtomicU16,
    waiting: Mutex<HashMap<u16, oneshot::Sender<Reply>>>,
}

struct Reply {
    from: IpAddr,
    data: Vec<u8>,
}

impl Pinger {
    fn open(way: Way) -> io::Result<Arc<Self>> {
        let (domain, protocol, any): (_, _, IpAddr) = if way.v4 {
            (Domain::IPV4, Protocol::ICMPV4, [0; 4].into())
        } else {
            (Domain::IPV6, Protocol::ICMPV6, [0u16; 8].into())
        };
        let socket = Socket::new(domain, Type::RAW.nonblocking(), Some(protocol)).map_err(|error| {
            io::Error::new(error.kind(), format!("no raw ICMP socket ({error}); run as root"))
        })?;
        echo_replies_only(&socket, any)?;
        receive_buffer(&socket, 16 << 20);
        if way.dont_fragment {
            dont_fragment(&socket, any)?;
        }
        if let Some(source) = way.source {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        // Other processes of this namespace receive the same replies: the identifier tells whose they are.
        static OPENED: AtomicU16 = AtomicU16::new(0);
        let id = (std::process::id() as u16).rotate_left(4) ^ OPENED.fetch_add(1, Ordering::Relaxed);
        // SAFETY: a socket owns its descriptor, which stays open and the same until the `AsyncFd` drops it.
        let fd = unsafe { AsyncFd::register(socket) }?;
        let pinger = Arc::new(Self {
            fd,
            v4: way.v4,
            id,
            next: AtomicU16::new(0),
            waiting: Mutex::default(),
        });
        tokio::spawn(pinger.clone().receive());
        Ok(pinger)
    }

    async fn run(&self, check: &Check, attempts: &mut Attempts) -> Result<Success, Failure> {
        let local = match check.source {
            Some(source) => source,
            None => source_to(check.address)?,
        };
        let mut data = vec![0; check.size];
        pattern(0, &mut data);
        while let Some(until) = attempts.next() {
            let sequence = self.next.fetch_add(1, Ordering::Relaxed);
            let (sender, reply) = oneshot::channel();
            self.waiting().insert(sequence, sender);
            let sent = self.send(sequence, &data, check.address).await;
            let reply = match sent {
                Err(error) if error.raw_os_error() != Some(libc::ENOBUFS) => {
                    self.waiting().remove(&sequence);
                    return Err(error.into());
                }
                // Without room on this host, as where many large ones are on their way, it is lost like one further on.
                _ => timeout_at(until, reply).await,
            };
            self.waiting().remove(&sequence);
            let Ok(Ok(reply)) = reply else { continue };
            if reply.from != check.address {
                let message = format!("the reply came from {} instead of {}", reply.from, check.address);
                return Err(Failure::new(Kind::WrongSource, message));
            }
            if reply.data != data {
                let message = format!(
                    "the echo of {} bytes differs ({} came)",
                    data.len(),
                    reply.data.len()
                );
                return Err(Failure::new(Kind::Corrupted, message));
            }
            return Ok(Success {
                seen: None,
                server: SocketAddr::new(reply.from, 0),
                local: SocketAddr::new(local, 0),
                path_mtu: None,
            });
        }
        Err(Failure::timeout(attempts.made()))
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<u16, oneshot::Sender<Reply>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(&self, sequence: u16, data: &[u8], to: IpAddr) -> io::Result<()> {
        let mut packet = Vec::with_capacity(HEADER + data.len());
        packet.extend([if self.v4 { 8 } else { 128 }, 0, 0, 0]);
        packet.extend(self.id.to_be_bytes());
        packet.extend(sequence.to_be_bytes());
        packet.extend(data);
        if self.v4 {
            // The kernel fills in ICMPv6's checksum, which covers addresses, but not ICMP's.
            let sum = checksum(&packet);
            packet[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        let to = SocketAddr::new(to, 0).into();
        self.fd
            .async_io(Interest::WRITABLE, |socket| socket.send_to(&packet, &to))
            .await?;
        Ok(())
    }

    async fn receive(self: Arc<Self>) {
        let mut buffer = vec![0u8; 64 << 10];
        loop {
            let received = self.fd.async_io(Interest::READABLE, |socket| {
                let (n, from) = recvfrom::<SockaddrStorage>(socket.as_raw_fd(), &mut buffer)?;
                Ok((n, from))
            });
            let Ok((n, Some(from))) = received.await else {
                continue;
            };
            let from = match (from.as_sockaddr_in(), from.as_sockaddr_in6()) {
                (Some(v4), _) => IpAddr::V4(v4.ip()),
                (_, Some(v6)) => IpAddr::V6(v6.ip()),
                _ => continue,
            };
            let Some(message) = self.message(&buffer[..n]) else {
                continue;
            };
            let Some((header, data)) = message.split_first_chunk::<HEADER>() else {
                continue;
            };
            if header[4..6] != self.id.to_be_bytes() {
                continue;
            }
            let sequence = u16::from_be_bytes([header[6], header[7]]);
            if let Some(waiting) = self.waiting().remove(&sequence) {
                let _ = waiting.send(Reply {
                    from,
                    data: data.to_vec(),
                });
            }
        }
    }

    /// The ICMP message in what a raw socket received: IPv4 ones come with their IP header.
    fn message<'a>(&self, packet: &'a [u8]) -> Option<&'a [u8]> {
        if !self.v4 {
            return Some(packet);
        }
        packet.get(usize::from(packet.first()? & 0x0f) * 4..)
    }
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
