use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use tombolo_layout::IPV6_MIN_MTU;

/// Why the agent cannot start, or the node's kernel cannot be made what it should be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A folder or file of the agent's own cannot be used.
    #[error("cannot {what} {}: {source}; see that its disk is there, writable and not full", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another agent runs on this node.
    #[error("another agent holds {}; end it first (it keeps the node's pods connected until then)", path.display())]
    AnotherAgent {
        /// The lock.
        path: PathBuf,
    },
    /// Another machine is the node now.
    #[error(
        "another machine is node {node} now: the NodeNetwork names machine {machine}, addresses {addresses:?}. This \
         one has stood back and connects no pods; to make it the node again, end the agent there, delete {} here, \
         and restart the agent here",
        file.display()
    )]
    Superseded {
        /// The node.
        node: String,
        /// The other machine's id.
        machine: String,
        /// Its addresses.
        addresses: Vec<IpAddr>,
        /// Where this machine's claim is kept.
        file: PathBuf,
    },
    /// Pods cannot have the IPv6 addresses that they are to have.
    #[error(
        "the uplinks' MTU leaves pods {mtu} bytes, and IPv6 needs {IPV6_MIN_MTU}: no pod can be connected. Raise the \
         uplink's MTU (the overlay takes 50 to 70 bytes of it), or take the IPv6 pool from the Network"
    )]
    MtuTooSmall {
        /// What pods would have, in bytes.
        mtu: u16,
    },
    /// The port of the metrics is not to be had.
    #[error("cannot serve metrics on {address}: {source}; choose another address with --metrics")]
    Metrics {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A thread or a signal handler cannot be made.
    #[error("cannot start {what}: {source}")]
    Start {
        /// What.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The kernel does not tell network namespaces apart.
    #[error("the kernel does not tell the cookie of a network namespace: {0}; run Linux 6.1 or newer")]
    NamespaceCookie(#[source] io::Error),
    /// A pod's host ports do not fit the kernel's tables.
    #[error("{0}")]
    HostPorts(#[source] tombolo_services::Error),
    /// There is no clock.
    #[error("the kernel does not tell the time: {0}")]
    Clock(#[source] io::Error),
    /// The server on the unix socket ended by itself.
    #[error("the agent's socket failed: {0}")]
    Serve(#[source] io::Error),
    /// There is no client of the API server.
    #[error(transparent)]
    Client(#[from] tombolo_kube::ClientError),
    /// The programs or tables.
    #[error(transparent)]
    Datapath(#[from] tombolo_datapath::Error),
    /// Links, addresses, routes or settings of the kernel.
    #[error(transparent)]
    Netlink(#[from] tombolo_netlink::Error),
    /// The address store.
    #[error(transparent)]
    Store(#[from] tombolo_ipam::Error),
    /// The objects make no network.
    #[error(transparent)]
    Layout(#[from] tombolo_layout::Error),
    /// The plugin or its configuration, for the container runtime.
    #[error(transparent)]
    Install(#[from] crate::install::Error),
    /// The masquerade rule.
    #[error(transparent)]
    Masquerade(#[from] crate::masquerade::Error),
}

impl Error {
    /// Wraps what the system said of a file.
    pub(crate) fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }
}
