//! A map whose keys and values have types.

use std::{collections::BTreeMap, marker::PhantomData, os::fd::OwnedFd};

use tombolo_abi::{
    Addr, Affinity, AffinityKey, Backend, Config, Counter, Endpoint, FlowKey, FlowState, Frontend,
    FrontendKey, MacKey, Route, RouteKey, SlabRow, SourceRangeKey, Timeouts,
};

use crate::{
    Error, Result,
    bpf::{batch, map},
};

/// What lies in a map as it lies in memory.
///
/// # Safety
/// The type has no padding, and every bit pattern is a value of it.
pub unsafe trait Plain: Copy + Default + 'static {}

macro_rules! plain {
    ($($type:ty),*) => {$(
        // SAFETY: plain integers and arrays of them, and its crate asserts that there is no padding.
        unsafe impl Plain for $type {}
    )*};
}

plain!(
    u32,
    Addr,
    Affinity,
    AffinityKey,
    Backend,
    Config,
    Counter,
    Endpoint,
    FlowKey,
    FlowState,
    Frontend,
    FrontendKey,
    MacKey,
    Route,
    RouteKey,
    SlabRow,
    SourceRangeKey,
    Timeouts
);

/// What [`Table::reconcile`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Entries written, since they were missing or different.
    pub upserted: usize,
    /// Entries removed.
    pub removed: usize,
}

/// A hash map in the kernel.
#[derive(Debug)]
pub struct Table<K, V> {
    name: &'static str,
    capacity: usize,
    map: OwnedFd,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: Plain + Ord, V: Plain + PartialEq> Table<K, V> {
    /// The caller has checked that the map's sizes are those of `K` and `V`.
    pub(crate) fn new(name: &'static str, capacity: usize, map: OwnedFd) -> Self {
        Self {
            name,
            capacity,
            map,
            types: PhantomData,
        }
    }

    /// The map itself.
    pub(crate) const fn map(&self) -> &OwnedFd {
        &self.map
    }

    fn failed(&self, what: &'static str) -> impl Fn(std::io::Error) -> Error + use<K, V> {
        let (map, capacity) = (self.name, self.capacity);
        move |source| match source.raw_os_error() {
            Some(libc::E2BIG) => Error::TableFull {
                map,
                capacity,
                wanted: capacity + 1,
            },
            _ => Error::Map { what, map, source },
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &K) -> Result<Option<V>> {
        map::lookup(&self.map, key).map_err(self.failed("read"))
    }

    /// Writes an entry, whether or not it is there.
    ///
    /// # Errors
    /// [`Error::TableFull`]: it is not there, and there is no room.
    pub fn insert(&self, key: &K, value: &V) -> Result<()> {
        map::update(&self.map, key, value).map_err(self.failed("write"))
    }

    /// Writes entries, all in one request.
    ///
    /// # Errors
    /// As [`Table::insert`]; those before the one that was refused are written.
    pub fn insert_all(&self, entries: &[(K, V)]) -> Result<()> {
        let (keys, values): (Vec<K>, Vec<V>) = entries.iter().copied().unzip();
        batch::write(&self.map, &keys, &values).map_err(self.failed("write"))
    }

    /// Removes entries, all in one request; those that are gone do not matter.
    pub fn remove_all(&self, keys: &[K]) -> Result<()> {
        batch::delete(&self.map, keys).map_err(self.failed("remove from"))
    }

    /// Removes an entry; `false`: there was none.
    pub fn remove(&self, key: &K) -> Result<bool> {
        map::delete(&self.map, key).map_err(self.failed("remove from"))
    }

    /// All entries. Those that change meanwhile may be of before or after.
    pub fn entries(&self) -> Result<BTreeMap<K, V>> {
        let entries = map::entries(&self.map, 1).map_err(self.failed("read"))?;
        Ok(entries
            .into_iter()
            .filter_map(|(key, values)| Some((key, *values.first()?)))
            .collect())
    }

    /// Makes the map hold exactly `desired`, writing only what differs: first what is new or other,
    /// then, what is no longer wanted goes.
    ///
    /// # Errors
    /// [`Error::TableFull`]: more than the map holds; nothing was changed.
    pub fn reconcile(&self, desired: &BTreeMap<K, V>) -> Result<Changes> {
        if desired.len() > self.capacity {
            return Err(Error::TableFull {
                map: self.name,
                capacity: self.capacity,
                wanted: desired.len(),
            });
        }
        let actual = self.entries()?;
        let (keys, values): (Vec<K>, Vec<V>) = desired
            .iter()
            .filter(|(key, value)| actual.get(key) != Some(value))
            .unzip();
        let stale: Vec<K> = actual
            .keys()
            .filter(|key| !desired.contains_key(key))
            .copied()
            .collect();
        let write = || batch::write(&self.map, &keys, &values).map_err(self.failed("write"));
        let remove = || batch::delete(&self.map, &stale).map_err(self.failed("remove from"));
        // Where old and new do not fit together, the old goes first.
        if desired.len() + stale.len() > self.capacity {
            remove()?;
            write()?;
        } else {
            write()?;
            remove()?;
        }
        Ok(Changes {
            upserted: keys.len(),
            removed: stale.len(),
        })
    }
}
