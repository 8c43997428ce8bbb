//! Clients that ask each of their targets in turn, and who answered them.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::Socket;
use tombolo_probe::wire::Seen;

use crate::support::asking::{Client, Protocol, ask_by, ask_udp};
use crate::support::sockets::AT_ONCE;

/// How long an answer may take: longer than one lost packet costs a connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// The pause between requests, since what changes wants the machine, too.
const PAUSE: Duration = Duration::from_millis(2);

/// Whom to ask how, and whose answer is right.
pub struct Target {
    pub protocol: Protocol,
    pub to: SocketAddr,
    servers: BTreeSet<IpAddr>,
}

impl Target {
    pub fn new(protocol: Protocol, to: SocketAddr, servers: &BTreeSet<IpAddr>) -> Self {
        Self {
            protocol,
            to,
            servers: servers.clone(),
        }
    }
}

/// What came of it.
pub struct Tally {
    /// How often a target was asked, at least.
    pub fewest: u64,
    pub failed: Vec<String>,
    /// Answers of another Service's server.
    pub misdirected: Vec<String>,
    answers: u64,
    slowest: Duration,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            fewest,
            failed,
            misdirected,
            answers,
            slowest,
        } = self;
        let (failed, misdirected) = (failed.len(), misdirected.len());
        write!(
            f,
            "{answers} answers, each target {fewest} times at least; {failed} failed, {misdirected} misdirected; \
             the slowest took {slowest:.0?}"
        )
    }
}

/// Asks by a new connection, or a new socket, each time.
pub fn ask_anew(client: &Client, targets: &[&Target], start: &Barrier, end: &AtomicBool) -> Tally {
    let mut stock = Stock::of(client);
    start.wait();
    in_turn(targets, end, |target| {
        ask_by(stock.socket(target)?, target.protocol, target.to, PATIENCE)
    })
}

/// Asks by sockets that are connected from the start to the end: one for each target.
pub fn stay_connected(client: &Client, targets: &[&Target], start: &Barrier, end: &AtomicBool) -> Tally {
    let mut stock = Stock::of(client);
    let mut kept: Vec<(SocketAddr, io::Result<Kept>)> = targets
        .iter()
        .map(|target| (target.to, Kept::connect(&mut stock, target)))
        .collect();
    start.wait();
    in_turn(targets, end, |target| {
        let (_, kept) = kept.iter_mut().find(|(to, _)| *to == target.to).unwrap();
        match kept {
            Ok(kept) => kept.ask(),
            Err(error) => Err(io::Error::new(error.kind(), format!("connecting: {error}"))),
        }
    })
}

/// A client's sockets that have not been used, all of one type, by family.
struct Stock<'a> {
    client: &'a Client,
    sockets: [Vec<Socket>; 2],
}

impl<'a> Stock<'a> {
    fn of(client: &'a Client) -> Self {
        Self {
            client,
            sockets: Default::default(),
        }
    }

    fn socket(&mut self, target: &Target) -> io::Result<Socket> {
        let sockets = &mut self.sockets[usize::from(target.to.is_ipv6())];
        if sockets.is_empty() {
            *sockets = self
                .client
                .sockets(target.protocol.socket(), target.to, AT_ONCE)?;
        }
        sockets.pop().ok_or_else(|| io::Error::other("no socket came"))
    }
}

fn in_turn(targets: &[&Target], end: &AtomicBool, mut ask: impl FnMut(&Target) -> io::Result<Seen>) -> Tally {
    let mut tally = Tally {
        fewest: 0,
        failed: Vec::new(),
        misdirected: Vec::new(),
        answers: 0,
        slowest: Duration::ZERO,
    };
    loop {
        for target in targets {
            if end.load(Ordering::Relaxed) {
                return tally;
            }
            let Target {
                protocol,
                to,
                servers,
            } = target;
            let start = Instant::now();
            let answer = ask(target);
            tally.slowest = tally.slowest.max(start.elapsed());
            match answer {
                Ok(seen) if servers.contains(&seen.server.ip()) => tally.answers += 1,
                Ok(seen) => tally
                    .misdirected
                    .push(format!("{protocol:?} {to}: {seen:?}, not one of {servers:?}")),
                Err(error) => {
                    let after = start.elapsed();
                    tally
                        .failed
                        .push(format!("{protocol:?} {to}: {error}, after {after:.0?}"));
                }
            }
            thread::sleep(PAUSE);
        }
        tally.fewest += 1;
    }
}

/// A socket that stays connected.
enum Kept {
    Tcp(BufReader<TcpStream>, Seen),
    Udp(UdpSocket),
}

impl Kept {
    fn connect(stock: &mut Stock, target: &Target) -> io::Result<Self> {
        let socket = stock.socket(target)?;
        if target.protocol == Protocol::Udp {
            socket.connect(&target.to.into())?;
            return Ok(Self::Udp(socket.into()));
        }
        socket.connect_timeout(&target.to.into(), PATIENCE)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut reader = BufReader::new(TcpStream::from(socket));
        let mut line = String::new();
        reader.read_line(&mut line)?;
        Ok(Self::Tcp(reader, serde_json::from_str(&line)?))
    }

    fn ask(&mut self) -> io::Result<Seen> {
        match self {
            Self::Udp(socket) => ask_udp(socket, PATIENCE),
            Self::Tcp(reader, seen) => {
                let (sent, mut came) = (*b"are you there?!!", [0; 16]);
                reader.get_mut().write_all(&sent)?;
                reader.read_exact(&mut came)?;
                if came == sent {
                    Ok(*seen)
                } else {
                    Err(io::Error::other("the echo differs"))
                }
            }
        }
    }
}
