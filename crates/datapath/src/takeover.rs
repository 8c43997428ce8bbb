//! The flows of another ABI version, when its programs are replaced.
//!
//! Until all are, either version's programs must know what the other's know of a flow, whose two directions may
//! meet different ones. Those of before cannot: this build's read through to their table, and begin flows in both
//! (`READ_THROUGH` of the kernel side). Then what is only in theirs is copied.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    thread,
    time::Duration,
};

use tombolo_abi::map;

use crate::{
    Error, Result,
    bpf::{self, batch},
    staging::convert,
};

/// More than any program takes for a packet.
const PACKET: Duration = Duration::from_millis(100);

/// Whether both are one map, which needs no copying.
pub fn is_same(theirs: &OwnedFd, ours: &OwnedFd) -> Result<bool> {
    let id = |fd: &OwnedFd| bpf::map::id(fd.as_fd()).map_err(failed("look at"));
    Ok(id(theirs)? == id(ours)?)
}

/// Copies what is not yet in this version's table; no program writes to the other's any more but those that read
/// through to it. Returns how many entries were copied.
pub fn copy_flows(from: u32, theirs: &OwnedFd, ours: &OwnedFd) -> Result<usize> {
    wait_for_programs();
    let shape = |fd: &OwnedFd| bpf::map::shape(fd.as_fd()).map_err(failed("look at"));
    let (found, wanted) = (shape(theirs)?, shape(ours)?);
    let rows =
        batch::read(theirs, found.key_size as usize, found.value_size as usize).map_err(failed("read"))?;
    let rows = convert(map::FLOWS, from, &rows, wanted.value_size as usize);
    let mut copied = 0;
    for (key, value) in rows.iter() {
        match bpf::map::insert_new(ours, key, value) {
            Ok(is_new) => copied += usize::from(is_new),
            Err(error) if error.raw_os_error() == Some(libc::E2BIG) => {
                tracing::warn!(
                    flows = rows.len(),
                    room = wanted.max_entries,
                    "the flow table of this version is smaller, and full: some flows are forgotten"
                );
                break;
            }
            Err(error) => return Err(failed("write")(error)),
        }
    }
    Ok(copied)
}

/// Waits until all programs have ended that began before: what was replaced may still be at a packet.
fn wait_for_programs() {
    /// `MEMBARRIER_CMD_GLOBAL`: waits for all readers of RCU, as programs are.
    const GLOBAL: libc::c_int = 1;
    // SAFETY: takes plain numbers.
    if unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) } != 0 {
        // Kernels that leave CPUs without a clock tick do not have it.
        thread::sleep(PACKET);
    }
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Map {
        what,
        map: map::FLOWS,
        source,
    }
}
