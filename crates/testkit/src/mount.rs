//! File systems that are mounted nowhere: an open descriptor is all that holds one, so that nothing is left of a
//! test that is killed.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;

/// A new file system of a kind, with options: fsopen(2), fsconfig(2) and fsmount(2), without the last step,
/// move_mount(2).
pub fn detached(kind: &CStr, options: &[(&CStr, &CStr)]) -> io::Result<OwnedFd> {
    const FSOPEN_CLOEXEC: libc::c_uint = 1;
    const FSCONFIG_SET_STRING: libc::c_uint = 1;
    const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
    const FSMOUNT_CLOEXEC: libc::c_uint = 1;
    let null = std::ptr::null::<libc::c_void>();
    // SAFETY: the name ends in a zero and lives through the call.
    let context = owned(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })?;
    let fd = context.as_raw_fd();
    for (key, value) in options {
        let (key, value) = (key.as_ptr(), value.as_ptr());
        // SAFETY: key and value end in a zero and live through the call.
        succeed(unsafe { libc::syscall(libc::SYS_fsconfig, fd, FSCONFIG_SET_STRING, key, value, 0) })?;
    }
    // SAFETY: this command takes neither key nor value.
    succeed(unsafe { libc::syscall(libc::SYS_fsconfig, fd, FSCONFIG_CMD_CREATE, null, null, 0) })?;
    // SAFETY: all arguments are plain numbers.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, fd, FSMOUNT_CLOEXEC, 0) })
}

/// Lets nothing be written to a mount, or lets it again: mount_setattr(2).
pub fn set_read_only(mount: &OwnedFd, read_only: bool) -> io::Result<()> {
    let (set, clear) = if read_only {
        (libc::MOUNT_ATTR_RDONLY, 0)
    } else {
        (0, libc::MOUNT_ATTR_RDONLY)
    };
    let attributes = libc::mount_attr {
        attr_set: set,
        attr_clr: clear,
        propagation: 0,
        userns_fd: 0,
    };
    let (fd, size) = (mount.as_raw_fd(), size_of_val(&attributes));
    // SAFETY: the path ends in a zero, the attributes are as long as is said, and both live through the call.
    succeed(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd,
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size,
        )
    })
}

/// Its root folder: a path by which any process can use it while the descriptor is open.
pub fn path(mount: &OwnedFd) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), mount.as_raw_fd()).into()
}

fn succeed(result: libc::c_long) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    succeed(result)?;
    // SAFETY: a call that succeeded gave a new descriptor, which is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(result as libc::c_int) })
}
