//! UDP sockets as sock_diag(7) knows them: list, and end.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use tombolo_abi::Addr;

use crate::{Error, Result};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
/// `TCP_ESTABLISHED`, which connected UDP sockets are said to be in.
const CONNECTED: u32 = 1;
const HEADER: usize = 16;

/// A connected UDP socket.
#[derive(Clone, Copy, Debug)]
pub struct Connected {
    family: u8,
    id: SocketId,
    /// Its cookie.
    pub cookie: u64,
    /// To which address.
    pub address: Addr,
    /// To which port (network byte order).
    pub port: u16,
}

/// `struct inet_diag_sockid`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct SocketId {
    source_port: u16,
    destination_port: u16,
    source: [u32; 4],
    destination: [u32; 4],
    device: u32,
    cookie: [u32; 2],
}

/// `struct inet_diag_req_v2`.
#[repr(C)]
struct Request {
    family: u8,
    protocol: u8,
    extensions: u8,
    pad: u8,
    states: u32,
    id: SocketId,
}

/// `struct inet_diag_msg`, as far as it is read.
#[repr(C)]
#[derive(Clone, Copy)]
struct Message {
    family: u8,
    state: u8,
    timer: u8,
    retransmits: u8,
    id: SocketId,
}

const _: () = assert!(size_of::<Request>() == 56);
const _: () = assert!(size_of::<Message>() == 52);

/// The connected UDP sockets of the thread's network namespace.
pub fn connected() -> Result<Vec<Connected>> {
    let mut found = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let request = Request {
            family: family as u8,
            protocol: libc::IPPROTO_UDP as u8,
            extensions: 0,
            pad: 0,
            states: 1 << CONNECTED,
            id: SocketId::default(),
        };
        ask(SOCK_DIAG_BY_FAMILY, libc::NLM_F_DUMP, &request, &mut |message| {
            let SocketId {
                destination,
                destination_port,
                cookie,
                ..
            } = message.id;
            found.push(Connected {
                family: message.family,
                id: message.id,
                cookie: u64::from(cookie[1]) << 32 | u64::from(cookie[0]),
                address: if i32::from(message.family) == libc::AF_INET {
                    Addr::from_v4_word(destination[0])
                } else {
                    Addr(destination)
                },
                port: destination_port,
            });
        })
        .map_err(|source| failed("list", source))?;
    }
    Ok(found)
}

/// Ends a socket: it is connected no more. Its process is told `ECONNABORTED` where it receives, and `EDESTADDRREQ`
/// where it sends. `false`: it has gone by itself.
pub fn end(socket: &Connected) -> Result<bool> {
    let request = Request {
        family: socket.family,
        protocol: libc::IPPROTO_UDP as u8,
        extensions: 0,
        pad: 0,
        states: 1 << CONNECTED,
        id: socket.id,
    };
    match ask(SOCK_DESTROY, libc::NLM_F_ACK, &request, &mut |_| {}) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESTALE)) => Ok(false),
        Err(error) => Err(failed("end", error)),
    }
}

fn failed(what: &'static str, source: io::Error) -> Error {
    let hint = match source.raw_os_error() {
        Some(libc::ENOENT) => ": the kernel is built without CONFIG_INET_UDP_DIAG",
        Some(libc::EOPNOTSUPP) => ": the kernel is built without CONFIG_INET_DIAG_DESTROY",
        Some(libc::EPERM) => ": this needs root, or CAP_NET_ADMIN",
        _ => "",
    };
    Error::Sockets { what, source, hint }
}

/// Makes a request, and hears its answers to the end.
fn ask(kind: u16, flags: libc::c_int, request: &Request, each: &mut dyn FnMut(Message)) -> io::Result<()> {
    let socket: OwnedFd = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )?;
    let flags = (flags | libc::NLM_F_REQUEST) as u16;
    let mut bytes = ((HEADER + size_of::<Request>()) as u32).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    // Sequence number and sender: one request to a socket needs neither.
    bytes.extend([0; 8]);
    // SAFETY: plain integers without padding.
    bytes.extend(unsafe {
        std::slice::from_raw_parts(std::ptr::from_ref(request).cast::<u8>(), size_of::<Request>())
    });
    send(socket.as_raw_fd(), &bytes, MsgFlags::empty())?;
    let mut answer = vec![0; 1 << 16];
    loop {
        let len = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        let mut rest = &answer[..len];
        while let Some((header, body)) = rest.split_first_chunk::<HEADER>() {
            let len = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
            let body = &body[..body.len().min(len.saturating_sub(HEADER))];
            match u16::from_ne_bytes([header[4], header[5]]) {
                kind if [libc::NLMSG_DONE, libc::NLMSG_ERROR].contains(&i32::from(kind)) => {
                    let code = body
                        .first_chunk::<4>()
                        .map_or(0, |code| i32::from_ne_bytes(*code));
                    return if code == 0 {
                        Ok(())
                    } else {
                        Err(io::Error::from_raw_os_error(-code))
                    };
                }
                _ if body.len() >= size_of::<Message>() => {
                    // SAFETY: as many bytes are there, and any are a message.
                    each(unsafe { std::ptr::read_unaligned(body.as_ptr().cast::<Message>()) });
                }
                _ => {}
            }
            rest = rest
                .get(len.max(HEADER).next_multiple_of(4)..)
                .unwrap_or_default();
        }
    }
}
