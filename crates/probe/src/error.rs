use std::io;
use std::net::SocketAddr;

/// What can go wrong besides the checks themselves, whose failures are results.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A server's socket could not be bound.
    #[error(
        "cannot listen on {protocol} {address}: {source}; is another server there? choose another --port or --http-port"
    )]
    Listen {
        /// `tcp`, `udp` or `http`.
        protocol: &'static str,
        /// The address asked for.
        address: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Neither IPv4 nor IPv6 sockets exist here.
    #[error("neither IPv4 nor IPv6 is available in this network namespace; is its loopback device there?")]
    NoFamily,
    /// A server stopped.
    #[error("the {protocol} server stopped: {source}")]
    Stopped {
        /// `tcp`, `udp` or `http`.
        protocol: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The list of checks is not what [`check::Check`](crate::check::Check) describes.
    #[error("the checks on standard input are not valid: {0}; expected a JSON array of checks")]
    BadChecks(serde_json::Error),
    /// The addresses of this network namespace could not be read.
    #[error("cannot list the addresses of this network namespace: {0}")]
    Addresses(io::Error),
    /// A flood's socket failed.
    #[error("cannot flood {target}: {source}; is there a route to it?")]
    Flood {
        /// Where the packets should go.
        target: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
}
