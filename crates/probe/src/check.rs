//! Many checks at once, each told and answered as JSON.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::icmp::Pingers;
use crate::{DEFAULT_HTTP_PORT, DEFAULT_PORT, Error, http, tcp, udp};

/// Payload that all checks together have in flight, in bytes: below the 4 MiB of fragments that the kernel
/// keeps for reassembly in a network namespace, so that several clients may check one server at once.
const IN_FLIGHT: usize = 512 << 10;

/// One thing to try.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Check {
    /// Repeated in the result.
    pub id: String,
    /// How to ask.
    pub protocol: Protocol,
    /// Whom to ask.
    pub address: IpAddr,
    /// The port, if not the default one of the protocol; ICMP has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Bytes of payload, above the header of TCP, UDP or ICMP. UDP datagrams have at least 52, of which the
    /// server's report takes the first in the reply; HTTP ignores it.
    #[serde(default = "small")]
    pub size: usize,
    /// Refuse fragmentation, by this host and on the way (UDP and ICMP).
    #[serde(default)]
    pub dont_fragment: bool,
    /// When to give up, in milliseconds.
    #[serde(default = "default_deadline")]
    pub deadline_ms: u64,
    /// The own address to ask from; chosen by the kernel if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
}

fn small() -> usize {
    64
}

fn default_deadline() -> u64 {
    3000
}

impl Check {
    /// The port to ask.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(match self.protocol {
            Protocol::Http => DEFAULT_HTTP_PORT,
            _ => DEFAULT_PORT,
        })
    }
}

/// How to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Echo over a TCP connection; any size, so that a large one is a bulk transfer both ways.
    Tcp,
    /// Echo of one datagram; at most 65,507 bytes over IPv4, 65,527 over IPv6.
    Udp,
    /// ICMP or ICMPv6 echo, answered by the target's kernel.
    Icmp,
    /// A GET request.
    Http,
}

/// Everything that one run found out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The addresses of this network namespace that are neither loopback nor link-local.
    pub addresses: Vec<IpAddr>,
    /// One for each check, in the same order.
    pub results: Vec<Outcome>,
}

/// What became of one check.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The check's.
    pub id: String,
    /// How long the whole check took, in microseconds.
    pub micros: u64,
    /// Packets that were sent until an answer came (UDP and ICMP; 1 otherwise).
    pub attempts: u32,
    /// What came back, or why nothing did.
    #[serde(flatten)]
    pub answer: Answer,
}

/// What came back, or why nothing did.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// Every byte came back.
    Success(Success),
    /// It did not.
    Failure(Failure),
}

/// The ends of a conversation, as each of them saw them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Success {
    /// The source of our packets, as the server saw it; ICMP cannot know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<SocketAddr>,
    /// The server's own address, as the server saw it (ICMP: as its reply carried it).
    pub server: SocketAddr,
    /// The own address that the packets left with.
    pub local: SocketAddr,
    /// The path MTU that the kernel knows after the check, in bytes of the IP packet; ICMP cannot know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_mtu: Option<u32>,
}

/// Why a check got no proper answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// Which way it failed.
    pub kind: Kind,
    /// In words.
    pub message: String,
    /// The path MTU that the kernel knows after the check (UDP).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_mtu: Option<u32>,
}

/// The ways in which a check fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Nothing came within the deadline.
    Timeout,
    /// The target answered that nobody listens.
    Refused,
    /// This host or one on the way has no route, or may not send.
    Unreachable,
    /// The packet is larger than the path's MTU, and fragmentation was refused.
    TooBig,
    /// The answer came from another address than was asked.
    WrongSource,
    /// Other bytes came back than were sent.
    Corrupted,
    /// Anything else.
    Other,
}

impl Failure {
    pub(crate) fn new(kind: Kind, message: String) -> Self {
        Self {
            kind,
            message,
            path_mtu: None,
        }
    }

    pub(crate) fn timeout(attempts: u32) -> Self {
        Self::new(
            Kind::Timeout,
            format!("no answer to {attempts} packets within the deadline"),
        )
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let kind = match error.raw_os_error() {
            Some(libc::ECONNREFUSED | libc::ECONNRESET) => Kind::Refused,
            Some(libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EACCES | libc::EPERM) => Kind::Unreachable,
            Some(libc::EMSGSIZE) => Kind::TooBig,
            Some(libc::ETIMEDOUT) => Kind::Timeout,
            _ => Kind::Other,
        };
        Self::new(kind, error.to_string())
    }
}

/// When to send again: after a wait that doubles, until the deadline.
pub(crate) struct Attempts {
    made: u32,
    wait: Duration,
    deadline: Instant,
}

impl Attempts {
    fn new(deadline: Instant) -> Self {
        Self {
            made: 0,
            wait: udp::FIRST_WAIT,
            deadline,
        }
    }

    /// Until when the next attempt may wait for its answer; `None` after the deadline.
    pub(crate) fn next(&mut self) -> Option<Instant> {
        let now = Instant::now();
        if now >= self.deadline {
            return None;
        }
        self.made += 1;
        let until = (now + self.wait).min(self.deadline);
        self.wait *= 2;
        Some(until)
    }

    pub(crate) fn made(&self) -> u32 {
        self.made
    }
}

/// Makes all checks, as many at once as memory for their packets allows. Needs a Tokio runtime.
///
/// # Errors
/// [`Error::Addresses`]; a check that fails is a result.
pub async fn run(checks: Vec<Check>) -> Result<Report, Error> {
    let addresses = addresses().map_err(Error::Addresses)?;
    let pingers = Arc::new(Pingers::default());
    let room = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut running = JoinSet::new();
    for (index, check) in checks.into_iter().enumerate() {
        let (pingers, room) = (pingers.clone(), room.clone());
        running.spawn(async move {
            let bytes = check.size.clamp(4096, 64 << 10) as u32;
            let _permit = room.acquire_many(bytes).await;
            (index, one(&pingers, check).await)
        });
    }
    let mut results: Vec<_> = running.join_all().await;
    results.sort_by_key(|(index, _)| *index);
    Ok(Report {
        addresses,
        results: results.into_iter().map(|(_, outcome)| outcome).collect(),
    })
}

async fn one(pingers: &Pingers, check: Check) -> Outcome {
    let start = Instant::now();
    let limit = Duration::from_millis(check.deadline_ms);
    let mut attempts = Attempts::new(start + limit);
    let answer = match check.protocol {
        Protocol::Tcp => within(limit, tcp::run(&check)).await,
        Protocol::Http => within(limit, http::check(&check)).await,
        Protocol::Udp => udp::run(&check, &mut attempts).await,
        Protocol::Icmp => pingers.run(&check, &mut attempts).await,
    };
    Outcome {
        id: check.id,
        micros: start.elapsed().as_micros() as u64,
        attempts: attempts.made().max(1),
        answer: answer.map_or_else(Answer::Failure, Answer::Success),
    }
}

async fn within(
    limit: Duration,
    check: impl Future<Output = Result<Success, Failure>>,
) -> Result<Success, Failure> {
    timeout(limit, check).await.unwrap_or_else(|_| {
        let message = format!("not done within {} ms", limit.as_millis());
        Err(Failure::new(Kind::Timeout, message))
    })
}

fn addresses() -> io::Result<Vec<IpAddr>> {
    let mut found = Vec::new();
    for interface in nix::ifaddrs::getifaddrs()? {
        let Some(address) = interface.address else {
            continue;
        };
        let ip: IpAddr = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
            (Some(v4), _) => v4.ip().into(),
            (_, Some(v6)) if !v6.ip().is_unicast_link_local() => v6.ip().into(),
            _ => continue,
        };
        if !ip.is_loopback() {
            found.push(ip);
        }
    }
    Ok(found)
}

/// Reads checks from standard input as a JSON array, runs them, and returns the report.
///
/// # Errors
/// [`Error::BadChecks`] before anything is sent, or as [`run`].
pub async fn from_stdin() -> Result<Report, Error> {
    let mut text = String::new();
    io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| Error::BadChecks(serde_json::Error::io(error)))?;
    run(serde_json::from_str(&text).map_err(Error::BadChecks)?).await
}
