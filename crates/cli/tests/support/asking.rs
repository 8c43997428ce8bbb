//! Asking the probe servers of a lab from inside its namespaces, and what each end saw.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use tombolo_netlink::Namespace;
use tombolo_probe::wire::{Header, Seen};

use super::connections::PodNetwork;
use super::{Lab, TOMBOLO};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long to wait for the answer that must not come.
const SILENCE: Duration = Duration::from_millis(400);

/// How to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
}

/// Somebody who asks.
pub struct Client {
    pub namespace: Namespace,
    pub addresses: Vec<IpAddr>,
}

impl Client {
    /// A pod.
    pub fn pod(lab: &Lab, name: &str) -> Self {
        let PodNetwork { namespace, addresses } = PodNetwork::of(lab, name);
        Self { namespace, addresses }
    }

    /// The outside host.
    pub fn outside(lab: &Lab) -> Self {
        let path = lab.folder_of_lab().join("state/ns/outside.net");
        Self {
            namespace: Namespace::open(&path).unwrap(),
            addresses: ["198.51.100.10", "2001:db8:100::10"]
                .map(|a| a.parse().unwrap())
                .to_vec(),
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

    /// Asks once. The answer is the other end's, or the kernel would not have let it through: the socket is
    /// connected to whom it asks.
    pub fn ask(&self, protocol: Protocol, to: SocketAddr) -> io::Result<Seen> {
        self.ask_within(protocol, to, PATIENCE)
    }

    /// The same, with another patience.
    pub fn ask_within(&self, protocol: Protocol, to: SocketAddr, patience: Duration) -> io::Result<Seen> {
        self.namespace.run(|| ask(protocol, to, patience)).unwrap()
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

fn is_silence(kind: &Result<&Seen, io::ErrorKind>) -> bool {
    matches!(kind, Err(io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock))
}

/// Asks from where the thread is.
pub fn ask(protocol: Protocol, to: SocketAddr, patience: Duration) -> io::Result<Seen> {
    match protocol {
        Protocol::Tcp => ask_tcp(to, patience),
        Protocol::Udp => {
            let any = match to {
                SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
                SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
            };
            let socket = UdpSocket::bind((any, 0))?;
            socket.connect(to)?;
            ask_udp(&socket, patience)
        }
    }
}

fn ask_tcp(to: SocketAddr, patience: Duration) -> io::Result<Seen> {
    let mut stream = TcpStream::connect_timeout(&to, patience)?;
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
    socket.set_read_timeout(Some(patience))?;
    let mut datagram = [0; Header::SIZE];
    let number = socket.local_addr()?.port().into();
    Header { number, seen: None }.write(&mut datagram);
    socket.send(&datagram)?;
    let len = socket.recv(&mut datagram)?;
    let header = Header::read(&datagram[..len]).filter(|h| h.number == number);
    header
        .and_then(|h| h.seen)
        .ok_or_else(|| io::Error::other("no answer of a probe's"))
}

/// `tombolo get` inside a node.
pub fn get(lab: &Lab, node: &str, words: &[&str]) -> String {
    super::succeed(&mut lab.exec(node, &[&[TOMBOLO, "get"], words].concat()))
}
