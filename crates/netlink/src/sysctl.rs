//! Kernel settings below `/proc/sys`. Those below `net/` are of the calling thread's network namespace: use
//! [`Namespace::run`](crate::Namespace::run) for those of another.
//!
//! Keys are paths, such as `net/ipv4/conf/eth0/rp_filter`: device names may contain dots.

use std::fs;
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};

use crate::{Error, Result};

/// Reads a setting, without the line's end.
pub fn read(key: &str) -> Result<String> {
    let value = path(key).and_then(fs::read_to_string);
    let value = value.map_err(|source| Error::Sysctl {
        key: key.into(),
        operation: "read".into(),
        source,
    })?;
    Ok(value.trim_end_matches('\n').to_owned())
}

/// Writes a setting.
pub fn write(key: &str, value: &str) -> Result<()> {
    // Never create: a wrong key must say so.
    let written = path(key)
        .and_then(|path| fs::OpenOptions::new().write(true).open(path))
        .and_then(|mut file| file.write_all(value.as_bytes()));
    written.map_err(|source| Error::Sysctl {
        key: key.into(),
        operation: format!("write {value:?}"),
        source,
    })
}

fn path(key: &str) -> io::Result<PathBuf> {
    let relative = Path::new(key);
    if !relative
        .components()
        .all(|component| matches!(component, Component::Normal(_)))
    {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a path below /proc/sys",
        ));
    }
    Ok(Path::new("/proc/sys").join(relative))
}
