//! bpf(2), as far as it is needed here. The request structures are those of `linux/bpf.h`, cut where
//! the last used field ends; the kernel takes what is missing as zero. None has padding, which would
//! be read as fields.

pub mod batch;
pub mod link;
pub mod map;
pub mod program;

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

/// Commands of bpf(2).
#[derive(Clone, Copy)]
#[repr(i32)]
enum Command {
    MapCreate = 0,
    MapLookup = 1,
    MapUpdate = 2,
    MapDelete = 3,
    ProgLoad = 5,
    ObjPin = 6,
    ObjGet = 7,
    ProgTestRun = 10,
    ObjInfo = 15,
    ProgQuery = 16,
    BtfLoad = 18,
    MapFreeze = 22,
    MapLookupBatch = 24,
    MapUpdateBatch = 26,
    MapDeleteBatch = 27,
    LinkCreate = 28,
    LinkUpdate = 29,
    LinkDetach = 34,
}

/// Makes a request.
///
/// # Safety
/// `T` must be the command's structure, and the addresses and lengths in it valid.
unsafe fn call<T>(command: Command, request: &mut T) -> io::Result<i32> {
    // SAFETY: as the caller promises.
    let returned = unsafe { libc::syscall(libc::SYS_bpf, command as i32, &raw mut *request, size_of::<T>()) };
    i32::try_from(returned)
        .ok()
        .filter(|r| *r >= 0)
        .ok_or_else(io::Error::last_os_error)
}

/// Makes a request that returns a file descriptor.
///
/// # Safety
/// As [`call`].
unsafe fn call_fd<T>(command: Command, request: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: as the caller promises; the kernel hands over the descriptor.
    unsafe { Ok(OwnedFd::from_raw_fd(call(command, request)?)) }
}

/// A descriptor as requests have it.
fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// An address as requests have it.
fn address<T: ?Sized>(of: *const T) -> u64 {
    of.cast::<()>() as usize as u64
}

/// A name of at most 15 bytes, as maps and programs have it.
fn object_name(name: &str) -> [u8; 16] {
    let mut field = [0; 16];
    for (to, from) in field.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    field
}

#[repr(C)]
#[derive(Default)]
struct PathRequest {
    path: u64,
    fd: u32,
    flags: u32,
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// Pins a map, program or link.
pub fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut request = PathRequest {
        path: address(path.as_ptr()),
        fd: raw(fd),
        flags: 0,
    };
    // SAFETY: the path ends with a zero byte and lives on.
    unsafe { call(Command::ObjPin, &mut request) }.map(drop)
}

/// `BPF_F_RDONLY`: the descriptor of a map is for reading only.
const READ_ONLY: u32 = 1 << 3;

/// Opens what is pinned.
pub fn open(path: &Path, read_only: bool) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let flags = if read_only { READ_ONLY } else { 0 };
    let mut request = PathRequest {
        path: address(path.as_ptr()),
        fd: 0,
        flags,
    };
    // SAFETY: the path ends with a zero byte and lives on.
    unsafe { call_fd(Command::ObjGet, &mut request) }
}

#[repr(C)]
struct InfoRequest {
    fd: u32,
    len: u32,
    info: u64,
}

/// Asks what an object is.
///
/// # Safety
/// `T` must be the beginning of the object's info structure; of plain integers.
unsafe fn info<T: Default>(fd: BorrowedFd<'_>) -> io::Result<T> {
    let mut info = T::default();
    let mut request = InfoRequest {
        fd: raw(fd),
        len: size_of::<T>() as u32,
        info: address(&raw mut info),
    };
    // SAFETY: as the caller promises; the structure is valid for its length.
    unsafe { call(Command::ObjInfo, &mut request)? };
    Ok(info)
}

#[repr(C)]
#[derive(Default)]
struct BtfRequest {
    btf: u64,
    log: u64,
    size: u32,
    log_size: u32,
    log_level: u32,
    log_true_size: u32,
}

/// Gives the kernel an object's type information.
pub fn load_btf(btf: &[u8]) -> io::Result<OwnedFd> {
    let mut request = BtfRequest {
        btf: address(btf.as_ptr()),
        size: btf.len() as u32,
        ..Default::default()
    };
    // SAFETY: the bytes live on.
    unsafe { call_fd(Command::BtfLoad, &mut request) }
}
