//! A place for one file, with a record of it and a copy of what was there before.
//!
//! For each kind of file there are `<kind>.json`, which says where it was installed, and `<kind>.before`, what
//! was there, if anything. Both are on the disk before anything is replaced. Where what is to be installed is
//! there already, put by somebody else, there is no record, and it stays when the rest goes.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::conflist;
use super::error::Error;
use super::file;

/// The plugin, by the name of its record.
pub const PLUGIN: &str = "plugin";
/// The plugin under the name `loopback`, by the name of its record.
pub const LOOPBACK: &str = "loopback";
/// The configuration, by the name of its record.
pub const CONFLIST: &str = "conflist";

/// What is to be installed.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// What is in this file.
    File(&'a Path),
}

/// Where one file belongs.
#[derive(Debug)]
pub struct Place {
    kind: &'static str,
    mode: u32,
    target: PathBuf,
    records: PathBuf,
    /// Whether what is there is an earlier one of ours, whatever the records say.
    is_ours: fn(&Path) -> bool,
    /// The files as they were when they were last found to be alike: to be installed, and installed.
    alike: Option<[Fingerprint; 2]>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// Where it was installed.
    target: PathBuf,
    /// Whether something was there before.
    replaced: bool,
}

/// What changes when a file is written or replaced: device, inode, size, and the time of the last change.
type Fingerprint = (u64, u64, u64, i64, i64);

impl Place {
    /// A place for the plugin.
    pub fn plugin(target: PathBuf, records: &Path) -> Self {
        Self::new(PLUGIN, 0o755, target, records, |_| false)
    }

    /// A place for the plugin under the name `loopback`.
    pub fn loopback(target: PathBuf, records: &Path) -> Self {
        Self::new(LOOPBACK, 0o755, target, records, |_| false)
    }

    /// A place for the configuration.
    pub fn conflist(target: PathBuf, records: &Path) -> Self {
        Self::new(CONFLIST, 0o644, target, records, conflist::is_ours)
    }

    fn new(
        kind: &'static str,
        mode: u32,
        target: PathBuf,
        records: &Path,
        is_ours: fn(&Path) -> bool,
    ) -> Self {
        let records = records.to_owned();
        Self {
            kind,
            mode,
            target,
            records,
            is_ours,
            alike: None,
        }
    }

    /// Where the file belongs.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Sees to it that the content is there. What an earlier agent installed elsewhere is taken away.
    pub fn install(&mut self, content: Content<'_>) -> Result<(), Error> {
        let now = [
            content.fingerprint()?,
            fingerprint(&self.target).unwrap_or_default(),
        ];
        if self.alike == Some(now) {
            return Ok(());
        }
        match read_record(&self.records, self.kind)? {
            Some(record) if record.target != self.target => {
                restore(&self.records, self.kind)?;
                self.replace(content)?;
            }
            Some(_) if content.is_at(&self.target)? => {}
            Some(_) => self.put(content)?,
            None if content.is_at(&self.target)? && !(self.is_ours)(&self.target) => {}
            None => self.replace(content)?,
        }
        self.alike = Some([
            content.fingerprint()?,
            fingerprint(&self.target).map_err(Error::read(&self.target))?,
        ]);
        Ok(())
    }

    /// Sees to it that the content is there, unless something is that no agent has installed.
    pub fn install_if_free(&mut self, content: Content<'_>) -> Result<(), Error> {
        let record = read_record(&self.records, self.kind)?;
        let ours = record.is_some_and(|record| record.target == self.target);
        if !ours && file::exists(&self.target).map_err(Error::read(&self.target))? {
            return restore(&self.records, self.kind).map(drop);
        }
        self.install(content)
    }

    /// Puts it in the place of what is not ours, which is kept.
    fn replace(&self, content: Content<'_>) -> Result<(), Error> {
        let replaced =
            file::exists(&self.target).map_err(Error::read(&self.target))? && !(self.is_ours)(&self.target);
        if replaced {
            let kept = before(&self.records, self.kind);
            file::copy(&self.target, &kept).map_err(Error::write(&kept))?;
        }
        let path = record(&self.records, self.kind);
        let text = Record {
            target: self.target.clone(),
            replaced,
        };
        let text = serde_json::to_vec(&text).map_err(|source| Error::Record {
            path: path.clone(),
            source,
        })?;
        file::put(&path, 0o600, &mut text.as_slice()).map_err(Error::write(&path))?;
        self.put(content)
    }

    fn put(&self, content: Content<'_>) -> Result<(), Error> {
        let mut reader = content.open()?;
        file::put(&self.target, self.mode, &mut reader).map_err(Error::write(&self.target))
    }
}

impl<'a> Content<'a> {
    fn open(self) -> Result<Box<dyn Read + 'a>, Error> {
        Ok(match self {
            Self::Bytes(bytes) => Box::new(bytes),
            Self::File(path) => Box::new(File::open(path).map_err(Error::plugin(path))?),
        })
    }

    fn fingerprint(self) -> Result<Fingerprint, Error> {
        match self {
            Self::Bytes(_) => Ok(Fingerprint::default()),
            Self::File(path) => fingerprint(path).map_err(Error::plugin(path)),
        }
    }

    /// Whether it is what a file has in it.
    fn is_at(self, target: &Path) -> Result<bool, Error> {
        let installed = match File::open(target) {
            Ok(installed) => installed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(Error::read(target)(error)),
        };
        same(self.open()?, installed).map_err(Error::read(target))
    }
}

/// Puts back what was there before something of this kind was installed. Gives where, if anything was.
pub fn restore(records: &Path, kind: &str) -> Result<Option<PathBuf>, Error> {
    let Some(Record { target, replaced }) = read_record(records, kind)? else {
        return Ok(None);
    };
    let kept = before(records, kind);
    if replaced {
        file::copy(&kept, &target).map_err(Error::write(&target))?;
    } else {
        file::remove(&target).map_err(Error::remove(&target))?;
    }
    // The record first: without it, what was kept means nothing.
    for path in [record(records, kind), kept] {
        file::remove(&path).map_err(Error::remove(&path))?;
    }
    Ok(Some(target))
}

fn read_record(records: &Path, kind: &str) -> Result<Option<Record>, Error> {
    let path = record(records, kind);
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|source| Error::Record { path, source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::read(&path)(error)),
    }
}

fn record(records: &Path, kind: &str) -> PathBuf {
    records.join(format!("{kind}.json"))
}

fn before(records: &Path, kind: &str) -> PathBuf {
    records.join(format!("{kind}.before"))
}

fn fingerprint(path: &Path) -> io::Result<Fingerprint> {
    let found = path.symlink_metadata()?;
    Ok((
        found.dev(),
        found.ino(),
        found.size(),
        found.ctime(),
        found.ctime_nsec(),
    ))
}

fn same(mut one: impl Read, mut other: impl Read) -> io::Result<bool> {
    fn next(reader: &mut impl Read, block: &mut Vec<u8>) -> io::Result<usize> {
        block.clear();
        reader.take(1 << 16).read_to_end(block)
    }
    let (mut a, mut b) = (Vec::new(), Vec::new());
    loop {
        let (read, _) = (next(&mut one, &mut a)?, next(&mut other, &mut b)?);
        if a != b || read == 0 {
            return Ok(a == b);
        }
    }
}
