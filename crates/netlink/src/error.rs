//! What can go wrong, in words that say what failed, on what, and what to do.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use netlink_packet_core::DecodeError;
use nix::errno::Errno;

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused a request.
    #[error("{operation}: {}{}{}", errno.desc(), detail(explanation), hint(*errno))]
    Refused {
        /// What was asked, on which object.
        operation: String,
        /// The kernel's error number.
        errno: Errno,
        /// The kernel's own words (extended acknowledgement), where it sent some.
        explanation: Option<String>,
    },
    /// A system call on the netlink socket failed.
    #[error("netlink socket: {operation}: {source}{}", hint(errno_of(source)))]
    Socket {
        /// Which call.
        operation: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The kernel did not answer in time.
    #[error(
        "{operation}: no answer from the kernel within {} s; another program may hold the \
         network configuration lock (rtnl), look for stuck network tools", deadline.as_secs()
    )]
    Timeout {
        /// What was asked.
        operation: String,
        /// How long was waited.
        deadline: Duration,
    },
    /// A list from the kernel changed each time while it was being read.
    #[error(
        "{operation}: the list changed during each of {attempts} readings; try again when the node is calmer"
    )]
    Interrupted {
        /// What was listed.
        operation: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// The kernel's answer could not be read.
    #[error("{operation}: cannot read the kernel's answer: {source}")]
    Decode {
        /// What was asked.
        operation: String,
        /// What did not fit.
        source: DecodeError,
    },
    /// A device name that Linux does not take.
    #[error(
        "invalid device name {0:?}: 1 to 15 bytes, none of them '/', ':' or white space, and neither '.' nor '..'"
    )]
    InvalidName(String),
    /// A link that must be there is not.
    #[error("no link named {0:?} in this network namespace")]
    NoSuchLink(String),
    /// A request that makes no sense.
    #[error("{operation}: {reason}")]
    Invalid {
        /// What was asked.
        operation: String,
        /// Why that cannot be.
        reason: &'static str,
    },
    /// An operation on a namespace or the file that holds it failed.
    #[error("network namespace: {operation}: {source}{}", hint(errno_of(source)))]
    Namespace {
        /// What failed, on which file.
        operation: String,
        /// Why.
        source: io::Error,
    },
    /// A file that was given as a network namespace is none.
    #[error("{} is not a network namespace; give the path of one, such as /run/netns/NAME or /proc/PID/ns/net", .0.display())]
    NotANamespace(PathBuf),
    /// A kernel setting could not be read or written.
    #[error("kernel setting {key}: {operation}: {source}{}", hint(errno_of(source)))]
    Sysctl {
        /// The setting, as a path below /proc/sys.
        key: String,
        /// What was tried.
        operation: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl Error {
    /// The kernel's error number, if it was the kernel that refused.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::Socket { source, .. } | Self::Namespace { source, .. } | Self::Sysctl { source, .. } => {
                source.raw_os_error().map(Errno::from_raw)
            }
            _ => None,
        }
    }

    /// Whether something of that name, address or destination is there already.
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(Errno::EEXIST)
    }

    /// Whether the object of the request is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NoSuchLink(_))
            || matches!(
                self.errno(),
                Some(Errno::ENODEV | Errno::ENOENT | Errno::ESRCH | Errno::EADDRNOTAVAIL)
            )
    }
}

fn detail(explanation: &Option<String>) -> String {
    explanation
        .as_ref()
        .map(|text| format!(" ({text})"))
        .unwrap_or_default()
}

fn errno_of(source: &io::Error) -> Errno {
    Errno::from_raw(source.raw_os_error().unwrap_or(0))
}

/// What to do about an error number, where there is something to say beyond its description.
fn hint(errno: Errno) -> &'static str {
    match errno {
        Errno::EPERM | Errno::EACCES => "; run as root or with CAP_NET_ADMIN and CAP_SYS_ADMIN",
        Errno::EOPNOTSUPP => "; this kernel lacks that kind of object or option",
        Errno::ENODEV => "; the device is gone or was never there",
        Errno::ENETUNREACH => {
            "; the gateway must be reachable over the device: add a route to it first, or use onlink"
        }
        Errno::ENFILE | Errno::EMFILE => "; too many open files, raise the limit",
        _ => "",
    }
}
