//! Programs at the sockets of a control group: attach, replace, detach; and the sockets themselves, as far as Services
//! are concerned.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::Path,
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::{
    Error, Result,
    bpf::{
        self,
        link::{self, CgroupState},
        program::{self, SocketCall},
    },
    pins::{Pins, unpin},
};

/// The programs' names, which are those of their pins too. In the order in which they are attached: who learns of a
/// backend's address can already be told the Service's.
pub const PROGRAMS: [(SocketCall, &str); 10] = [
    (SocketCall::Bind4, "sock_bind4"),
    (SocketCall::Bind6, "sock_bind6"),
    (SocketCall::Getpeername4, "sock_getpeername4"),
    (SocketCall::Getpeername6, "sock_getpeername6"),
    (SocketCall::Recvmsg4, "sock_recvmsg4"),
    (SocketCall::Recvmsg6, "sock_recvmsg6"),
    (SocketCall::Sendmsg4, "sock_sendmsg4"),
    (SocketCall::Sendmsg6, "sock_sendmsg6"),
    (SocketCall::Connect4, "sock_connect4"),
    (SocketCall::Connect6, "sock_connect6"),
];

/// Attaches the programs to a control group; where they are attached to it already, replaces them if so wanted. From
/// another group they go.
pub fn attach(
    pins: &Pins,
    programs: &BTreeMap<SocketCall, OwnedFd>,
    cgroup: &Path,
    replace: bool,
) -> Result<()> {
    let folder = File::open(cgroup).map_err(|e| failed("attach programs to", cgroup)(e))?;
    let id = folder.metadata().map_err(|e| failed("look at", cgroup)(e))?.ino();
    fs::create_dir_all(&pins.sockets).map_err(|source| Error::Pin {
        what: "make",
        path: pins.sockets.clone(),
        source,
    })?;
    for (call, name) in PROGRAMS {
        let pin = pins.sockets.join(name);
        let program = program(programs, call, name)?;
        match pinned(&pin)? {
            Some((link, state)) if state.cgroup == id => {
                if replace {
                    put(&pin, &link, &state, program)?;
                }
                continue;
            }
            Some((link, _)) => take_off(&pin, &link)?,
            None => {}
        }
        let link = link::create_in(program, folder.as_fd(), call)
            .map_err(|e| failed("attach programs to", cgroup)(e))?;
        bpf::pin(link.as_fd(), &pin).map_err(|source| Error::Pin {
            what: "pin",
            path: pin,
            source,
        })?;
    }
    Ok(())
}

/// Puts programs in the place of those that are attached, wherever that is; returns the first error when all is done
/// that can be. What was attached to a group that is gone is forgotten.
pub fn replace(pins: &Pins, programs: &BTreeMap<SocketCall, OwnedFd>) -> Result<()> {
    let mut result = Ok(());
    for (call, name) in PROGRAMS {
        let pin = pins.sockets.join(name);
        let replaced = match pinned(&pin) {
            Ok(Some((_, state))) if state.cgroup == 0 => unpin(&pin),
            Ok(Some((link, state))) => {
                program(programs, call, name).and_then(|program| put(&pin, &link, &state, program))
            }
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        result = result.and(replaced);
    }
    result
}

/// Detaches the programs from wherever they are; fine if they are not.
pub fn detach(pins: &Pins) -> Result<()> {
    for (_, name) in PROGRAMS.iter().rev() {
        let pin = pins.sockets.join(name);
        if let Some((link, _)) = pinned(&pin)? {
            take_off(&pin, &link)?;
        }
    }
    Ok(())
}

/// Whether all programs are attached to a control group.
pub fn are_attached(pins: &Pins, cgroup: &Path) -> Result<bool> {
    let id = match fs::metadata(cgroup) {
        Ok(folder) => folder.ino(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(failed("look at", cgroup)(error)),
    };
    for (_, name) in PROGRAMS {
        match pinned(&pins.sockets.join(name))? {
            Some((_, state)) if state.cgroup == id => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// The cookie of the thread's network namespace: the key of [`Tables::netns`](crate::Tables::netns).
pub fn netns_cookie() -> io::Result<u64> {
    let socket = socket(
        AddressFamily::Unix,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let mut cookie = 0_u64;
    let mut len = size_of::<u64>() as libc::socklen_t;
    // SAFETY: no more is written than there is room for.
    let returned = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    if returned == 0 {
        Ok(cookie)
    } else {
        Err(io::Error::last_os_error())
    }
}

fn pinned(pin: &Path) -> Result<Option<(OwnedFd, CgroupState)>> {
    let failed = |what, source| Error::Pin {
        what,
        path: pin.to_owned(),
        source,
    };
    match bpf::open(pin, false) {
        Ok(link) => match link::cgroup_state(link.as_fd()) {
            Some(state) => Ok(Some((link, state))),
            None => Err(failed("use", io::ErrorKind::InvalidData.into())),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("open", error)),
    }
}

/// A link that only loses its pin is detached at some time after.
fn take_off(pin: &Path, link: &OwnedFd) -> Result<()> {
    link::detach(link.as_fd()).map_err(|source| Error::Pin {
        what: "detach",
        path: pin.to_owned(),
        source,
    })?;
    unpin(pin)
}

fn put(pin: &Path, link: &OwnedFd, state: &CgroupState, program: BorrowedFd<'_>) -> Result<()> {
    let failed = |source| Error::Pin {
        what: "replace the program of",
        path: pin.to_owned(),
        source,
    };
    if program::id(program).map_err(failed)? == state.program {
        return Ok(());
    }
    match link::update(link.as_fd(), program) {
        // The group has gone meanwhile.
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => unpin(pin),
        done => done.map_err(failed),
    }
}

fn program<'a>(
    programs: &'a BTreeMap<SocketCall, OwnedFd>,
    call: SocketCall,
    name: &str,
) -> Result<BorrowedFd<'a>> {
    let missing = || Error::Object(format!("no program {name}"));
    Ok(programs.get(&call).ok_or_else(missing)?.as_fd())
}

fn failed(what: &'static str, cgroup: &Path) -> impl Fn(io::Error) -> Error {
    let path = cgroup.to_owned();
    move |source| {
        let hint = match source.raw_os_error() {
            Some(libc::EBADF | libc::EINVAL) => ": it must be a folder of a cgroup v2 tree",
            Some(libc::EPERM) => {
                ": this needs root, or CAP_BPF and CAP_NET_ADMIN; and somebody else's program there may allow no other"
            }
            Some(libc::ENOENT) => ": is a cgroup v2 tree mounted?",
            _ => "",
        };
        Error::Cgroup {
            what,
            path: path.clone(),
            source,
            hint,
        }
    }
}
