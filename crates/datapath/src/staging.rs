//! The maps of this build, before its programs take over: reused, carried over from another ABI version, or made.

use std::{
    fs,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use tombolo_abi::{ABI_VERSION, map, version};

use crate::{
    Error, Result,
    bpf::{
        self,
        batch::{self, Rows},
        map::Shape,
    },
    object::{Embedded, Maps},
    pins::Pins,
};

/// The maps, and whether programs may use them.
pub struct Staged {
    /// The shared maps.
    pub maps: Maps,
    /// Whether they hold what the programs that are attached know. Otherwise they wait for their rows.
    pub filled: bool,
}

/// Where maps come from.
struct Source<'a> {
    folder: &'a Path,
    version: u32,
}

/// Opens the maps of this ABI version, or makes them of what is there: from a neighbouring version, a map that
/// is the same in both is shared by both, and the rows of others are converted.
///
/// # Errors
/// [`Error::MapMismatch`], [`Error::Unconvertible`], [`Error::TableFull`] and others; nothing that is there was
/// changed.
pub fn maps(pins: &Pins, object: &Embedded) -> Result<Staged> {
    let folder = pins.maps();
    if map::ALL.iter().all(|name| folder.join(name).exists()) {
        let maps = open(&folder, object)?;
        return Ok(Staged { maps, filled: true });
    }
    let neighbour = pins.neighbours()?.pop().filter(|_| !folder.exists());
    let from = neighbour.map_or(folder, |version| pins.maps_of(version));
    let source = Source {
        folder: &from,
        version: neighbour.unwrap_or(ABI_VERSION),
    };
    let staged = pins.staged();
    stage(&source, &staged, object).inspect_err(|_| {
        // What cannot be removed now is at the next start.
        let _ = fs::remove_dir_all(&staged);
    })
}

/// Opens the maps of this ABI version, which are all there.
pub fn open(folder: &Path, object: &Embedded) -> Result<Maps> {
    let open = |name: &&'static str| {
        let path = folder.join(name);
        let (fd, found) = open_one(&path)?;
        let wanted = object.shape(name)?;
        if found == wanted {
            Ok((*name, fd))
        } else {
            Err(Error::MapMismatch {
                path,
                found: found.to_string(),
                wanted: wanted.to_string(),
            })
        }
    };
    map::ALL.iter().map(open).collect()
}

fn open_one(path: &Path) -> Result<(OwnedFd, Shape)> {
    let failed = |source| Error::Pin {
        what: "open",
        path: path.to_owned(),
        source,
    };
    let fd = bpf::open(path, false).map_err(failed)?;
    let shape = bpf::map::shape(fd.as_fd()).map_err(failed)?;
    Ok((fd, shape))
}

fn stage(source: &Source<'_>, folder: &Path, object: &Embedded) -> Result<Staged> {
    fs::create_dir_all(folder).map_err(|source| Error::Pin {
        what: "make",
        path: folder.to_owned(),
        source,
    })?;
    let mut staged = Staged {
        maps: Maps::new(),
        filled: true,
    };
    for name in map::ALL {
        let carried = source.carry(name, object)?;
        let is_new = source.version < ABI_VERSION && map::ADDED.contains(&name);
        staged.filled &= carried.is_some() || is_new;
        let fd = match carried {
            Some(fd) => fd,
            None => object.create(name)?,
        };
        let path = folder.join(name);
        bpf::pin(fd.as_fd(), &path).map_err(|source| Error::Pin {
            what: "pin",
            path,
            source,
        })?;
        staged.maps.insert(name, fd);
    }
    Ok(staged)
}

impl Source<'_> {
    /// The map itself, where it is what this build needs; otherwise one with its rows. `None`: there is none.
    fn carry(&self, name: &'static str, object: &Embedded) -> Result<Option<OwnedFd>> {
        let path = self.folder.join(name);
        if !path.exists() {
            return Ok(None);
        }
        let (theirs, found) = open_one(&path)?;
        let wanted = object.shape(name)?;
        if found == wanted {
            return Ok(Some(theirs));
        }
        let (found_text, wanted_text) = (found.to_string(), wanted.to_string());
        if self.version == ABI_VERSION {
            return Err(Error::MapMismatch {
                path,
                found: found_text,
                wanted: wanted_text,
            });
        }
        if (found.kind, found.key_size) != (wanted.kind, wanted.key_size) {
            return Err(Error::Unconvertible {
                path,
                found: found_text,
                wanted: wanted_text,
            });
        }
        let ours = object.create(name)?;
        // Flows follow when all programs are this version's; counters begin anew, and so does what lies at sockets, where
        // nobody but programs can read it.
        if ![map::FLOWS, map::COUNTERS, map::CONNECTED_PEERS].contains(&name) {
            self.copy(name, (&theirs, found), (&ours, wanted))?;
        }
        Ok(Some(ours))
    }

    fn copy(&self, name: &'static str, theirs: (&OwnedFd, Shape), ours: (&OwnedFd, Shape)) -> Result<()> {
        let failed = |what| {
            move |source| Error::Map {
                what,
                map: name,
                source,
            }
        };
        let rows = batch::read(theirs.0, theirs.1.key_size as usize, theirs.1.value_size as usize)
            .map_err(failed("read"))?;
        let capacity = ours.1.max_entries as usize;
        if rows.len() > capacity {
            return Err(Error::TableFull {
                map: name,
                capacity,
                wanted: rows.len(),
            });
        }
        let rows = convert(name, self.version, &rows, ours.1.value_size as usize);
        batch::write_rows(ours.0, &rows).map_err(failed("write"))
    }
}

/// The rows of another ABI version as this one has them: see [`version`].
pub fn convert(name: &str, from: u32, rows: &Rows, value_size: usize) -> Rows {
    let mut values = Vec::with_capacity(rows.len() * value_size);
    for (_, value) in rows.iter() {
        let start = values.len();
        values.extend(value.iter().take(value_size));
        values.resize(start + value_size, 0);
        if from < ABI_VERSION {
            version::complete(name, &mut values[start..]);
        }
    }
    Rows {
        key_size: rows.key_size,
        value_size,
        keys: rows.keys.clone(),
        values,
    }
}
