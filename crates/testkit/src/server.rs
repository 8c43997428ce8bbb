//! Servers that report whom they saw, and the clients that ask them.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::TestNamespace;

/// How long a server waits before it looks whether it is to end.
const LOOK: Duration = Duration::from_millis(20);

/// How long a client waits for an answer.
const ANSWER: Duration = Duration::from_secs(5);

/// The largest UDP payload over IPv4 and over IPv6 without jumbograms.
const UDP_MAX: usize = 65_507;

/// A server on a TCP and a UDP port of the same number. To a connection it writes the client's address as it sees it
/// and a line's end, then echoes what comes until the client has no more; a datagram it answers with the client's
/// address, a line's end, and the datagram (cut, if that gets too long).
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Starts a server inside a namespace; port 0 lets the kernel choose.
    ///
    /// # Panics
    /// When the address cannot be had.
    pub fn start(namespace: &TestNamespace, address: SocketAddr) -> Self {
        let bound = namespace.run(|| -> io::Result<_> {
            let tcp = listen(address)?;
            let address = tcp.local_addr()?;
            Ok((tcp, UdpSocket::bind(address)?, address))
        });
        let (tcp, udp, address) =
            bound.unwrap_or_else(|error| panic!("serve {address} in {}: {error}", namespace.name()));
        let stop = Arc::new(AtomicBool::new(false));
        let threads = vec![
            spawn(&stop, move |stop| serve_tcp(&tcp, stop)),
            spawn(&stop, move |stop| serve_udp(&udp, stop)),
        ];
        Self {
            address,
            stop,
            threads,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Sends `payload` to a [`Server`] by TCP, checks that it comes back, and gives the address that the server saw.
pub fn ask_tcp(from: &TestNamespace, to: SocketAddr, payload: &[u8]) -> io::Result<SocketAddr> {
    from.run(|| {
        let mut stream = TcpStream::connect_timeout(&to, ANSWER)?;
        stream.set_read_timeout(Some(ANSWER))?;
        let mut sending = stream.try_clone()?;
        // Both at once, or the two sides wait for each other once all buffers are full.
        let answer = thread::scope(|scope| {
            scope.spawn(move || {
                sending
                    .write_all(payload)
                    .and_then(|()| sending.shutdown(std::net::Shutdown::Write))
            });
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).map(|_| answer)
        })?;
        seen(&answer, payload)
    })
}

/// Sends `payload` to a [`Server`] by UDP, checks that it comes back, and gives the address that the server saw.
pub fn ask_udp(from: &TestNamespace, to: SocketAddr, payload: &[u8]) -> io::Result<SocketAddr> {
    from.run(|| {
        let any: SocketAddr = if to.is_ipv4() {
            ([0; 4], 0).into()
        } else {
            ([0; 16], 0).into()
        };
        let socket = UdpSocket::bind(any)?;
        socket.set_read_timeout(Some(ANSWER))?;
        socket.connect(to)?;
        socket.send(payload)?;
        let mut answer = vec![0; UDP_MAX];
        let length = socket.recv(&mut answer)?;
        seen(&answer[..length], payload)
    })
}

fn seen(answer: &[u8], payload: &[u8]) -> io::Result<SocketAddr> {
    let bad = |what: &str| io::Error::new(ErrorKind::InvalidData, what);
    let end = answer
        .iter()
        .position(|byte| *byte == b'\n')
        .ok_or_else(|| bad("no address in the answer"))?;
    let address = std::str::from_utf8(&answer[..end])
        .ok()
        .and_then(|text| text.parse().ok());
    let echo = &answer[end + 1..];
    let complete = echo.len() == payload.len() || (payload.starts_with(echo) && answer.len() == UDP_MAX);
    if !complete || !payload.starts_with(echo) {
        return Err(bad("the payload came back changed"));
    }
    address.ok_or_else(|| bad("no address in the answer"))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(128)?;
    // For accept(2), too.
    socket.set_read_timeout(Some(LOOK))?;
    Ok(socket.into())
}

fn spawn(stop: &Arc<AtomicBool>, serve: impl FnOnce(&AtomicBool) + Send + 'static) -> JoinHandle<()> {
    let stop = Arc::clone(stop);
    thread::spawn(move || serve(&stop))
}

fn serve_tcp(listener: &TcpListener, stop: &AtomicBool) {
    thread::scope(|scope| {
        while !stop.load(Ordering::Relaxed) {
            if let Ok((stream, peer)) = listener.accept() {
                scope.spawn(move || echo(stream, peer, stop));
            }
        }
    });
}

fn echo(mut stream: TcpStream, peer: SocketAddr, stop: &AtomicBool) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LOOK))?;
    // A client that goes away without reading must not hold the server up.
    stream.set_write_timeout(Some(ANSWER))?;
    stream.write_all(format!("{peer}\n").as_bytes())?;
    let mut buffer = vec![0; 1 << 16];
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => stream.write_all(&buffer[..length])?,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn serve_udp(socket: &UdpSocket, stop: &AtomicBool) {
    let mut buffer = vec![0; UDP_MAX];
    if socket.set_read_timeout(Some(LOOK)).is_err() {
        return;
    }
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            let mut answer = format!("{peer}\n").into_bytes();
            answer.extend(&buffer[..length]);
            answer.truncate(UDP_MAX);
            let _ = socket.send_to(&answer, peer);
        }
    }
}
