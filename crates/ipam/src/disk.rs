//! The store's file: tables, format, reading all, writing a batch.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition};

use crate::attachment::Attachment;
use crate::error::{Error, Result};
use crate::index::{Change, Rows};

/// Container id and interface name to an [`Attachment`] in JSON, so that a release can add fields.
const ATTACHMENTS: TableDefinition<(&str, &str), &[u8]> = TableDefinition::new("attachments");
/// Order of release to the address, as text.
const FREED: TableDefinition<u64, &str> = TableDefinition::new("freed");
/// Position to a block, as text.
const BLOCKS: TableDefinition<u32, &str> = TableDefinition::new("blocks");
/// Facts about the file.
const FACTS: TableDefinition<&str, u64> = TableDefinition::new("facts");

const FORMAT: u64 = 1;

/// A thousand attachments take less; the rest of a database's usual cache would only be memory
/// that the agent must not have.
const CACHE_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub(crate) struct Disk {
    path: PathBuf,
    database: Database,
}

impl Disk {
    /// Opens the file, or makes it, durably.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |source| Error::Open {
            path: path.to_owned(),
            source: Arc::new(source),
        };
        create_durably(path).map_err(failed)?;
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .set_check_integrity_on_open(true)
            .create(path)
            .map_err(|error| database_error(path, error))?;
        let disk = Self {
            path: path.to_owned(),
            database,
        };
        disk.check_format()?;
        Ok(disk)
    }

    /// Reads everything.
    pub fn rows(&self) -> Result<Rows> {
        let transaction = self.database.begin_read().map_err(|e| self.storage(e))?;
        let mut rows = Rows::default();

        let table = transaction.open_table(BLOCKS).map_err(|e| self.storage(e))?;
        for row in table.iter().map_err(|e| self.storage(e))? {
            let (_, text) = row.map_err(|e| self.storage(e))?;
            rows.blocks.push(
                text.value()
                    .parse()
                    .map_err(|e| self.damaged("block", text.value(), e))?,
            );
        }
        let table = transaction.open_table(ATTACHMENTS).map_err(|e| self.storage(e))?;
        for row in table.iter().map_err(|e| self.storage(e))? {
            let (key, json) = row.map_err(|e| self.storage(e))?;
            let attachment: Attachment = serde_json::from_slice(json.value())
                .map_err(|e| self.damaged("attachment", &format!("{:?}", key.value()), e))?;
            if key.value()
                != (
                    attachment.owner.container_id.as_str(),
                    attachment.owner.ifname.as_str(),
                )
            {
                return Err(self.damaged("attachment", &format!("{:?}", key.value()), "is another's"));
            }
            rows.attachments.push(attachment);
        }
        let table = transaction.open_table(FREED).map_err(|e| self.storage(e))?;
        for row in table.iter().map_err(|e| self.storage(e))? {
            let (release, text) = row.map_err(|e| self.storage(e))?;
            let address = text
                .value()
                .parse()
                .map_err(|e| self.damaged("freed address", text.value(), e))?;
            rows.freed.insert(release.value(), address);
        }
        Ok(rows)
    }

    /// Writes `changes` in their order, all or none; on return they are on the disk.
    pub fn write(&self, changes: &[Change]) -> Result<()> {
        self.try_write(changes).map_err(|error| self.storage(error))
    }

    fn try_write(&self, changes: &[Change]) -> Result<(), redb::Error> {
        // The default durability ends the commit with fdatasync.
        let transaction = self.database.begin_write()?;
        {
            let mut attachments = transaction.open_table(ATTACHMENTS)?;
            let mut freed = transaction.open_table(FREED)?;
            let mut blocks = transaction.open_table(BLOCKS)?;
            for change in changes {
                match change {
                    Change::PutAttachment(attachment) => {
                        let owner = &attachment.owner;
                        let json = serde_json::to_vec(attachment)
                            .map_err(|error| redb::Error::Io(io::Error::other(error)))?;
                        attachments.insert(
                            (owner.container_id.as_str(), owner.ifname.as_str()),
                            json.as_slice(),
                        )?;
                    }
                    Change::DeleteAttachment(owner) => {
                        attachments.remove((owner.container_id.as_str(), owner.ifname.as_str()))?;
                    }
                    Change::PutFreed(release, address) => {
                        freed.insert(release, address.to_string().as_str())?;
                    }
                    Change::DeleteFreed(release) => {
                        freed.remove(release)?;
                    }
                    Change::SetBlocks(nets) => {
                        blocks.retain(|_, _| false)?;
                        for (position, net) in (0..).zip(nets) {
                            blocks.insert(position, net.to_string().as_str())?;
                        }
                    }
                }
            }
        }
        transaction.commit()?;
        Ok(())
    }

    fn check_format(&self) -> Result<()> {
        let found = self.read_format().map_err(|error| self.storage(error))?;
        match found {
            Some(FORMAT) => Ok(()),
            Some(other) => Err(Error::Damaged {
                path: self.path.clone(),
                reason: format!(
                    "it is of format {other}, and this release reads format {FORMAT}; use the release that wrote it"
                ),
            }),
            None => self.make_tables().map_err(|error| self.storage(error)),
        }
    }

    fn read_format(&self) -> Result<Option<u64>, redb::Error> {
        match self.database.begin_read()?.open_table(FACTS) {
            Ok(facts) => Ok(facts.get("format")?.map(|format| format.value())),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn make_tables(&self) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        transaction.open_table(ATTACHMENTS)?;
        transaction.open_table(FREED)?;
        transaction.open_table(BLOCKS)?;
        transaction.open_table(FACTS)?.insert("format", FORMAT)?;
        transaction.commit()?;
        Ok(())
    }

    fn storage(&self, error: impl Into<redb::Error>) -> Error {
        match error.into() {
            redb::Error::Corrupted(reason) => Error::Damaged {
                path: self.path.clone(),
                reason,
            },
            source => Error::Storage {
                path: self.path.clone(),
                source: Arc::new(source),
            },
        }
    }

    fn damaged(&self, what: &str, which: &str, why: impl std::fmt::Display) -> Error {
        Error::Damaged {
            path: self.path.clone(),
            reason: format!("{what} {which}: {why}"),
        }
    }
}

fn database_error(path: &Path, error: DatabaseError) -> Error {
    match error {
        DatabaseError::DatabaseAlreadyOpen => Error::InUse {
            path: path.to_owned(),
        },
        DatabaseError::Storage(StorageError::Corrupted(reason)) => Error::Damaged {
            path: path.to_owned(),
            reason,
        },
        DatabaseError::Storage(StorageError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
            Error::Damaged {
                path: path.to_owned(),
                reason: error.to_string(),
            }
        }
        error => Error::Storage {
            path: path.to_owned(),
            source: Arc::new(error.into()),
        },
    }
}

/// Makes the file, readable for root alone, and its folder, so that both are there after a crash.
fn create_durably(path: &Path) -> io::Result<()> {
    if path.try_exists()? {
        return Ok(());
    }
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    File::open(folder)?.sync_all()?;
    if let Some(above) = folder.parent().filter(|above| !above.as_os_str().is_empty()) {
        File::open(above)?.sync_all()?;
    }
    Ok(())
}
