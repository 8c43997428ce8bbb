//! Network namespaces, entered only by threads made for that.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::thread;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::{Error, LinkChange, Netlink, Result};

/// The calling thread's own namespace; `/proc/self` would be that of the process's first thread.
const OWN: &str = "/proc/thread-self/ns/net";

/// Asks a namespace file for its kind (ioctl_ns(2), `NS_GET_NSTYPE`).
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;

/// A network namespace, kept alive by this handle.
pub struct Namespace(OwnedFd);

impl Namespace {
    /// The calling thread's namespace.
    pub fn current() -> Result<Self> {
        Self::open(Path::new(OWN))
    }

    /// Opens the namespace that a file holds, such as `/proc/<pid>/ns/net` or a bind mount of it.
    /// Any other kind of file is refused.
    pub fn open(path: &Path) -> Result<Self> {
        // Without O_NONBLOCK, a named pipe at that path would block for ever.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map_err(|source| Error::Namespace {
                operation: format!("open {}", path.display()),
                source,
            })?;
        // SAFETY: this request takes no argument and only reads the descriptor, which is open.
        let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) };
        if kind != libc::CLONE_NEWNET {
            return Err(Error::NotANamespace(path.to_owned()));
        }
        Ok(Self(file.into()))
    }

    /// Makes a namespace that lives as long as a handle on it, a process in it or a mount of it. Its loopback
    /// device is up.
    pub fn new() -> Result<Self> {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                enter_new()?;
                Self::current()
            });
            join(thread)
        })
    }

    /// Makes a namespace and mounts it at `path`, where nothing may be yet and whose folder must exist.
    /// It lives until [`Namespace::remove`]. Its loopback device is up.
    pub fn create(path: &Path) -> Result<Self> {
        let failed = |what: &str| {
            let operation = format!("{what} {}", path.display());
            move |source: io::Error| Error::Namespace { operation, source }
        };
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o444)
            .open(path)
            .map_err(failed("create"))?;
        let made = thread::scope(|scope| {
            let thread = scope.spawn(|| {
                enter_new()?;
                mount(Some(OWN), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                    .map_err(|errno| failed("mount at")(errno.into()))?;
                Self::current()
            });
            join(thread)
        });
        if made.is_err() {
            // Nothing half-made stays; the first error is the one to report.
            let _ = Self::remove(path);
        }
        made
    }

    /// Unmounts the namespace at `path` and removes the file. It is fine if there is none.
    pub fn remove(path: &Path) -> Result<()> {
        let failed = |what: &str, source: io::Error| Error::Namespace {
            operation: format!("{what} {}", path.display()),
            source,
        };
        loop {
            match umount2(path, MntFlags::MNT_DETACH) {
                Ok(()) => continue,
                // Not, or no longer, a mount point.
                Err(Errno::EINVAL | Errno::ENOENT) => break,
                Err(errno) => return Err(failed("unmount", errno.into())),
            }
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", error)),
            _ => Ok(()),
        }
    }

    /// Runs `f` inside the namespace, on a thread of its own; the caller's thread stays where it is. What belongs
    /// to a thread's namespace is that of this one there: new sockets, `/proc/sys/net`, `/proc/thread-self/net`.
    /// A panic of `f` goes on in the caller.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter()?;
                Ok(f())
            });
            join(thread)
        })
    }

    /// Moves the calling thread into the namespace, for good. Only for threads that end there, and for the moment
    /// between `fork` and `exec` (it makes one system call and allocates nothing unless it fails).
    pub fn enter(&self) -> Result<()> {
        setns(&self.0, CloneFlags::CLONE_NEWNET).map_err(|errno| Error::Namespace {
            operation: "enter".into(),
            source: errno.into(),
        })
    }

    /// Whether both are the same namespace.
    pub fn same_as(&self, other: &Self) -> Result<bool> {
        Ok(self.identity()? == other.identity()?)
    }

    /// Another handle on the same namespace.
    pub fn try_clone(&self) -> Result<Self> {
        let clone = self.0.try_clone();
        clone.map(Self).map_err(|source| Error::Namespace {
            operation: "duplicate the handle".into(),
            source,
        })
    }

    fn identity(&self) -> Result<(u64, u64)> {
        let status = self.0.try_clone().and_then(|fd| File::from(fd).metadata());
        let status = status.map_err(|source| Error::Namespace {
            operation: "identify".into(),
            source,
        })?;
        Ok((status.dev(), status.ino()))
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.identity() {
            Ok((_, inode)) => write!(f, "Namespace(net:[{inode}])"),
            Err(_) => write!(f, "Namespace(?)"),
        }
    }
}

/// Moves the calling thread into a new namespace with loopback up.
fn enter_new() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| Error::Namespace {
        operation: "make".into(),
        source: errno.into(),
    })?;
    let mut netlink = Netlink::open()?;
    let loopback = netlink.require_link("lo")?;
    netlink.set_link(
        loopback.index,
        &LinkChange {
            up: Some(true),
            ..LinkChange::default()
        },
    )
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
