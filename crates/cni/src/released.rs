//! What a DEL leaves behind when no agent is there to release the addresses: one empty file an
//! attachment, in the node's state folder. Its name says all, so that there is no half of a record.
//!
//! Nothing may fall between plugin and agent, so both keep an order:
//!
//! - The plugin writes the record, durably, *then asks the agent once more*. If that answers, the
//!   plugin takes the record back; if not, it removes the pod's link and is done.
//! - The agent, at its start, *first listens* on its socket without accepting, then settles every
//!   record, then accepts.
//!
//! So a record is either written before the agent listens, and settled, or its plugin finds the
//! agent listening. A plugin that is killed may leave its record; the agent therefore also removes it
//! in every ADD and DEL of the attachment, and in a GC: no record outlives what it is about, which matters
//! if a runtime uses the same id again.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::environment::{ContainerId, InterfaceName};

/// An attachment whose link is gone and whose addresses are still held.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Released {
    /// The runtime's id of the pod sandbox.
    pub container_id: String,
    /// The interface inside it.
    pub if_name: String,
}

/// The folder of the records.
pub fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join("released")
}

/// Writes a record; on return it is on the disk. Writing it again is fine.
///
/// # Errors
/// What the file system says; there may be a record all the same.
pub fn write(state_dir: &Path, container_id: &ContainerId, if_name: &InterfaceName) -> io::Result<()> {
    let folder = folder(state_dir);
    DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    let record = Released {
        container_id: container_id.as_str().to_owned(),
        if_name: if_name.as_str().to_owned(),
    };
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(folder.join(file_name(&record)))?.sync_all()?;
    File::open(&folder)?.sync_all()?;
    // The folder itself may be new.
    File::open(state_dir)?.sync_all()
}

/// All records. A file of another name is nobody's record, and passed over.
///
/// # Errors
/// What the file system says.
pub fn list(state_dir: &Path) -> io::Result<Vec<Released>> {
    let entries = match fs::read_dir(folder(state_dir)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut records = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        // Neither an id nor what is before the first '@' of a name can hold one.
        let parts = name.to_str().and_then(|name| name.split_once('@'));
        let valid = parts.filter(|(container_id, if_name)| {
            ContainerId::parse(container_id).is_ok() && InterfaceName::parse(if_name).is_ok()
        });
        if let Some((container_id, if_name)) = valid {
            records.push(Released {
                container_id: container_id.into(),
                if_name: if_name.into(),
            });
        }
    }
    Ok(records)
}

/// Whether there is this record.
pub fn is_there(state_dir: &Path, record: &Released) -> bool {
    folder(state_dir).join(file_name(record)).exists()
}

/// Removes a record that is settled; it is fine when there is none.
///
/// # Errors
/// What the file system says.
pub fn remove(state_dir: &Path, record: &Released) -> io::Result<()> {
    match fs::remove_file(folder(state_dir).join(file_name(record))) {
        Ok(()) => File::open(folder(state_dir))?.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn file_name(record: &Released) -> String {
    format!("{}@{}", record.container_id, record.if_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        assert_eq!(list(&state).unwrap(), []);
        let id = ContainerId::parse(&"a".repeat(200)).unwrap();
        let name = InterfaceName::parse("a@fifteen-bytes").unwrap();
        write(&state, &id, &name).unwrap();
        write(&state, &id, &name).unwrap();
        let records = list(&state).unwrap();
        assert_eq!(records.len(), 1);
        assert_eq!(
            (records[0].container_id.as_str(), records[0].if_name.as_str()),
            (id.as_str(), name.as_str())
        );
        assert!(is_there(&state, &records[0]));
        remove(&state, &records[0]).unwrap();
        assert!(!is_there(&state, &records[0]));
        remove(&state, &records[0]).unwrap();
        assert_eq!(fs::read_dir(folder(&state)).unwrap().count(), 0);
    }

    #[test]
    fn what_is_no_record_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(folder(dir.path())).unwrap();
        for name in ["a", "a@", "@eth0", ".a@eth0", "a@sixteen-letters-", "lost+found"] {
            fs::write(folder(dir.path()).join(name), "{").unwrap();
        }
        assert_eq!(list(dir.path()).unwrap(), []);
    }
}
