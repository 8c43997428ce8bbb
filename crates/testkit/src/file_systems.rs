//! File systems of a test's own, mounted nowhere: they live as long as the values here, and nothing is left of a test
//! that is killed.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;

/// A BPF file system: what is pinned in it lives as long as this value.
#[derive(Debug)]
pub struct Bpffs(OwnedFd);

/// A file system in memory, where syncing costs nothing.
#[derive(Debug)]
pub struct Tmpfs(OwnedFd);

macro_rules! file_system {
    ($type:ident, $kind:literal) => {
        impl $type {
            /// Makes an empty one.
            ///
            /// # Panics
            /// When the kernel refuses, as it does to all but root.
            pub fn new() -> Self {
                Self(
                    detached_mount($kind)
                        .unwrap_or_else(|error| panic!("make a file system {:?}: {error}", $kind)),
                )
            }

            /// Its root folder: a path by which any process can use it while this value lives.
            pub fn path(&self) -> PathBuf {
                format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()).into()
            }
        }

        impl Default for $type {
            fn default() -> Self {
                Self::new()
            }
        }
    };
}

file_system!(Bpffs, c"bpf");
file_system!(Tmpfs, c"tmpfs");

/// fsopen(2), fsconfig(2) and fsmount(2), without the last step, move_mount(2).
fn detached_mount(kind: &CStr) -> io::Result<OwnedFd> {
    const FSOPEN_CLOEXEC: libc::c_uint = 1;
    const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
    const FSMOUNT_CLOEXEC: libc::c_uint = 1;
    let null = std::ptr::null::<libc::c_void>();
    // SAFETY: the name ends in a zero and lives through the call.
    let context = owned(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })?;
    let fd = context.as_raw_fd();
    // SAFETY: this command takes neither key nor value.
    let created = unsafe { libc::syscall(libc::SYS_fsconfig, fd, FSCONFIG_CMD_CREATE, null, null, 0) };
    if created < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all arguments are plain numbers.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, fd, FSMOUNT_CLOEXEC, 0) })
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a call that succeeded gave a new descriptor, which is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(result as libc::c_int) })
}
