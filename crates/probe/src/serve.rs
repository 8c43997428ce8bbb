//! The server: echo over TCP and UDP, a JSON page over HTTP, each reporting the addresses it saw.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::datagram::DatagramSocket;
use crate::wire::{Header, Seen};
use crate::{DEFAULT_HTTP_PORT, DEFAULT_PORT, Error, http};

/// How long a silent TCP client keeps its connection.
const IDLE: Duration = Duration::from_secs(60);

/// What a server listens on.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Port of the TCP and UDP echo
    #[arg(long, value_name = "PORT", default_value_t = DEFAULT_PORT)]
    pub port: u16,
    /// Port of the HTTP server
    #[arg(long, value_name = "PORT", default_value_t = DEFAULT_HTTP_PORT)]
    pub http_port: u16,
}

impl Default for Args {
    fn default() -> Self {
        Self {
            port: DEFAULT_PORT,
            http_port: DEFAULT_HTTP_PORT,
        }
    }
}

/// A server whose sockets are bound: clients that connect from now on are answered once it runs.
pub struct Server {
    echo: Vec<TcpListener>,
    http: Vec<TcpListener>,
    datagrams: Vec<DatagramSocket>,
}

impl Server {
    /// Binds one socket per family and protocol, on all addresses of the network namespace. A family that
    /// the kernel does not have here is left out.
    ///
    /// # Errors
    /// [`Error::Listen`] for a port that is taken, [`Error::NoFamily`] if there is none.
    pub fn bind(args: &Args) -> Result<Self, Error> {
        let mut server = Self {
            echo: Vec::new(),
            http: Vec::new(),
            datagrams: Vec::new(),
        };
        for ip in [
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        ] {
            let tcp = SocketAddr::new(ip, args.port);
            let Some(listener) = bind("tcp", tcp, Type::STREAM, Protocol::TCP, listen)? else {
                continue;
            };
            server.echo.push(listener);
            server
                .datagrams
                .extend(bind("udp", tcp, Type::DGRAM, Protocol::UDP, DatagramSocket::new)?);
            let http = SocketAddr::new(ip, args.http_port);
            server
                .http
                .extend(bind("http", http, Type::STREAM, Protocol::TCP, listen)?);
        }
        if server.echo.is_empty() {
            Err(Error::NoFamily)
        } else {
            Ok(server)
        }
    }

    /// Serves until a socket fails.
    ///
    /// # Errors
    /// [`Error::Stopped`] with the first socket's failure.
    pub async fn run(self) -> Result<(), Error> {
        let mut servers = JoinSet::new();
        for listener in self.echo {
            servers.spawn(stopped("tcp", accept(listener)));
        }
        for listener in self.http {
            servers.spawn(stopped("http", http::serve(listener)));
        }
        for socket in self.datagrams {
            servers.spawn(stopped("udp", echo_datagrams(socket)));
        }
        match servers.join_next().await {
            Some(Ok(result)) => result,
            Some(Err(panic)) => std::panic::resume_unwind(panic.into_panic()),
            None => Ok(()),
        }
    }
}

fn listen(socket: Socket) -> io::Result<TcpListener> {
    socket.listen(1024)?;
    TcpListener::from_std(socket.into())
}

fn bind<T>(
    protocol: &'static str,
    address: SocketAddr,
    kind: Type,
    transport: Protocol,
    finish: impl FnOnce(Socket) -> io::Result<T>,
) -> Result<Option<T>, Error> {
    let bound = || {
        let socket = Socket::new(Domain::for_address(address), kind.nonblocking(), Some(transport))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        if kind == Type::STREAM {
            socket.set_reuse_address(true)?;
        }
        socket.bind(&address.into())?;
        finish(socket)
    };
    match bound() {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if family_is_missing(&error) => Ok(None),
        Err(source) => Err(Error::Listen {
            protocol,
            address,
            source,
        }),
    }
}

fn family_is_missing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
    )
}

async fn stopped(protocol: &'static str, server: impl Future<Output = io::Result<()>>) -> Result<(), Error> {
    server.await.map_err(|source| Error::Stopped { protocol, source })
}

async fn accept(listener: TcpListener) -> io::Result<()> {
    loop {
        match listener.accept().await {
            Ok((stream, client)) => {
                tokio::spawn(async move {
                    // A client that goes away or falls silent ends its own connection alone.
                    let _ = echo(stream, client).await;
                });
            }
            Err(error) if transient(&error) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(error) => return Err(error),
        }
    }
}

/// Whether `accept` failed for this one connection, or for want of descriptors that will be free again.
fn transient(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ECONNABORTED | libc::EMFILE | libc::ENFILE | libc::EPROTO)
    )
}

async fn echo(mut stream: TcpStream, client: SocketAddr) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut line = serde_json::to_vec(&Seen {
        client,
        server: stream.local_addr()?,
    })?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let n = tokio::time::timeout(IDLE, stream.read(&mut buffer)).await??;
        if n == 0 {
            return stream.shutdown().await;
        }
        tokio::time::timeout(IDLE, stream.write_all(&buffer[..n])).await??;
    }
}

async fn echo_datagrams(socket: DatagramSocket) -> io::Result<()> {
    let socket = Arc::new(socket);
    let mut buffer = vec![0; 64 << 10];
    loop {
        // An error here is an ICMP answer to an earlier reply: the client's affair, not the server's.
        let Ok((n, seen)) = socket.receive(&mut buffer).await else {
            continue;
        };
        let datagram = &mut buffer[..n];
        if let Some(header @ Header { seen: None, .. }) = Header::read(datagram) {
            Header {
                seen: Some(seen),
                ..header
            }
            .write(datagram);
            let _ = socket.reply(datagram, &seen).await;
        }
    }
}
