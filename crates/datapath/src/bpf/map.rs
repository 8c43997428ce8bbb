//! Maps: make, read, write.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use super::{Command, address, batch, call, call_fd, info, object_name, raw};

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

/// The kernel's number of a map.
pub fn id(map: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: `MapInfo` is the beginning of `bpf_map_info`.
    let info: MapInfo = unsafe { info(map)? };
    Ok(info.id)
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

/// Writes an entry that is not there yet, as bytes of the map's sizes; `false`: it is there, and stays as it is.
pub fn insert_new(map: &OwnedFd, key: &[u8], value: &[u8]) -> io::Result<bool> {
    /// `BPF_NOEXIST`.
    const ONLY_NEW: u64 = 1;
    let mut request = element(map, key.as_ptr(), value.as_ptr());
    request.flags = ONLY_NEW;
    // SAFETY: key and value have the map's sizes and live on.
    match unsafe { call(Command::MapUpdate, &mut request) } {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
        Err(error) => Err(error),
    }
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

/// Whether the kernel says that there is no such entry.
pub fn is_absent(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOENT)
}

/// Reads all entries, whose values are `per_key` of `V` (more than one in per-CPU maps).
pub fn entries<K: Copy + Default, V: Copy + Default>(
    map: &OwnedFd,
    per_key: usize,
) -> io::Result<Vec<(K, Vec<V>)>> {
    let rows = batch::read(map, size_of::<K>(), size_of::<V>() * per_key)?;
    let entry =
        |(key, values): (&[u8], &[u8])| (plain(key), values.chunks(size_of::<V>()).map(plain).collect());
    Ok(rows.iter().map(entry).collect())
}

/// Goes through all entries, of which most are not kept.
pub fn scan<K: Copy + Default, V: Copy + Default>(
    map: &OwnedFd,
    mut seen: impl FnMut(K, V),
) -> io::Result<()> {
    batch::scan(map, size_of::<K>(), size_of::<V>(), |keys, values| {
        let entries = keys.chunks(size_of::<K>()).zip(values.chunks(size_of::<V>()));
        entries.for_each(|(key, value)| seen(plain(key), plain(value)));
    })
}

/// A value as it lies in memory.
pub fn bytes<T: crate::Plain>(value: &T) -> &[u8] {
    // SAFETY: plain values have no padding, and live as long as the slice does.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}

/// What the kernel has written.
fn plain<T: Copy + Default>(bytes: &[u8]) -> T {
    let mut value = T::default();
    let len = bytes.len().min(size_of::<T>());
    // SAFETY: keys and values of maps are plain: any bytes are one. No more is written than the value has.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), (&raw mut value).cast(), len) };
    value
}
