//! Maps: make, read, write, in batches where there are many entries.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use super::{Command, address, call, call_fd, info, object_name, raw};

/// What makes two maps interchangeable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The kernel's number of the type.
    pub kind: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Entries.
    pub max_entries: u32,
    /// Flags of its making.
    pub flags: u32,
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            kind,
            key_size,
            value_size,
            max_entries,
            flags,
        } = self;
        write!(
            f,
            "type {kind}, keys of {key_size} and values of {value_size} bytes, {max_entries} entries, flags {flags:#x}"
        )
    }
}

/// A type's information: of which object, and the numbers of key and value type in it.
#[derive(Clone, Copy)]
pub struct Types<'a> {
    /// The object's type information.
    pub btf: BorrowedFd<'a>,
    /// The key's type.
    pub key: u32,
    /// The value's type.
    pub value: u32,
}

#[repr(C)]
#[derive(Default)]
struct CreateRequest {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    name: [u8; 16],
    ifindex: u32,
    btf_fd: u32,
    btf_key_type: u32,
    btf_value_type: u32,
}

/// Makes a map.
pub fn create(name: &str, shape: Shape, types: Option<Types<'_>>) -> io::Result<OwnedFd> {
    let mut request = CreateRequest {
        kind: shape.kind,
        key_size: shape.key_size,
        value_size: shape.value_size,
        max_entries: shape.max_entries,
        flags: shape.flags,
        name: object_name(name),
        ..Default::default()
    };
    if let Some(types) = types {
        request.btf_fd = raw(types.btf);
        request.btf_key_type = types.key;
        request.btf_value_type = types.value;
    }
    // SAFETY: the request holds no addresses.
    unsafe { call_fd(Command::MapCreate, &mut request) }
}

#[repr(C)]
#[derive(Default)]
struct MapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

/// The shape of a map.
pub fn shape(map: BorrowedFd<'_>) -> io::Result<Shape> {
    // SAFETY: `MapInfo` is the beginning of `bpf_map_info`.
    let MapInfo {
        kind,
        key_size,
        value_size,
        max_entries,
        flags,
        ..
    } = unsafe { info(map)? };
    Ok(Shape {
        kind,
        key_size,
        value_size,
        max_entries,
        flags,
    })
}

#[repr(C)]
#[derive(Default)]
struct ElementRequest {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The map's sizes must be those of `key` and `value`: the callers check shapes when they open maps.
fn element<K, V>(map: &OwnedFd, key: *const K, value: *const V) -> ElementRequest {
    ElementRequest {
        map_fd: raw(map.as_fd()),
        key: address(key),
        value: address(value),
        ..Default::default()
    }
}

/// Reads an entry; `None`: there is none.
pub fn lookup<K: Copy, V: Default>(map: &OwnedFd, key: &K) -> io::Result<Option<V>> {
    let mut value = V::default();
    let mut request = element(map, key, &raw mut value);
    // SAFETY: key and value have the map's sizes and live on.
    match unsafe { call(Command::MapLookup, &mut request) } {
        Ok(_) => Ok(Some(value)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes an entry.
pub fn update<K: Copy, V>(map: &OwnedFd, key: &K, value: &V) -> io::Result<()> {
    let mut request = element(map, key, value);
    // SAFETY: key and value have the map's sizes and live on.
    unsafe { call(Command::MapUpdate, &mut request) }.map(drop)
}

/// Removes an entry; `false`: there was none.
pub fn delete<K: Copy>(map: &OwnedFd, key: &K) -> io::Result<bool> {
    let mut request = element(map, key, std::ptr::null::<()>());
    // SAFETY: the key has the map's size and lives on.
    match unsafe { call(Command::MapDelete, &mut request) } {
        Ok(_) => Ok(true),
        Err(error) if is_absent(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes the whole value of an array of one entry, as sections of constants are.
pub fn fill_and_freeze(map: &OwnedFd, value: &[u8]) -> io::Result<()> {
    const KEY: &u32 = &0;
    let mut request = element(map, KEY, value.as_ptr());
    // SAFETY: the map was made with values of this length.
    unsafe { call(Command::MapUpdate, &mut request)? };
    // SAFETY: the request holds no addresses.
    unsafe { call(Command::MapFreeze, &mut raw(map.as_fd())) }.map(drop)
}

fn is_absent(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOENT)
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

/// Reads all entries, whose values are `per_key` of `V` (more than one in per-CPU maps).
pub fn entries<K: Copy + Default, V: Copy + Default>(
    map: &OwnedFd,
    per_key: usize,
) -> io::Result<Vec<(K, Vec<V>)>> {
    let mut found = Vec::new();
    let mut size = BATCH;
    let mut keys = vec![K::default(); size];
    let mut values = vec![V::default(); size * per_key];
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
                keys.resize(size, K::default());
                values.resize(size * per_key, V::default());
                continue;
            }
            Err(error) => return Err(error),
        };
        let count = request.count as usize;
        found.extend(
            keys.iter()
                .take(count)
                .zip(values.chunks(per_key))
                .map(|(k, v)| (*k, v.to_vec())),
        );
        if last {
            return Ok(found);
        }
        cursor = next;
        begun = true;
    }
}

/// Writes many entries in one request.
pub fn update_many<K: Copy, V: Copy>(map: &OwnedFd, keys: &[K], values: &[V]) -> io::Result<()> {
    let count = keys.len().min(values.len());
    if count == 0 {
        return Ok(());
    }
    let mut request = BatchRequest {
        keys: address(keys.as_ptr()),
        values: address(values.as_ptr()),
        count: count as u32,
        map_fd: raw(map.as_fd()),
        ..Default::default()
    };
    // SAFETY: both slices have `count` entries of the map's sizes.
    unsafe { call(Command::MapUpdateBatch, &mut request) }.map(drop)
}

/// Removes many entries in few requests; those that are gone already do not matter.
pub fn delete_many<K: Copy>(map: &OwnedFd, mut keys: &[K]) -> io::Result<()> {
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
