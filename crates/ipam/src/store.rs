//! The durable store: the index in memory, the file on disk, and the commits that keep them one.

use std::mem;
use std::net::IpAddr;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::attachment::{Attachment, Owner, Request};
use crate::block::BlockUsage;
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::index::{Change, Index};

/// The addresses of a node's pods, in one file.
///
/// Every change is on the disk when its call returns. Changes that come while a commit is under
/// way gather, and share the next one. Since a disk takes milliseconds, the two changes of a pod's
/// life also come in a form that does not wait, so that other work goes on meanwhile. To be called
/// from threads that may block.
///
/// Reads answer from memory, and see changes whose commit is still under way.
#[derive(Debug)]
pub struct AddressStore {
    shared: Arc<Shared>,
    committer: Option<JoinHandle<()>>,
}

/// A change that is decided and on its way to the disk, where it comes also if this is dropped.
#[derive(Debug)]
#[must_use = "the change is durable only after wait()"]
pub struct Pending<T> {
    value: T,
    /// None when there was nothing to wait for.
    outcome: Option<Outcome>,
    shared: Arc<Shared>,
}

type Outcome = Arc<OnceLock<Result<()>>>;

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    state: Mutex<State>,
    /// There is something to write, or to stop for.
    gathered: Condvar,
    /// A batch is on disk, or failed.
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
    stopping: bool,
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
    outcome: Outcome,
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
            stopping: false,
            commits: 0,
        };
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            state: Mutex::new(state),
            gathered: Condvar::new(),
            settled: Condvar::new(),
        });
        let committer = thread::Builder::new().name("address-store".to_owned()).spawn({
            let shared = shared.clone();
            move || shared.commit_until_stopped()
        });
        let committer = committer.map_err(|source| Error::Open {
            path: path.to_owned(),
            source: Arc::new(source),
        })?;
        Ok(Self {
            shared,
            committer: Some(committer),
        })
    }

    /// Makes `blocks` the ones that new addresses come from, in this order. What is held outside
    /// of them stays held until it is released. The blocks are stored, so that a node serves its
    /// pods after a restart also when it cannot ask for them.
    ///
    /// # Errors
    /// [`Error::InvalidBlock`] and those of the disk; the blocks are then the ones before.
    pub fn set_blocks(&self, blocks: &[IpNet]) -> Result<()> {
        let mut state = self.shared.lock();
        let change = state.index()?.set_blocks(blocks)?;
        self.shared.gather(state, change.into_iter().collect(), ()).wait()
    }

    /// The blocks that new addresses come from.
    ///
    /// # Errors
    /// Those of the disk, after an earlier failure of it.
    pub fn blocks(&self) -> Result<Vec<IpNet>> {
        Ok(self.shared.lock().index()?.blocks())
    }

    /// Takes one address of each wanted family, or those asked for, all or none. A never-used
    /// address goes before a freed one, and of these the one freed longest ago goes first.
    ///
    /// # Errors
    /// [`Error::AlreadyAllocated`], [`Error::NoBlock`], [`Error::Exhausted`],
    /// [`Error::NotInBlocks`], [`Error::AddressInUse`], [`Error::AddressResting`],
    /// [`Error::NothingRequested`] and those of the disk. Nothing is taken then.
    pub fn allocate(&self, request: &Request) -> Result<Attachment> {
        self.begin_allocate(request)?.wait()
    }

    /// The same, without waiting for the disk. Until [`Pending::wait`] says so nobody may be told
    /// of the addresses; should it fail, what was made with them has to go.
    ///
    /// # Errors
    /// Those of [`allocate`](Self::allocate).
    pub fn begin_allocate(&self, request: &Request) -> Result<Pending<Attachment>> {
        let mut state = self.shared.lock();
        match state.index()?.allocate(request, Instant::now()) {
            Ok((attachment, changes)) => Ok(self.shared.gather(state, changes, attachment)),
            Err(error @ Error::AlreadyAllocated { .. }) => {
                self.shared.gather(state, Vec::new(), ()).wait()?;
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
        self.begin_release(owner)?.wait()
    }

    /// The same, without waiting for the disk.
    ///
    /// # Errors
    /// Those of [`release`](Self::release).
    pub fn begin_release(&self, owner: &Owner) -> Result<Pending<Option<Attachment>>> {
        let mut state = self.shared.lock();
        let (attachment, changes) = match state.index()?.release(owner, Instant::now()) {
            Some((attachment, changes)) => (Some(attachment), changes),
            None => (None, Vec::new()),
        };
        Ok(self.shared.gather(state, changes, attachment))
    }

    /// What `owner` holds.
    ///
    /// # Errors
    /// Those of the disk, after an earlier failure of it.
    pub fn get(&self, owner: &Owner) -> Result<Option<Attachment>> {
        Ok(self.shared.lock().index()?.get(owner).cloned())
    }

    /// All that is held, in the order of owners.
    ///
    /// # Errors
    /// Those of the disk, after an earlier failure of it.
    pub fn attachments(&self) -> Result<Vec<Attachment>> {
        Ok(self.shared.lock().index()?.attachments().cloned().collect())
    }

    /// Every address held, in ascending order, with its owner.
    ///
    /// # Errors
    /// Those of the disk, after an earlier failure of it.
    pub fn addresses(&self) -> Result<Vec<(IpAddr, Owner)>> {
        Ok(self
            .shared
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
        Ok(self.shared.lock().index()?.usage(Instant::now()))
    }

    /// How many commits there were since the store was opened; fewer than changes under load.
    pub fn commits(&self) -> u64 {
        self.shared.lock().commits
    }
}

impl Drop for AddressStore {
    /// Writes what is pending and closes the file.
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.gathered.notify_all();
        if let Some(committer) = self.committer.take() {
            // It catches the panics of what it calls.
            let _ = committer.join();
        }
        self.shared.lock().open = None;
    }
}

impl<T> Pending<T> {
    /// What will be true once it is durable.
    pub const fn value(&self) -> &T {
        &self.value
    }

    /// Waits until it is on the disk.
    ///
    /// # Errors
    /// Those of the disk; the change did not happen then.
    pub fn wait(self) -> Result<T> {
        if let Some(outcome) = &self.outcome {
            let mut state = self.shared.lock();
            while outcome.get().is_none() {
                state = self
                    .shared
                    .settled
                    .wait(state)
                    .unwrap_or_else(|poisoned| poisoned.into_inner());
            }
            outcome.get().cloned().unwrap_or(Ok(()))?;
        }
        Ok(self.value)
    }
}

impl Shared {
    /// Adds `changes`, which the index has already, to the batch that gathers. Where there are
    /// none, what the caller saw may still be on its way to the disk, and is waited for alike.
    fn gather<T>(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, State>,
        changes: Vec<Change>,
        value: T,
    ) -> Pending<T> {
        let settled = changes.is_empty() && !state.committing && state.gathering.callers == 0;
        let outcome = (!settled).then(|| {
            state.gathering.changes.extend(changes);
            state.gathering.callers += 1;
            self.gathered.notify_one();
            state.gathering.outcome.clone()
        });
        Pending {
            value,
            outcome,
            shared: self.clone(),
        }
    }

    /// Writes one batch after the other: the work of the store's own thread.
    fn commit_until_stopped(&self) {
        loop {
            let mut state = self.lock();
            while state.committing || state.gathering.callers == 0 {
                if state.stopping && !state.committing {
                    return;
                }
                state = self
                    .gathered
                    .wait(state)
                    .unwrap_or_else(|poisoned| poisoned.into_inner());
            }
            let batch = mem::take(&mut state.gathering);
            let disk = state.open.as_ref().map(|open| open.disk.clone());
            state.committing = true;
            drop(state);

            let result = self.write(&batch.changes, disk);

            let mut state = self.lock();
            state.committing = false;
            state.commits += u64::from(!batch.changes.is_empty());
            if let Err(error) = &result {
                state.forget(error.clone());
            }
            let _ = batch.outcome.set(result);
            self.settled.notify_all();
        }
    }

    /// Holds the disk no longer than the write, so that it can be opened anew after a failure.
    fn write(&self, changes: &[Change], disk: Option<Arc<Disk>>) -> Result<()> {
        match disk {
            _ if changes.is_empty() => Ok(()),
            Some(disk) => panic::catch_unwind(AssertUnwindSafe(|| disk.write(changes)))
                .unwrap_or_else(|panic| Err(self.aborted(&*panic))),
            None => Err(self.aborted(&"the file was closed before its batch")),
        }
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

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
