//! Mount namespaces that outlive the processes in them, held by a bind mount.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::gettid;

use crate::error::{Result, system};
use crate::mounts;

/// A mount namespace, kept alive by this handle.
#[derive(Debug)]
pub struct MountNamespace(OwnedFd);

impl MountNamespace {
    /// Makes a mount namespace, lets `arrange` change the mounts inside it on a thread of its own, and keeps
    /// it at `path`, an empty file on a private mount (mount_namespaces(7): a namespace cannot be held by a
    /// mount that would spread into it).
    pub fn create(path: &Path, arrange: impl FnOnce() -> Result<()> + Send) -> Result<Self> {
        thread::scope(|scope| {
            let (made, is_made) = mpsc::channel();
            let (release, released) = mpsc::channel::<()>();
            let inside = scope.spawn(move || {
                // The thread's root and working folder are shared with the others until this call.
                unshare(CloneFlags::CLONE_NEWNS).map_err(system("make a mount namespace for", path))?;
                mounts::make_private(Path::new("/"), true)?;
                arrange()?;
                let _ = made.send(gettid());
                let _ = released.recv();
                Ok::<_, crate::error::Error>(())
            });
            if let Ok(thread) = is_made.recv() {
                let own = format!("/proc/self/task/{thread}/ns/mnt");
                File::create(path).map_err(system("create", path))?;
                mount(
                    Some(own.as_str()),
                    path,
                    None::<&str>,
                    MsFlags::MS_BIND,
                    None::<&str>,
                )
                .map_err(system("hold a mount namespace at", path))?;
            }
            drop(release);
            inside
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Self::open(path)
        })
    }

    /// Opens the namespace that is held at `path`.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self(File::open(path).map_err(system("open", path))?.into()))
    }

    /// Runs `f` inside, on a thread of its own; the caller's thread stays where it is.
    pub fn run<T: Send>(&self, path: &Path, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                unshare(CloneFlags::CLONE_FS).map_err(system("leave the shared root for", path))?;
                setns(&self.0, CloneFlags::CLONE_NEWNS).map_err(system("enter", path))?;
                f()
            });
            inside
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl AsFd for MountNamespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
