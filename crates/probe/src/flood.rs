//! Numbered datagrams at a steady rate, to count what gets lost while something else happens.

use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::sockopt::receive_buffer;
use crate::wire::{Header, pattern};
use crate::{DEFAULT_PORT, Error};

/// How long after the last packet a reply still counts.
const GRACE: Duration = Duration::from_secs(1);

/// What to send.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Address of a probe server
    #[arg(long, value_name = "ADDRESS")]
    pub to: IpAddr,
    /// Port of its UDP echo
    #[arg(long, value_name = "PORT", default_value_t = DEFAULT_PORT)]
    pub port: u16,
    /// Packets a second
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: u32,
    /// Packets in all
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub packets: u64,
    /// Stop sending when standard input ends
    #[arg(long)]
    pub until_eof: bool,
    /// Payload of each packet, in bytes (at least 52)
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    pub size: usize,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tally {
    /// Packets sent.
    pub sent: u64,
    /// Packets that came back, each counted once.
    pub received: u64,
    /// Packets that never came back.
    pub lost: u64,
    /// Packets that came back more than once.
    pub duplicated: u64,
    /// Packets that came back after a later one.
    pub reordered: u64,
    /// The number of the first lost packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_lost: Option<u64>,
    /// The longest time between two replies, in milliseconds.
    pub longest_gap_ms: f64,
    /// Sends that the kernel refused; they count as lost.
    pub refused: u64,
}

/// Sends `args.packets` datagrams at `args.rate` and counts their echoes. Blocks until the last has come
/// back or a second has passed.
///
/// # Errors
/// [`Error::Flood`] if there is no way to the target; what gets lost is counted.
pub fn run(args: &Args) -> Result<Tally, Error> {
    let target = SocketAddr::new(args.to, args.port);
    let failed = |source| Error::Flood { target, source };
    let socket = connect(target).map_err(failed)?;
    let receiver = socket.try_clone().map_err(failed)?;
    let (packets, all_sent) = (args.packets, &AtomicBool::new(false));
    std::thread::scope(|scope| {
        let counting = scope.spawn(move || count(&receiver, packets, all_sent));
        let (sent, refused) = send(&socket, args, &stopped(args.until_eof));
        all_sent.store(true, Ordering::Release);
        let tally = counting
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            .map_err(failed)?;
        let first_lost = tally.first_lost.filter(|number| *number < sent);
        Ok(Tally {
            sent,
            lost: sent - tally.received,
            first_lost,
            refused,
            ..tally
        })
    })
}

fn connect(target: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = if target.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    receive_buffer(&socket, 16 << 20);
    socket.connect(target)?;
    socket.set_read_timeout(Some(GRACE))?;
    Ok(socket)
}

/// A flag that is set when standard input ends, if that is wanted.
fn stopped(wanted: bool) -> Arc<AtomicBool> {
    let stopped = Arc::new(AtomicBool::new(false));
    if wanted {
        let stop = stopped.clone();
        // It may wait for ever; the process does not wait for it.
        std::thread::spawn(move || {
            let _ = io::stdin().read_to_end(&mut Vec::new());
            stop.store(true, Ordering::Release);
        });
    }
    stopped
}

/// Returns how many were sent, and how many of those the kernel refused.
fn send(socket: &UdpSocket, args: &Args, stopped: &AtomicBool) -> (u64, u64) {
    let mut datagram = vec![0; args.size.max(Header::SIZE)];
    pattern(0, &mut datagram);
    let (start, mut refused) = (Instant::now(), 0);
    for number in 0..args.packets {
        if stopped.load(Ordering::Acquire) {
            return (number, refused);
        }
        let due = start + Duration::from_secs_f64(number as f64 / f64::from(args.rate));
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        Header { number, seen: None }.write(&mut datagram);
        refused += u64::from(socket.send(&datagram).is_err());
    }
    (args.packets, refused)
}

fn count(socket: &UdpSocket, packets: u64, all_sent: &AtomicBool) -> io::Result<Tally> {
    let mut seen = vec![false; packets as usize];
    let mut buffer = vec![0; 64 << 10];
    let (mut received, mut duplicated, mut reordered, mut next) = (0, 0, 0, 0);
    let (mut last, mut longest_gap) = (None::<Instant>, Duration::ZERO);
    let mut quiet_after_the_last = false;
    while received < packets {
        let n = match socket.recv(&mut buffer) {
            Ok(n) => n,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if quiet_after_the_last {
                    break;
                }
                quiet_after_the_last = all_sent.load(Ordering::Acquire);
                continue;
            }
            // ICMP errors about single packets: the loss shows in the count.
            Err(_) => continue,
        };
        let now = Instant::now();
        let Some(Header {
            number,
            seen: Some(_),
        }) = Header::read(&buffer[..n])
        else {
            continue;
        };
        let Some(slot) = seen.get_mut(number as usize) else {
            continue;
        };
        if std::mem::replace(slot, true) {
            duplicated += 1;
            continue;
        }
        received += 1;
        reordered += u64::from(number < next);
        next = next.max(number + 1);
        longest_gap = longest_gap.max(last.map_or(Duration::ZERO, |last| now - last));
        last = Some(now);
    }
    Ok(Tally {
        sent: packets,
        received,
        lost: packets - received,
        duplicated,
        reordered,
        first_lost: seen.iter().position(|seen| !seen).map(|at| at as u64),
        longest_gap_ms: longest_gap.as_secs_f64() * 1000.0,
        refused: 0,
    })
}
