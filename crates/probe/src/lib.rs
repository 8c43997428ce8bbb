//! TCP, UDP, ICMP and HTTP echo server and client that report the addresses they saw.
//!
//! A [`serve`]r tells each client which source address its packets carried when they arrived, so that a
//! client can prove that nothing on the way translated it. [`check::run`] makes many such checks at once
//! from one process and compares every byte that comes back; [`flood::run`] counts lost packets.
//!
//! The server listens per family: TCP and UDP on [`DEFAULT_PORT`], HTTP on [`DEFAULT_HTTP_PORT`]. ICMP
//! echo requests are answered by the kernel of the target, which cannot report the source that it saw:
//! a check over ICMP proves the way and the bytes there and back, and that the reply came from the
//! address that was asked.

pub mod check;
mod datagram;
mod error;
pub mod flood;
mod http;
mod icmp;
pub mod serve;
mod sockopt;
mod tcp;
mod udp;
pub mod wire;

pub use error::Error;

/// The port of the TCP and UDP echo, where nothing else is said.
pub const DEFAULT_PORT: u16 = 7070;
/// The port of the HTTP server, where nothing else is said.
pub const DEFAULT_HTTP_PORT: u16 = 8080;
