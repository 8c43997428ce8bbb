//! The mount table of the calling thread, and the two kinds of mounts that every part of the lab needs.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::error::{Error, Result, system};

/// One line of `/proc/<pid>/mountinfo` (proc_pid_mountinfo(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where it is.
    pub target: PathBuf,
    /// The type of the filesystem.
    pub kind: String,
}

/// The mounts that the calling thread sees, in the order in which they were made.
pub fn mounts() -> Result<Vec<Mount>> {
    let path = Path::new("/proc/thread-self/mountinfo");
    let text = fs::read_to_string(path).map_err(system("read", path))?;
    Ok(text.lines().filter_map(parse).collect())
}

fn parse(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    Some(Mount {
        target: unescape(before.split(' ').nth(4)?),
        kind: after.split(' ').next()?.to_owned(),
    })
}

/// Space, tab, newline and backslash are written as three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = (byte == b'\\')
            .then(|| after.get(..3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match escaped {
            Some(escaped) => {
                bytes.push(escaped);
                rest = &after[3..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

/// Where the control group hierarchy of version 2 is mounted.
pub fn cgroup2() -> Result<PathBuf> {
    let found = mounts()?.into_iter().rev().find(|mount| mount.kind == "cgroup2");
    found.map(|mount| mount.target).ok_or_else(|| Error::Missing {
        missing: "no control group hierarchy of version 2 is mounted".to_owned(),
        remedy:
            "mount one: `mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified`"
                .to_owned(),
    })
}

/// Mounts a new filesystem.
pub fn mount_new(kind: &str, source: &str, target: &Path, flags: MsFlags, data: Option<&str>) -> Result<()> {
    mount(Some(source), target, Some(kind), flags, data).map_err(system("mount a filesystem at", target))
}

/// Makes a folder, with all mounts below it if `recursive`, appear at a second place.
pub fn bind(source: &Path, target: &Path, recursive: bool) -> Result<()> {
    let flags = MsFlags::MS_BIND
        | if recursive {
            MsFlags::MS_REC
        } else {
            MsFlags::empty()
        };
    mount(Some(source), target, None::<&str>, flags, None::<&str>).map_err(system("bind a folder to", target))
}

/// Moves a mount.
pub fn relocate(source: &Path, target: &Path) -> Result<()> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .map_err(system("move a mount to", target))
}

/// Keeps what is mounted below `target` from spreading to other mount namespaces, which would hold on to it.
pub fn make_private(target: &Path, recursive: bool) -> Result<()> {
    let flags = MsFlags::MS_PRIVATE
        | if recursive {
            MsFlags::MS_REC
        } else {
            MsFlags::empty()
        };
    mount(None::<&str>, target, None::<&str>, flags, None::<&str>).map_err(system("make private", target))
}

/// Unmounts everything at `target`; fine if there is nothing.
pub fn unmount_all(target: &Path) -> Result<()> {
    loop {
        match umount2(target, MntFlags::MNT_DETACH) {
            Ok(()) => {}
            // Not, or no longer, a mount point.
            Err(nix::Error::EINVAL | nix::Error::ENOENT) => return Ok(()),
            Err(error) => return Err(system("unmount", target)(io::Error::from(error))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_read() {
        let line = r"41 31 0:38 / /sys/fs/a\040b rw,relatime shared:5 - cgroup2 cgroup2 rw";
        let expected = Mount {
            target: "/sys/fs/a b".into(),
            kind: "cgroup2".to_owned(),
        };
        assert_eq!(parse(line), Some(expected));
        assert_eq!(parse("nonsense"), None);
        assert_eq!(unescape(r"a\"), PathBuf::from(r"a\"));
        assert_eq!(unescape(r"\999x"), PathBuf::from(r"\999x"));
    }
}
