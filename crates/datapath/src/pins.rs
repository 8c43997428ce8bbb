//! Where things are pinned.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use tombolo_abi::{ABI_VERSION, Hook};

use crate::{Error, Result};

/// The folders below the directory.
#[derive(Clone, Debug)]
pub struct Pins {
    /// Maps of this ABI version.
    pub maps: PathBuf,
    /// What is attached.
    pub links: PathBuf,
}

impl Pins {
    /// The folders' names.
    pub fn of(directory: &Path) -> Self {
        Self {
            maps: directory.join(format!("v{ABI_VERSION}")),
            links: directory.join("links"),
        }
    }

    /// Makes the folders where they are missing.
    pub fn make(directory: &Path) -> Result<Self> {
        let pins = Self::of(directory);
        // The nearest folder that is there tells the file system, before anything is made on another.
        let there = directory
            .ancestors()
            .find(|path| path.exists())
            .unwrap_or(Path::new("/"));
        let kind = statfs(there).map_err(|e| Error::Pin {
            what: "look at",
            path: there.to_owned(),
            source: e.into(),
        })?;
        if kind.filesystem_type() != BPF_FS_MAGIC {
            return Err(Error::NotBpffs(directory.to_owned()));
        }
        if let Some(newer) = newer(directory) {
            return Err(Error::NewerAbi(newer));
        }
        for folder in [&pins.maps, &pins.links] {
            fs::create_dir_all(folder).map_err(|source| Error::Pin {
                what: "make",
                path: folder.clone(),
                source,
            })?;
        }
        Ok(pins)
    }

    /// The pin of a device and hook. A bpffs takes no dots in names, but devices have them
    /// (`eth0.100`): they are written `%2e`, and `%` is `%25`.
    pub fn link(&self, device: &str, hook: Hook) -> PathBuf {
        let device = device.replace('%', "%25").replace('.', "%2e");
        self.links.join(format!("{device}-{}", hook.word()))
    }

    /// All that is attached: device, hook, pin.
    pub fn attached(&self) -> Result<Vec<(String, Hook, PathBuf)>> {
        let unreadable = |source| Error::Pin {
            what: "read",
            path: self.links.clone(),
            source,
        };
        let entries = match fs::read_dir(&self.links) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unreadable(error)),
        };
        let mut attached = Vec::new();
        for entry in entries {
            let entry = entry.map_err(unreadable)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some((device, word)) = name.rsplit_once('-') else {
                continue;
            };
            let Some(hook) = Hook::ALL.iter().find(|hook| hook.word() == word) else {
                continue;
            };
            attached.push((
                device.replace("%2e", ".").replace("%25", "%"),
                *hook,
                entry.path(),
            ));
        }
        Ok(attached)
    }
}

/// The folder of maps of a version that this release does not know.
fn newer(directory: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(directory).ok()?.flatten();
    let version =
        |path: &PathBuf| -> Option<u32> { path.file_name()?.to_str()?.strip_prefix('v')?.parse().ok() };
    entries
        .map(|entry| entry.path())
        .filter(|path| version(path).is_some_and(|v| v > ABI_VERSION))
        .max_by_key(version)
}

/// Takes a pin off; fine if there is none.
pub fn unpin(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::Pin {
            what: "remove",
            path: path.to_owned(),
            source: error,
        }),
        _ => Ok(()),
    }
}

/// Removes everything that is pinned below a directory, of whatever version, and so detaches all
/// tcx links. Filters of clsact go with [`Datapath::detach`](crate::Datapath::detach) or their
/// devices; those of devices in the thread's network namespace are removed here.
pub fn remove(directory: &Path) -> Result<()> {
    for (device, hook, path) in Pins::of(directory).attached()? {
        crate::attach::detach(&device, hook, &path)?;
    }
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::Pin {
            what: "remove",
            path: directory.to_owned(),
            source: error,
        }),
        _ => Ok(()),
    }
}
