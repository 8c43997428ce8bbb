//! A check over UDP: one datagram there and back, repeated while it gets lost.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use crate::check::{Attempts, Check, Failure, Kind, Success};
use crate::sockopt::{dont_fragment, path_mtu, receive_buffer};
use crate::wire::{Header, pattern};

/// Sends a datagram of `check.size` bytes until it comes back.
pub async fn run(check: &Check, attempts: &mut Attempts) -> Result<Success, Failure> {
    let socket = connect(check)?;
    let mut request = vec![0; check.size.max(Header::SIZE)];
    pattern(0, &mut request);
    let mut reply = vec![0; 64 << 10];
    while let Some(until) = attempts.next() {
        let number = u64::from(attempts.made());
        Header { number, seen: None }.write(&mut request);
        match exchange(&socket, &request, &mut reply, until).await {
            Ok(None) => continue,
            Ok(Some(seen)) => {
                let path_mtu = path_mtu(&socket, check.address).ok();
                let local = socket.local_addr()?;
                return Ok(Success {
                    seen: Some(seen.client),
                    server: seen.server,
                    local,
                    path_mtu,
                });
            }
            // The path's MTU was just learned: smaller fragments will do.
            Err(failure) if failure.kind == Kind::TooBig && !check.dont_fragment => continue,
            Err(mut failure) => {
                failure.path_mtu = path_mtu(&socket, check.address).ok();
                return Err(failure);
            }
        }
    }
    Err(Failure {
        path_mtu: path_mtu(&socket, check.address).ok(),
        ..Failure::timeout(attempts.made())
    })
}

async fn exchange(
    socket: &UdpSocket,
    request: &[u8],
    reply: &mut [u8],
    until: Instant,
) -> Result<Option<crate::wire::Seen>, Failure> {
    socket.send(request).await?;
    let Ok(received) = timeout_at(until, socket.recv(reply)).await else {
        return Ok(None);
    };
    let reply = &reply[..received?];
    // A late reply to an earlier attempt proves the way just as well.
    let Some(Header { seen: Some(seen), .. }) = Header::read(reply) else {
        return Err(Failure::new(
            Kind::Corrupted,
            "a reply without the server's report".to_owned(),
        ));
    };
    if reply.len() != request.len() || reply[Header::SIZE..] != request[Header::SIZE..] {
        return Err(Failure::new(
            Kind::Corrupted,
            format!(
                "the echo of {} bytes differs ({} bytes came)",
                request.len(),
                reply.len()
            ),
        ));
    }
    Ok(Some(seen))
}

fn connect(check: &Check) -> io::Result<UdpSocket> {
    let target = SocketAddr::new(check.address, check.port());
    let socket = Socket::new(
        Domain::for_address(target),
        Type::DGRAM.nonblocking(),
        Some(Protocol::UDP),
    )?;
    if check.dont_fragment {
        dont_fragment(&socket, check.address)?;
    }
    receive_buffer(&socket, 1 << 20);
    if let Some(source) = check.source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    socket.connect(&target.into())?;
    UdpSocket::from_std(socket.into())
}

/// The address that the kernel would send from to `target`; nothing is sent.
pub fn source_to(target: IpAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if target.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = std::net::UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.connect(SocketAddr::new(target, 9))?;
    Ok(socket.local_addr()?.ip())
}

/// How long the first attempt waits; each further one waits twice as long.
pub const FIRST_WAIT: Duration = Duration::from_millis(200);
