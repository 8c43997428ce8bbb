//! What happens to nodes in their lives: new addresses, other uplinks, other machines, full disks, clocks set back.
//! Pods that run go on, and the rest of the cluster follows.
#![allow(clippy::unwrap_used, reason = "what panics here fails the test")]

#[path = "../common/mod.rs"]
mod common;

mod addresses;
mod clock;
mod kernel;
mod machines;
mod mtu;
mod storage;
mod uplinks;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use common::{Added, DEADLINE, Node, Pod};
use tombolo_testkit::{Server, TestNamespace, wait_for};

/// How long a connection may be silent before it counts as not going on (yet): more than the time after which
/// TCP sends again what was lost.
const SILENCE: Duration = Duration::from_millis(700);

/// A pod that runs, with a server in it.
struct Running {
    pod: Pod,
    added: Added,
    servers: [Server; 2],
}

impl Running {
    fn on(node: &Node) -> Self {
        let pod = Pod::new();
        let added = node.add(&pod).unwrap();
        let servers =
            [true, false].map(|v4| Server::start(&pod.namespace, SocketAddr::new(added.address(v4), 0)));
        Self { pod, added, servers }
    }

    fn address(&self, v4: bool) -> IpAddr {
        self.added.address(v4)
    }

    /// Where its server listens.
    fn server(&self, v4: bool) -> SocketAddr {
        self.servers[usize::from(!v4)].address()
    }
}

/// A connection that is there before something happens, and must be there after it.
struct Conversation {
    stream: TcpStream,
    sent: u64,
    echoed: u64,
}

impl Conversation {
    /// Opens one from a namespace, and checks that the server saw the client's own address.
    fn open(from: &TestNamespace, source: IpAddr, to: SocketAddr) -> Self {
        let mut stream = from.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(5)).unwrap());
        stream.set_nodelay(true).unwrap();
        let mut line = Vec::new();
        let mut byte = [0];
        while byte != *b"\n" {
            stream.read_exact(&mut byte).unwrap();
            line.extend(byte);
        }
        let seen: SocketAddr = String::from_utf8(line).unwrap().trim().parse().unwrap();
        assert_eq!((seen.ip(), seen), (source, stream.local_addr().unwrap()));
        stream.set_read_timeout(Some(SILENCE)).unwrap();
        let mut made = Self {
            stream,
            sent: 0,
            echoed: 0,
        };
        assert!(made.goes_on());
        made
    }

    /// Both families, from one pod to another.
    fn between(from: &Running, to: &Running) -> [Self; 2] {
        [true, false].map(|v4| Self::open(&from.pod.namespace, from.address(v4), to.server(v4)))
    }

    /// Says something, and whether all that was ever said has come back.
    fn goes_on(&mut self) -> bool {
        self.stream.write_all(b"12345678").unwrap();
        self.sent += 8;
        let mut echo = [0; 1024];
        while self.echoed < self.sent {
            match self.stream.read(&mut echo) {
                Ok(0) => panic!("the connection was ended"),
                Ok(length) => self.echoed += length as u64,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return false,
                Err(error) => panic!("the connection broke: {error}"),
            }
        }
        true
    }

    /// Waits until it goes on.
    #[track_caller]
    fn must_go_on(&mut self, what: &str) {
        wait_for(DEADLINE, what, || self.goes_on());
    }
}

/// The addresses without their prefixes.
fn ips(addresses: &[String; 2]) -> [IpAddr; 2] {
    addresses
        .each_ref()
        .map(|a| a.parse::<ipnet::IpNet>().unwrap().addr())
}
