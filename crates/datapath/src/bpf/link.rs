//! Links: programs attached to devices by tcx, and to control groups.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
};

use super::{Command, call, call_fd, info, program::SocketCall, raw};

/// Which way the packets go that a program sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Direction {
    /// `BPF_TCX_INGRESS`.
    Ingress = 46,
    /// `BPF_TCX_EGRESS`.
    Egress = 47,
}

/// The kernel's numbers of kinds of links.
const LINK_CGROUP: u32 = 3;
const LINK_TCX: u32 = 11;

#[repr(C)]
#[derive(Default)]
struct CreateRequest {
    program: u32,
    /// A device's index, or a control group's descriptor.
    target: u32,
    attach_type: u32,
    flags: u32,
    relative_fd: u32,
    pad: u32,
    expected_revision: u64,
}

/// Attaches a program to a device of the thread's network namespace, after those that are there.
pub fn create(program: BorrowedFd<'_>, ifindex: u32, direction: Direction) -> io::Result<OwnedFd> {
    create_at(program, ifindex, direction as u32)
}

/// Attaches a program to a control group and all below it, after those that are there, and beside those of groups above
/// and below.
pub fn create_in(program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>, call: SocketCall) -> io::Result<OwnedFd> {
    create_at(program, raw(cgroup), call as u32)
}

fn create_at(program: BorrowedFd<'_>, target: u32, attach_type: u32) -> io::Result<OwnedFd> {
    let mut request = CreateRequest {
        program: raw(program),
        target,
        attach_type,
        ..Default::default()
    };
    // SAFETY: the request holds no addresses.
    unsafe { call_fd(Command::LinkCreate, &mut request) }
}

#[repr(C)]
#[derive(Default)]
struct UpdateRequest {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

/// Replaces a link's program; every packet, or call, meets the one or the other.
pub fn update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut request = UpdateRequest {
        link: raw(link),
        program: raw(program),
        ..Default::default()
    };
    // SAFETY: the request holds no addresses.
    unsafe { call(Command::LinkUpdate, &mut request) }.map(drop)
}

/// Detaches a link's program at once, whoever holds the link.
pub fn detach(link: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the request is the descriptor, and holds no addresses.
    unsafe { call(Command::LinkDetach, &mut raw(link)) }.map(drop)
}

#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    pad: u32,
    ifindex: u32,
    attach_type: u32,
}

/// What a link is.
pub struct State {
    /// The number of its program.
    pub program: u32,
    /// Its device; 0: the device is gone.
    pub ifindex: u32,
}

/// The state of a link; `None`: the descriptor is not that of a tcx link.
pub fn state(link: BorrowedFd<'_>) -> Option<State> {
    // SAFETY: `LinkInfo` is the beginning of `bpf_link_info` with its tcx part.
    let info: LinkInfo = unsafe { info(link) }.ok()?;
    (info.kind == LINK_TCX).then_some(State {
        program: info.program,
        ifindex: info.ifindex,
    })
}

#[repr(C)]
#[derive(Default)]
struct CgroupLinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    pad: u32,
    cgroup: u64,
    attach_type: u32,
    end: u32,
}

/// What a link at a control group is.
pub struct CgroupState {
    /// The number of its program.
    pub program: u32,
    /// The number of its group (the inode's of its folder); 0: the group is gone.
    pub cgroup: u64,
}

/// The state of a link; `None`: the descriptor is not that of a link at a control group.
pub fn cgroup_state(link: BorrowedFd<'_>) -> Option<CgroupState> {
    // SAFETY: `CgroupLinkInfo` is the beginning of `bpf_link_info` with its part for control groups.
    let info: CgroupLinkInfo = unsafe { info(link) }.ok()?;
    (info.kind == LINK_CGROUP).then_some(CgroupState {
        program: info.program,
        cgroup: info.cgroup,
    })
}

#[repr(C)]
#[derive(Default)]
struct QueryRequest {
    ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    pad: u32,
    ids_flags: u64,
    link_ids: u64,
    link_flags: u64,
    revision: u64,
}

/// Whether this kernel has tcx (Linux 6.6).
pub fn is_supported() -> bool {
    /// The loopback device has this number in every namespace.
    const LOOPBACK: u32 = 1;
    let mut request = QueryRequest {
        ifindex: LOOPBACK,
        attach_type: Direction::Ingress as u32,
        ..Default::default()
    };
    // SAFETY: the request holds no addresses.
    match unsafe { call(Command::ProgQuery, &mut request) } {
        Ok(_) => true,
        // Nothing was ever attached there.
        Err(error) => error.raw_os_error() == Some(libc::ENOENT),
    }
}
