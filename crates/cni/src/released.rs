//! What a DEL leaves behind when no agent is there to release the addresses: one small file an
//! attachment, in the node's state folder.
//!
//! Nothing may fall between plugin and agent, so both keep an order:
//!
//! - The plugin writes the record, durably, *then asks the agent once more*. If that answers, the
//!   plugin takes the record back; if not, it removes the pod's link and is done.
//! - The agent, at its start, *first listens* on its socket without accepting, then settles every
//!   record, then accepts.
//!
//! So a record is either written before the agent listens, and settled, or its plugin finds the
//! agent listening. No record outlives the attachment that it is about, which matters if a
//! runtime uses the same id again.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::environment::{ContainerId, InterfaceName};

/// An attachment whose link is gone and whose addresses are still held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
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
/// What the file system says; there is then no record, or the one of before.
pub fn write(state_dir: &Path, container_id: &ContainerId, if_name: &InterfaceName) -> io::Result<()> {
    let folder = folder(state_dir);
    DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    let record = Released {
        container_id: container_id.as_str().to_owned(),
        if_name: if_name.as_str().to_owned(),
    };
    let name = file_name(&record);
    let temporary = folder.join(format!("{name}{TEMPORARY}{}", std::process::id()));
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(&serde_json::to_vec(&record)?)?;
        file.sync_all()?;
        fs::rename(&temporary, folder.join(name))?;
        File::open(&folder)?.sync_all()?;
        // The folder itself may be new.
        File::open(state_dir)?.sync_all()
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// All records.
///
/// # Errors
/// What the file system says, and `InvalidData` for a file that is not a record, with its path.
pub fn list(state_dir: &Path) -> io::Result<Vec<Released>> {
    let entries = match fs::read_dir(folder(state_dir)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut records = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if !path.to_string_lossy().ends_with(SUFFIX) {
            // What a plugin that was killed left of a record not yet written.
            continue;
        }
        let bytes = match fs::read(&path) {
            // Its plugin took it back.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            bytes => bytes?,
        };
        records.push(serde_json::from_slice(&bytes).map_err(|error| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} is not a record: {error}", path.display()),
            )
        })?);
    }
    Ok(records)
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

const SUFFIX: &str = ".json";
const TEMPORARY: &str = ".tmp";

fn file_name(record: &Released) -> String {
    format!("{}@{}{SUFFIX}", record.container_id, record.if_name)
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
        let name = InterfaceName::parse("fifteen-letters").unwrap();
        write(&state, &id, &name).unwrap();
        write(&state, &id, &name).unwrap();
        let records = list(&state).unwrap();
        assert_eq!(records.len(), 1);
        assert_eq!(
            (records[0].container_id.as_str(), records[0].if_name.as_str()),
            (id.as_str(), name.as_str())
        );
        remove(&state, &records[0]).unwrap();
        remove(&state, &records[0]).unwrap();
        assert_eq!(fs::read_dir(folder(&state)).unwrap().count(), 0);
    }

    #[test]
    fn what_was_never_finished_is_passed_over_and_damage_is_told() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(folder(dir.path())).unwrap();
        fs::write(folder(dir.path()).join("a@eth0.json.tmp17"), "{").unwrap();
        assert_eq!(list(dir.path()).unwrap(), []);
        fs::write(folder(dir.path()).join("a@eth0.json"), "{").unwrap();
        assert!(list(dir.path()).unwrap_err().to_string().contains("a@eth0.json"));
    }
}
