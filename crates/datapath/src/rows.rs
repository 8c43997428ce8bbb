//! A map whose rows are found by their index.

use std::{collections::BTreeMap, marker::PhantomData, os::fd::OwnedFd};

use crate::{
    Error, Plain, Result,
    bpf::{batch, map},
};

/// An array in the kernel. All rows are there; those that nobody has written are zero.
#[derive(Debug)]
pub struct Rows<V> {
    name: &'static str,
    capacity: usize,
    map: OwnedFd,
    types: PhantomData<fn() -> V>,
}

impl<V: Plain + PartialEq> Rows<V> {
    /// The caller has checked that the map's sizes are those of an index and `V`.
    pub(crate) const fn new(name: &'static str, capacity: usize, map: OwnedFd) -> Self {
        Self {
            name,
            capacity,
            map,
            types: PhantomData,
        }
    }

    fn failed(&self, what: &'static str) -> impl Fn(std::io::Error) -> Error + use<V> {
        let map = self.name;
        move |source| Error::Map { what, map, source }
    }

    /// A row; `None`: the index is beyond the last one.
    pub fn get(&self, index: u32) -> Result<Option<V>> {
        map::lookup(&self.map, &index).map_err(self.failed("read"))
    }

    /// Writes rows by their indexes, all in one request. Rows that are no longer used are written as zero.
    ///
    /// # Errors
    /// [`Error::TableFull`]: an index is beyond the last row; nothing was changed.
    pub fn write(&self, rows: &[(u32, V)]) -> Result<()> {
        if let Some((last, _)) = rows.iter().max_by_key(|(index, _)| *index)
            && *last as usize >= self.capacity
        {
            return Err(Error::TableFull {
                map: self.name,
                capacity: self.capacity,
                wanted: *last as usize + 1,
            });
        }
        let (indexes, values): (Vec<u32>, Vec<V>) = rows.iter().copied().unzip();
        batch::write(&self.map, &indexes, &values).map_err(self.failed("write"))
    }

    /// All rows that are not zero. Those that change meanwhile may be of before or after.
    pub fn used(&self) -> Result<BTreeMap<u32, V>> {
        let mut used = BTreeMap::new();
        let keep = |index: u32, row: V| {
            if row != V::default() {
                used.insert(index, row);
            }
        };
        map::scan(&self.map, keep).map_err(self.failed("read"))?;
        Ok(used)
    }
}
