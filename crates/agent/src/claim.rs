//! Which machine is the node. A machine that comes new under a node's name takes the node over, as whoever
//! replaces a broken one means it; the machine before it, should it come back, stands back. Without this both
//! would publish their addresses in turns, and the rest of the cluster would follow now one and now the other.
//!
//! A machine is known by an id that its agent makes up. The id is kept in the state folder once the
//! NodeNetwork has it: who has that file has served the node before, and who has none is new.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use tombolo_kube::NodeNetworkStatus;

use crate::error::Error;

/// A random id, as the kernel makes them (random(4)).
const RANDOM_ID: &str = "/proc/sys/kernel/random/uuid";

/// This machine's claim to be the node.
#[derive(Debug)]
pub struct Claim {
    file: PathBuf,
    machine: String,
    kept: AtomicBool,
}

impl Claim {
    /// The claim that the state folder holds, or a new one.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn open(state_dir: &Path) -> Result<Self, Error> {
        let file = state_dir.join("machine");
        let (machine, kept) = match fs::read_to_string(&file) {
            Ok(text) if !text.trim().is_empty() => (text, true),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::file("read", &file)(error));
            }
            // A file that is empty was cut short.
            _ => {
                let made = fs::read_to_string(RANDOM_ID).map_err(Error::file("read", RANDOM_ID))?;
                (made, false)
            }
        };
        Ok(Self {
            file,
            machine: machine.trim().to_owned(),
            kept: AtomicBool::new(kept),
        })
    }

    /// This machine's id.
    pub fn machine(&self) -> &str {
        &self.machine
    }

    /// Whether this machine may speak for the node, by what the NodeNetwork says now.
    ///
    /// # Errors
    /// Another machine has taken the node over.
    pub fn check(&self, node: &str, status: Option<&NodeNetworkStatus>) -> Result<(), Error> {
        let Some(other) = status.filter(|s| !s.machine.is_empty() && s.machine != self.machine) else {
            return Ok(());
        };
        if !self.kept.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(Error::Superseded {
            node: node.into(),
            machine: other.machine.clone(),
            addresses: other.addresses.clone(),
            file: self.file.clone(),
        })
    }

    /// Keeps the claim, now that the NodeNetwork has it.
    ///
    /// # Errors
    /// The disk refuses; until it was kept, this machine goes for a new one when its agent starts again.
    pub fn keep(&self) -> Result<(), Error> {
        if self.kept.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.write().map_err(Error::file("write", &self.file))?;
        self.kept.store(true, Ordering::Relaxed);
        tracing::info!(machine = self.machine, "this machine is the node now");
        Ok(())
    }

    /// Whole or not at all, also when the machine dies.
    fn write(&self) -> io::Result<()> {
        let temporary = self.file.with_extension("new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        writeln!(file, "{}", self.machine)?;
        file.sync_all()?;
        fs::rename(&temporary, &self.file)?;
        let folder = self.file.parent().unwrap_or(Path::new("/"));
        File::open(folder)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(machine: &str) -> NodeNetworkStatus {
        NodeNetworkStatus {
            machine: machine.into(),
            ..NodeNetworkStatus::default()
        }
    }

    #[test]
    fn the_newest_machine_is_the_node() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let old = Claim::open(first.path()).unwrap();
        // Nobody, an agent of a release without claims, and itself.
        old.check("a", None).unwrap();
        old.check("a", Some(&of(""))).unwrap();
        old.keep().unwrap();
        old.check("a", Some(&of(old.machine()))).unwrap();

        let new = Claim::open(second.path()).unwrap();
        new.check("a", Some(&of(old.machine()))).unwrap();
        new.keep().unwrap();
        let refused = old.check("a", Some(&of(new.machine()))).unwrap_err().to_string();
        assert!(refused.contains(new.machine()), "{refused}");
        let again = Claim::open(first.path()).unwrap();
        assert_eq!(again.machine(), old.machine());
        again.check("a", Some(&of(new.machine()))).unwrap_err();
        // What nobody claims any more can be claimed again.
        again.check("a", Some(&of(""))).unwrap();
    }

    #[test]
    fn a_claim_that_was_never_published_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let first = Claim::open(folder.path()).unwrap();
        let second = Claim::open(folder.path()).unwrap();
        assert_ne!(first.machine(), second.machine());
        fs::write(folder.path().join("machine"), "").unwrap();
        second.check("a", Some(&of(first.machine()))).unwrap();
        Claim::open(folder.path())
            .unwrap()
            .check("a", Some(&of("x")))
            .unwrap();
    }
}
