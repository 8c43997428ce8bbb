//! Many entries of a map in one request.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use super::{Command, address, call, map::is_absent, raw};

/// Entries as bytes, as those of another ABI version are, whose types this build does not have: keys and
/// values, each of one size, one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// Bytes of a key.
    pub key_size: usize,
    /// Bytes of a value (of all values of a key, in per-CPU maps).
    pub value_size: usize,
    /// All keys.
    pub keys: Vec<u8>,
    /// All values, in the order of the keys.
    pub values: Vec<u8>,
}

impl Rows {
    /// Each key with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let values = self.values.chunks_exact(self.value_size.max(1));
        self.keys.chunks_exact(self.key_size.max(1)).zip(values)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.keys.len() / self.key_size.max(1)
    }
}

#[repr(C)]
#[derive(Default)]
struct BatchRequest {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    element_flags: u64,
    flags: u64,
}

/// Entries asked for at a time.
const BATCH: usize = 4096;

/// Reads all entries of a map, whose keys and values have these sizes. Those that change meanwhile may be of
/// before or after.
pub fn read(map: &OwnedFd, key_size: usize, value_size: usize) -> io::Result<Rows> {
    let mut rows = Rows {
        key_size,
        value_size,
        ..Rows::default()
    };
    scan(map, key_size, value_size, |keys, values| {
        rows.keys.extend(keys);
        rows.values.extend(values);
    })?;
    Ok(rows)
}

/// As [`read`], and keeps nothing: the keys and values are `seen` some at a time.
pub fn scan(
    map: &OwnedFd,
    key_size: usize,
    value_size: usize,
    mut seen: impl FnMut(&[u8], &[u8]),
) -> io::Result<()> {
    let mut size = BATCH;
    let mut keys = vec![0; size * key_size];
    let mut values = vec![0; size * value_size];
    // Where the kernel goes on: of the map's own meaning, never longer than a key or four bytes.
    let mut cursor = [0_u64; 16];
    let mut begun = false;
    loop {
        let mut next = cursor;
        let mut request = BatchRequest {
            in_batch: if begun { address(cursor.as_ptr()) } else { 0 },
            out_batch: address(next.as_mut_ptr()),
            keys: address(keys.as_mut_ptr()),
            values: address(values.as_mut_ptr()),
            count: size as u32,
            map_fd: raw(map.as_fd()),
            ..Default::default()
        };
        // SAFETY: both buffers have room for `size` entries of the map's sizes.
        let outcome = unsafe { call(Command::MapLookupBatch, &mut request) };
        let last = match outcome {
            Ok(_) => false,
            Err(error) if is_absent(&error) => true,
            // One bucket of the hash has more entries than asked for.
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                size *= 2;
                keys.resize(size * key_size, 0);
                values.resize(size * value_size, 0);
                continue;
            }
            Err(error) => return Err(error),
        };
        let count = request.count as usize;
        seen(
            keys.get(..count * key_size).unwrap_or_default(),
            values.get(..count * value_size).unwrap_or_default(),
        );
        if last {
            return Ok(());
        }
        cursor = next;
        begun = true;
    }
}

/// Writes entries. Their sizes must be the map's.
pub fn write_rows(map: &OwnedFd, rows: &Rows) -> io::Result<()> {
    update(
        map,
        address(rows.keys.as_ptr()),
        address(rows.values.as_ptr()),
        rows.len(),
    )
}

/// Writes entries of the map's types.
pub fn write<K: Copy, V: Copy>(map: &OwnedFd, keys: &[K], values: &[V]) -> io::Result<()> {
    let count = keys.len().min(values.len());
    update(map, address(keys.as_ptr()), address(values.as_ptr()), count)
}

/// `count` entries of the map's sizes lie at the addresses.
fn update(map: &OwnedFd, keys: u64, values: u64, count: usize) -> io::Result<()> {
    if count == 0 {
        return Ok(());
    }
    let mut request = BatchRequest {
        keys,
        values,
        count: count as u32,
        map_fd: raw(map.as_fd()),
        ..Default::default()
    };
    // SAFETY: both callers' slices have `count` entries, and live on.
    unsafe { call(Command::MapUpdateBatch, &mut request) }.map(drop)
}

/// Removes entries; those that are gone already do not matter.
pub fn delete<K: Copy>(map: &OwnedFd, mut keys: &[K]) -> io::Result<()> {
    while !keys.is_empty() {
        let mut request = BatchRequest {
            keys: address(keys.as_ptr()),
            count: keys.len() as u32,
            map_fd: raw(map.as_fd()),
            ..Default::default()
        };
        // SAFETY: the slice has that many keys of the map's size.
        match unsafe { call(Command::MapDeleteBatch, &mut request) } {
            Ok(_) => return Ok(()),
            // The kernel stops there, and says how far it came.
            Err(error) if is_absent(&error) => {
                keys = keys.get(request.count as usize + 1..).unwrap_or_default();
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
