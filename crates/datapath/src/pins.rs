//! Where things are pinned.
//!
//! A folder `v<ABI>` appears by rename, when all maps are in it and filled, and goes by rename, when no program
//! uses them any more. So one that is there is complete, whenever an agent was killed; where there are two, one
//! version is taking over from the other, and nobody has written rows since.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use tombolo_abi::{ABI_VERSION, Hook};

use crate::{Error, Result};

/// Ends the names of maps' folders that are being made, and that are being removed.
const STAGED: &str = "-staged";
const RETIRED: &str = "-retired";

/// Ends the name of a pin that is about to replace another.
const REPLACING: &str = "-replacing";

/// The folders below the directory.
#[derive(Clone, Debug)]
pub struct Pins {
    directory: PathBuf,
    /// What is attached to devices.
    pub links: PathBuf,
    /// What is attached to a control group.
    pub sockets: PathBuf,
}

impl Pins {
    /// The folders' names.
    pub fn of(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            links: directory.join("links"),
            sockets: directory.join("links/sockets"),
        }
    }

    /// Makes the directory where it is missing, and removes what somebody who was killed has left half-made.
    ///
    /// # Errors
    /// [`Error::UnknownAbi`]: tables of a version that cannot be taken over from; nothing was changed.
    pub fn make(directory: &Path) -> Result<Self> {
        let pins = Self::of(directory);
        // The nearest folder that is there tells the file system, before anything is made on another.
        let there = directory
            .ancestors()
            .find(|path| path.exists())
            .unwrap_or(Path::new("/"));
        let kind = statfs(there).map_err(|e| failed("look at", there)(e.into()))?;
        if kind.filesystem_type() != BPF_FS_MAGIC {
            return Err(Error::NotBpffs(directory.to_owned()));
        }
        for version in pins.versions()? {
            if version.abs_diff(ABI_VERSION) > 1 {
                return Err(Error::UnknownAbi {
                    path: pins.maps_of(version),
                    found: version,
                });
            }
        }
        fs::create_dir_all(&pins.links).map_err(failed("make", &pins.links))?;
        pins.sweep()?;
        Ok(pins)
    }

    /// The maps of this ABI version.
    pub fn maps(&self) -> PathBuf {
        self.maps_of(ABI_VERSION)
    }

    /// The maps of an ABI version.
    pub fn maps_of(&self, version: u32) -> PathBuf {
        self.directory.join(format!("v{version}"))
    }

    /// The maps of this ABI version until they are filled.
    pub fn staged(&self) -> PathBuf {
        self.directory.join(format!("v{ABI_VERSION}{STAGED}"))
    }

    /// Other ABI versions whose tables are there.
    pub fn neighbours(&self) -> Result<Vec<u32>> {
        Ok(self
            .versions()?
            .into_iter()
            .filter(|v| *v != ABI_VERSION)
            .collect())
    }

    /// The maps that were staged become those of this version, all at once; fine if none were.
    pub fn publish(&self) -> Result<()> {
        let (staged, maps) = (self.staged(), self.maps());
        if !staged.exists() {
            return Ok(());
        }
        if maps.exists() {
            self.retire(ABI_VERSION)?;
        }
        fs::rename(&staged, &maps).map_err(failed("rename", &staged))
    }

    /// Removes the maps of a version, which no program uses any more.
    pub fn retire(&self, version: u32) -> Result<()> {
        let maps = self.maps_of(version);
        let retired = self.directory.join(format!("v{version}{RETIRED}"));
        fs::rename(&maps, &retired).map_err(failed("rename", &maps))?;
        fs::remove_dir_all(&retired).map_err(failed("remove", &retired))
    }

    fn versions(&self) -> Result<BTreeSet<u32>> {
        let names = names(&self.directory)?;
        Ok(names
            .iter()
            .filter_map(|name| name.strip_prefix('v')?.parse().ok())
            .collect())
    }

    fn sweep(&self) -> Result<()> {
        for name in names(&self.directory)? {
            if name.ends_with(STAGED) || name.ends_with(RETIRED) {
                let path = self.directory.join(name);
                fs::remove_dir_all(&path).map_err(failed("remove", &path))?;
            }
        }
        for name in names(&self.links)? {
            if name.ends_with(REPLACING) {
                unpin(&self.links.join(name))?;
            }
        }
        Ok(())
    }

    /// The pin of a device and hook. A bpffs takes no dots in names, but devices have them
    /// (`eth0.100`): they are written `%2e`, and `%` is `%25`.
    pub fn link(&self, device: &str, hook: Hook) -> PathBuf {
        let device = device.replace('%', "%25").replace('.', "%2e");
        self.links.join(format!("{device}-{}", hook.word()))
    }

    /// All that is attached to devices: device, hook, pin.
    pub fn attached(&self) -> Result<Vec<(String, Hook, PathBuf)>> {
        let mut attached = Vec::new();
        for name in names(&self.links)? {
            let Some((device, word)) = name.rsplit_once('-') else {
                continue;
            };
            let Some(hook) = Hook::ALL.iter().find(|hook| hook.word() == word) else {
                continue;
            };
            let device = device.replace("%2e", ".").replace("%25", "%");
            attached.push((device, *hook, self.links.join(&name)));
        }
        Ok(attached)
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Pin { what, path, source }
}

/// What is in a folder; nothing if there is none.
fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed("read", folder)(error)),
    };
    let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
    entries
        .map(name)
        .collect::<io::Result<_>>()
        .map_err(failed("read", folder))
}

/// Where a pin that replaces another is until it does.
pub fn replacing(pin: &Path) -> PathBuf {
    let mut name = pin.file_name().unwrap_or_default().to_owned();
    name.push(REPLACING);
    pin.with_file_name(name)
}

/// Takes a pin off; fine if there is none.
pub fn unpin(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
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
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", directory)(error)),
        _ => Ok(()),
    }
}
