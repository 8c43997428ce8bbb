//! Which ADDs are under way: one empty file each, so that an agent that was killed meanwhile knows what
//! to undo.
//!
//! The files are not synced. They matter when the process dies; when the machine does, all links are gone,
//! and that alone says which attachments are no more.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use tombolo_ipam::Owner;

/// The ADDs under way.
#[derive(Debug)]
pub struct Journal(PathBuf);

impl Journal {
    /// The journal in a state folder.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        let folder = state_dir.join("adding");
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        Ok(Self(folder))
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        &self.0
    }

    /// Notes that an ADD begins.
    ///
    /// # Errors
    /// What the file system says; nothing is noted then.
    pub fn begin(&self, owner: &Owner) -> io::Result<()> {
        File::create(self.path(owner)).map(drop)
    }

    /// Notes that an ADD has ended, well or undone.
    ///
    /// # Errors
    /// What the file system says.
    pub fn end(&self, owner: &Owner) -> io::Result<()> {
        match fs::remove_file(self.path(owner)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The ADDs that were begun and have not ended.
    ///
    /// # Errors
    /// What the file system says.
    pub fn unfinished(&self) -> io::Result<Vec<Owner>> {
        let mut owners = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let name = entry?.file_name();
            // Neither an id nor what is before the first '@' of a name can hold one.
            if let Some((container_id, ifname)) = name.to_str().and_then(|n| n.split_once('@')) {
                owners.push(Owner {
                    container_id: container_id.into(),
                    ifname: ifname.into(),
                });
            }
        }
        Ok(owners)
    }

    fn path(&self, owner: &Owner) -> PathBuf {
        self.0.join(format!("{}@{}", owner.container_id, owner.ifname))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_did_not_end_is_listed() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        let owner = |id: &str| Owner {
            container_id: id.into(),
            ifname: "eth0".into(),
        };
        journal.begin(&owner("a")).unwrap();
        journal.begin(&owner("b")).unwrap();
        journal.end(&owner("a")).unwrap();
        journal.end(&owner("a")).unwrap();
        assert_eq!(
            Journal::open(dir.path()).unwrap().unfinished().unwrap(),
            [owner("b")]
        );
    }
}
