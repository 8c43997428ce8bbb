//! The durable store: the index in memory, the file on disk, and the commits that keep them one.

use std::mem;
use std::net::IpAddr;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::attachment::{Attachment, Owner, Request};
use crate::block::BlockUsage;
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::index::{Change, Index};

/// The addresses of a node's pods, in one file.
///
/// Every change is on the disk when its call returns. Calls that come while a commit is under way
/// gather, and share the next one. To be called from threads that may block.
///
/// Reads answer from memory, and see changes whose commit is still under way.
#[derive(Debug)]
pub struct AddressStore {
    path: PathBuf,
    state: Mutex<State>,
    settled: Condvar,
}

#[derive(Debug)]
struct State {
    path: PathBuf,
    rest: Duration,
    /// None after a failure, until the file could be read again: what is on disk is the truth.
    open: Option<Open>,
    gathering: Batch,
    committing: bool,
    commits: u64,
}

#[derive(Debug)]
struct Open {
    /// The rows on disk, with the changes of the batches not yet settled.
    index: Index,
    disk: Arc<Disk>,
}

/// Changes that are written in one commit.
#[derive(Debug, Default)]
struct Batch {
    changes: Vec<Change>,
    callers: usize,
    outcome: Arc<OnceLock<Result<()>>>,
}

impl AddressStore {
    /// Opens the store at `path`, or makes it. A freed address is not given again before `rest`
    /// has passed, or `rest` after this call for what was freed before it.
    ///
    /// # Errors
    /// [`Error::Open`], [`Error::InUse`], [`Error::Damaged`] and [`Error::Storage`].
    pub fn open(path: &Path, rest: Duration) -> Result<Self> {
        let state = State {
            path: path.to_owned(),
            rest,
            open: Some(Open::new(path, rest)?),
            gathering: Batch::default(),
            committing: false,
            commits: 0,
        };
        Ok(Self {
            path: path.to_owned(),
            state: Mutex::new(state),
            settled: Condvar::new(),
        })
    }

    /// Makes `blocks` the ones that new addresses come from, in this order. What is held outside
    /// of them stays held until it is released. The blocks are stored, so that a node serves its
    /// pods after a restart also when it cannot ask for them.
    ///
    /// # Errors
    /// [`Error::InvalidBlock`] and those of the disk; the blocks are then the ones before.
    pub fn set_blocks(&self, blocks: &[IpNet]) -> Result<()> {
        let mut state = self.lock();
        match state.index()?.set_blocks(blocks)? {
            Some(change) => self.commit(state, vec![change]),
            None => self.settle(state),
        }
    }

    /// The blocks that new addresses come from.
    ///
    /// # Errors
    /// Those of the disk, after an earlier failure of it.
    pub fn blocks(&self) -> Result<Vec<IpNet>> {
        Ok(self.lock().index()?.blocks())
    }

    /// Takes one address of each wanted family, or those asked for, all or none. A never-used
    /// address goes before a freed one, and of these the one freed longest ago goes first.
    ///
    /// # Errors
    /// [`Error::AlreadyAllocated`], [`Error::NoBlock`], [`Error::Exhausted`],
    /// [`Error::NotInBlocks`], [`Error::AddressInUse`], [`Error::AddressResting`],
    /// [`Error::NothingRequested`] and those of the disk. Nothing is taken then.
    pub fn allocate(&self, request: &Request) -> Result<Attachment> {
        let mut state = self.lock();
        match state.index()?.allocate(request, Instant::now()) {
            Ok((attachment, changes)) => {
                self.commit(state, changes)?;
                Ok(attachment)
            }
            Err(error @ Error::AlreadyAllocated { .. }) => {
                self.settle(state)?;
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    /// Frees what `owner` holds and returns it; `None` when it holds nothing, so that it may be
    /// called again.
    ///
    /// # Errors
    /// Those of the disk; the addresses are then still held.
    pub fn release(&self, owner: &Owner) -> Result<Option<Attachment>> {
        let mut state = self.lock();
        match state.index()?.release(owner, Instant::now()) {
            Some((attachment, changes)) => {
                self.commit(state, changes)?;
                Ok(Some(attachment))
            }
            None => {
                self.settle(state)?;
                Ok(None)
            }
        }
    }

    /// What `owner` holds.
    ///
    /// # Errors
    /// Those of the disk, after an earlier failure of it.
    pub fn get(&self, owner: &Owner) -> Result<Option<Attachment>> {
        Ok(self.lock().index()?.get(owner).cloned())
    }

    /// All that is held, in the order of owners.
    ///
    /// # Errors
    /// Those of the disk, after an earlier failure of it.
    pub fn attachments(&self) -> Result<Vec<Attachment>> {
        Ok(self.lock().index()?.attachments().cloned().collect())
    }

    /// Every address held, in ascending order, with its owner.
    ///
    /// # Errors
    /// Those of the disk, after an earlier failure of it.
    pub fn addresses(&self) -> Result<Vec<(IpAddr, Owner)>> {
        Ok(self
            .lock()
            .index()?
            .addresses()
            .map(|(address, owner)| (address, owner.clone()))
            .collect())
    }

    /// How full each block is.
    ///
    /// # Errors
    /// Those of the disk, after an earlier failure of it.
    pub fn usage(&self) -> Result<Vec<BlockUsage>> {
        Ok(self.lock().index()?.usage(Instant::now()))
    }

    /// How many commits there were since the store was opened; fewer than changes under load.
    pub fn commits(&self) -> u64 {
        self.lock().commits
    }

    /// Waits until what this caller saw is on disk too.
    fn settle<'a>(&'a self, state: MutexGuard<'a, State>) -> Result<()> {
        if state.committing || state.gathering.callers > 0 {
            self.commit(state, Vec::new())
        } else {
            Ok(())
        }
    }

    /// Adds `changes`, which the index has already, to the batch that gathers, and waits until
    /// that is written, by this thread if no other does.
    fn commit<'a>(&'a self, mut state: MutexGuard<'a, State>, changes: Vec<Change>) -> Result<()> {
        state.gathering.changes.extend(changes);
        state.gathering.callers += 1;
        let outcome = state.gathering.outcome.clone();
        loop {
            if let Some(outcome) = outcome.get() {
                return outcome.clone();
            }
            state = if state.committing {
                self.settled
                    .wait(state)
                    .unwrap_or_else(|poisoned| poisoned.into_inner())
            } else {
                self.write_gathered(state)
            };
        }
    }

    fn write_gathered<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let batch = mem::take(&mut state.gathering);
        let disk = state.open.as_ref().map(|open| open.disk.clone());
        state.committing = true;
        drop(state);

        let result = match disk {
            _ if batch.changes.is_empty() => Ok(()),
            Some(disk) => panic::catch_unwind(AssertUnwindSafe(|| disk.write(&batch.changes)))
                .unwrap_or_else(|panic| Err(self.aborted(&*panic))),
            None => Err(self.aborted(&"the file was closed before its batch")),
        };

        let mut state = self.lock();
        state.committing = false;
        state.commits += u64::from(!batch.changes.is_empty());
        if let Err(error) = &result {
            state.forget(error.clone());
        }
        let _ = batch.outcome.set(result);
        self.settled.notify_all();
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| {
            self.state.clear_poison();
            let mut state = poisoned.into_inner();
            state.forget(self.aborted(&"another call panicked"));
            self.settled.notify_all();
            state
        })
    }

    fn aborted(&self, panic: &(dyn std::any::Any + Send)) -> Error {
        let reason = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let reason = reason.or_else(|| panic.downcast_ref::<String>().cloned());
        Error::Aborted {
            path: self.path.clone(),
            reason: reason.unwrap_or_else(|| "a panic".to_owned()),
        }
    }
}

impl State {
    /// The index, read from disk again if a failure came before.
    fn index(&mut self) -> Result<&mut Index> {
        let open = match self.open.take() {
            Some(open) => open,
            None => {
                let open = Open::new(&self.path, self.rest)?;
                tracing::info!(path = %self.path.display(), "read the address store again after a failure");
                open
            }
        };
        Ok(&mut self.open.insert(open).index)
    }

    /// Closes the file and fails what gathered: it was decided on changes that did not come true.
    fn forget(&mut self, error: Error) {
        self.open = None;
        let _ = mem::take(&mut self.gathering).outcome.set(Err(error));
    }
}

impl Open {
    fn new(path: &Path, rest: Duration) -> Result<Self> {
        let disk = Disk::open(path)?;
        let index = Index::new(rest, disk.rows()?, Instant::now()).map_err(|reason| Error::Damaged {
            path: path.to_owned(),
            reason,
        })?;
        Ok(Self {
            index,
            disk: Arc::new(disk),
        })
    }
}
