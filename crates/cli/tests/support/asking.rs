//! Asking the probe servers of a lab from inside its namespaces, and what each end saw.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use tombolo_netlink::Namespace;
use tombolo_probe::wire::{Header, Seen};

use super::connections::PodNetwork;
use super::sockets::ControlGroup;
use super::{Lab, TOMBOLO};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long to wait for the answer that must not come.
const SILENCE: Duration = Duration::from_millis(400);

/// How to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    /// By a connected socket.
    Udp,
    /// By one that is not.
    UdpUnconnected,
}

impl Protocol {
    /// The type of its sockets.
    pub fn socket(self) -> Type {
        match self {
            Self::Tcp => Type::STREAM,
            Self::Udp | Self::UdpUnconnected => Type::DGRAM,
        }
    }
}

/// Somebody who asks.
pub struct Client {
    namespace: Namespace,
    /// None: that of the test.
    control_group: Option<ControlGroup>,
    pub addresses: Vec<IpAddr>,
}

impl Client {
    /// A pod.
    pub fn pod(lab: &Lab, name: &str) -> Self {
        Self::of(PodNetwork::of(lab, name))
    }

    /// A node.
    pub fn node(lab: &Lab, name: &str, addresses: &[IpAddr]) -> Self {
        Self::of(PodNetwork::at(lab, name, addresses.to_vec()))
    }

    fn of(network: PodNetwork) -> Self {
        Self {
            namespace: network.namespace,
            control_group: Some(network.control_group),
            addresses: network.addresses,
        }
    }

    /// The outside host.
    pub fn outside(lab: &Lab) -> Self {
        let path = lab.folder_of_lab().join("state/ns/outside.net");
        Self {
            namespace: Namespace::open(&path).unwrap(),
            control_group: None,
            addresses: ["198.51.100.10", "2001:db8:100::10"]
                .map(|a| a.parse().unwrap())
                .to_vec(),
        }
    }

    /// The same one.
    pub fn try_clone(&self) -> io::Result<Self> {
        let group = self.control_group.as_ref().map(ControlGroup::try_clone);
        Ok(Self {
            namespace: self.namespace.try_clone().map_err(io::Error::other)?,
            control_group: group.transpose()?,
            addresses: self.addresses.clone(),
        })
    }

    /// A socket of its own.
    pub fn socket(&self, kind: Type, to: SocketAddr) -> io::Result<Socket> {
        let mut one = self.sockets(kind, to, 1)?;
        one.pop().ok_or_else(|| io::Error::other("no socket was made"))
    }

    /// Some at once, which is cheaper, for those who need many.
    pub fn sockets(&self, kind: Type, to: SocketAddr, count: usize) -> io::Result<Vec<Socket>> {
        let domain = Domain::for_address(to);
        match &self.control_group {
            Some(group) => group.sockets(&self.namespace, domain, kind, count),
            None => {
                let make = || (0..count).map(|_| Socket::new(domain, kind, None)).collect();
                self.namespace.run(make).unwrap()
            }
        }
    }

    /// The own address of the other end's family.
    pub fn address(&self, of: IpAddr) -> IpAddr {
        *self
            .addresses
            .iter()
            .find(|a| a.is_ipv4() == of.is_ipv4())
            .unwrap()
    }

    /// Asks once. The answer is from whom was asked, or the kernel, or this, would not have let it through.
    pub fn ask(&self, protocol: Protocol, to: SocketAddr) -> io::Result<Seen> {
        self.ask_within(protocol, to, PATIENCE)
    }

    /// The same, with as much patience.
    pub fn ask_within(&self, protocol: Protocol, to: SocketAddr, patience: Duration) -> io::Result<Seen> {
        ask_by(self.socket(protocol.socket(), to)?, protocol, to, patience)
    }

    /// Asks until somebody answers, as objects take a moment to be programmed.
    #[track_caller]
    pub fn ask_until_answered(&self, lab: &Lab, protocol: Protocol, to: SocketAddr) -> Seen {
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            let error = match self.ask(protocol, to) {
                Ok(seen) => return seen,
                Err(error) => error,
            };
            assert!(
                Instant::now() < deadline,
                "{protocol:?} {to}: {error}\n{}",
                lab.datapath()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Nobody answers, and nobody refuses.
    #[track_caller]
    pub fn gets_nothing(&self, protocol: Protocol, to: SocketAddr) {
        let asked = self.ask_within(protocol, to, SILENCE);
        let kind = asked.as_ref().map_err(io::Error::kind);
        assert!(is_silence(&kind), "{protocol:?} {to}: {asked:?}, and not silence");
    }

    /// It is refused, at once.
    #[track_caller]
    pub fn is_refused(&self, protocol: Protocol, to: SocketAddr) {
        let start = Instant::now();
        let asked = self.ask(protocol, to);
        let kind = asked.as_ref().map_err(io::Error::kind).map(|_| ());
        assert_eq!(
            kind,
            Err(io::ErrorKind::ConnectionRefused),
            "{protocol:?} {to}: {asked:?}"
        );
        assert!(
            start.elapsed() < PATIENCE / 2,
            "refused after {:?}",
            start.elapsed()
        );
    }
}

/// Asks once, by a socket that has not been used.
pub fn ask_by(socket: Socket, protocol: Protocol, to: SocketAddr, patience: Duration) -> io::Result<Seen> {
    match protocol {
        Protocol::Tcp => {
            socket.connect_timeout(&to.into(), patience)?;
            ask_tcp(socket.into(), to, patience)
        }
        Protocol::Udp => {
            socket.connect(&to.into())?;
            ask_udp(&socket.into(), patience)
        }
        Protocol::UdpUnconnected => ask_udp_unconnected(&socket.into(), to, patience),
    }
}

fn is_silence(kind: &Result<&Seen, io::ErrorKind>) -> bool {
    matches!(kind, Err(io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock))
}

fn ask_tcp(mut stream: TcpStream, to: SocketAddr, patience: Duration) -> io::Result<Seen> {
    assert_eq!(
        stream.peer_addr()?,
        to,
        "the other end's name is what was asked for"
    );
    stream.set_read_timeout(Some(patience))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let seen = serde_json::from_str(&line)?;
    let (sent, mut came) = (*b"sixteen bytes...", [0; 16]);
    stream.write_all(&sent)?;
    reader.read_exact(&mut came)?;
    assert_eq!(sent, came);
    Ok(seen)
}

/// Asks by a socket that is connected.
pub fn ask_udp(socket: &UdpSocket, patience: Duration) -> io::Result<Seen> {
    let (number, mut datagram) = question(socket, patience)?;
    socket.send(&datagram)?;
    let len = socket.recv(&mut datagram)?;
    seen(&datagram[..len], number)
}

/// Asks by one that is not.
fn ask_udp_unconnected(socket: &UdpSocket, to: SocketAddr, patience: Duration) -> io::Result<Seen> {
    let (number, mut datagram) = question(socket, patience)?;
    socket.send_to(&datagram, to)?;
    let (len, from) = socket.recv_from(&mut datagram)?;
    assert_eq!(from, to, "who answers is who was asked");
    seen(&datagram[..len], number)
}

fn question(socket: &UdpSocket, patience: Duration) -> io::Result<(u64, [u8; Header::SIZE])> {
    socket.set_read_timeout(Some(patience))?;
    let mut datagram = [0; Header::SIZE];
    let number = socket.as_raw_fd() as u64;
    Header { number, seen: None }.write(&mut datagram);
    Ok((number, datagram))
}

fn seen(answer: &[u8], number: u64) -> io::Result<Seen> {
    let header = Header::read(answer).filter(|h| h.number == number);
    header
        .and_then(|h| h.seen)
        .ok_or_else(|| io::Error::other("no answer of a probe's"))
}

/// `tombolo get` inside a node.
pub fn get(lab: &Lab, node: &str, words: &[&str]) -> String {
    super::succeed(&mut lab.exec(node, &[&[TOMBOLO, "get"], words].concat()))
}
