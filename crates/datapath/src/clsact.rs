//! Filters of a clsact qdisc, for kernels without tcx. A filter is replaced in one request, and
//! stays when the process ends.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

use crate::bpf::link::Direction;

/// The priority of the filters that carry our programs: before those of others.
pub const PRIORITY: u16 = 1;

/// Their handle among those of that priority, by which they are known again.
pub const HANDLE: u32 = 0x746f;

/// `TC_H_CLSACT`, both as parent of the qdisc and, with a minor number, of its filters.
const CLSACT: u32 = 0xffff_fff1;
const CLSACT_HANDLE: u32 = 0xffff_0000;
const MIN_INGRESS: u32 = 0xfff2;
const MIN_EGRESS: u32 = 0xfff3;

const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
/// `TCA_BPF_FLAG_ACT_DIRECT`: what the program returns is the verdict.
const ACT_DIRECT: u32 = 1;
/// All EtherTypes.
const ETH_P_ALL: u16 = 3;

/// Attaches a program, or replaces the one that is there, in one step.
pub fn attach(program: BorrowedFd<'_>, ifindex: u32, direction: Direction) -> io::Result<()> {
    let mut qdisc = Request::new(libc::RTM_NEWQDISC, libc::NLM_F_CREATE | libc::NLM_F_EXCL);
    qdisc.tcmsg(ifindex, CLSACT_HANDLE, CLSACT, 0);
    qdisc.attribute(TCA_KIND, b"clsact\0");
    match qdisc.acknowledged() {
        Err(error) if error.raw_os_error() != Some(libc::EEXIST) => return Err(error),
        _ => {}
    }
    let mut filter = Request::new(libc::RTM_NEWTFILTER, libc::NLM_F_CREATE | libc::NLM_F_REPLACE);
    filter.filter(ifindex, direction);
    filter.attribute(TCA_KIND, b"bpf\0");
    let mut options = Vec::new();
    push(&mut options, TCA_BPF_FD, &program.as_raw_fd().to_ne_bytes());
    push(&mut options, TCA_BPF_NAME, b"tombolo\0");
    push(&mut options, TCA_BPF_FLAGS, &ACT_DIRECT.to_ne_bytes());
    filter.attribute(TCA_OPTIONS, &options);
    filter.acknowledged()
}

/// Removes the filter; the qdisc stays, for others may use it. Fine if there is none.
pub fn detach(ifindex: u32, direction: Direction) -> io::Result<()> {
    let mut filter = Request::new(libc::RTM_DELTFILTER, 0);
    filter.filter(ifindex, direction);
    filter.attribute(TCA_KIND, b"bpf\0");
    filter
        .acknowledged()
        .or_else(|error| if is_absent(&error) { Ok(()) } else { Err(error) })
}

/// Whether the filter is there.
pub fn is_attached(ifindex: u32, direction: Direction) -> io::Result<bool> {
    let mut filter = Request::new(libc::RTM_GETTFILTER, 0);
    filter.filter(ifindex, direction);
    filter.attribute(TCA_KIND, b"bpf\0");
    match filter.acknowledged() {
        Ok(()) => Ok(true),
        Err(error) if is_absent(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// No such filter, qdisc (which the kernel calls invalid), or device.
fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::EINVAL | libc::ENODEV)
    )
}

/// A netlink request about traffic control.
struct Request(Vec<u8>);

impl Request {
    fn new(kind: u16, flags: libc::c_int) -> Self {
        let flags = (flags | libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
        let mut bytes = 0_u32.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        // Sequence number and sender: one request to a socket needs neither.
        bytes.extend([0; 8]);
        Self(bytes)
    }

    /// `struct tcmsg`.
    fn tcmsg(&mut self, ifindex: u32, handle: u32, parent: u32, info: u32) {
        // Family and padding.
        self.0.extend([0; 4]);
        for word in [ifindex, handle, parent, info] {
            self.0.extend(word.to_ne_bytes());
        }
    }

    /// Names our filter.
    fn filter(&mut self, ifindex: u32, direction: Direction) {
        let minor = match direction {
            Direction::Ingress => MIN_INGRESS,
            Direction::Egress => MIN_EGRESS,
        };
        let info = u32::from(PRIORITY) << 16 | u32::from(ETH_P_ALL.to_be());
        self.tcmsg(ifindex, HANDLE, CLSACT_HANDLE | minor, info);
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        push(&mut self.0, kind, value);
    }

    /// Sends the request and waits for what the kernel says.
    fn acknowledged(mut self) -> io::Result<()> {
        let len = self.0.len() as u32;
        self.0.splice(0..4, len.to_ne_bytes());
        let socket: OwnedFd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        send(socket.as_raw_fd(), &self.0, MsgFlags::empty())?;
        let mut answer = [0; 8192];
        // What was asked for comes first, if anything was; the acknowledgement ends it.
        loop {
            let len = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
            let mut rest = &answer[..len];
            while let Some((header, body)) = rest.split_first_chunk::<16>() {
                let len = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
                let kind = u16::from_ne_bytes([header[4], header[5]]);
                if i32::from(kind) == libc::NLMSG_ERROR {
                    let code = body
                        .first_chunk::<4>()
                        .map_or(0, |code| i32::from_ne_bytes(*code));
                    return if code == 0 {
                        Ok(())
                    } else {
                        Err(io::Error::from_raw_os_error(-code))
                    };
                }
                rest = rest.get(len.max(16).next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

/// Appends an attribute, padded to four bytes.
fn push(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    bytes.extend((value.len() as u16 + 4).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}
