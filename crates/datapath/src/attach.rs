//! Programs at devices: attach, replace, detach.
//!
//! Nothing is ever detached to be attached again: a program is replaced in place, and no packet goes
//! by without one.

use std::{
    fs, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

use nix::net::if_::if_nametoindex;
use tombolo_abi::Hook;

use crate::{
    Error, Result,
    bpf::{
        self,
        link::{self, Direction},
    },
    clsact,
    pins::{replacing, unpin},
};

/// How programs are attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attach {
    /// By tcx where the kernel has it (Linux 6.6), but to pods' links by clsact: the kernel waits for
    /// all its readers (RCU) in each attachment of a tcx link and in the end of its device, under the
    /// lock of all network configuration. Two programs cost a pod 20 ms, one pod after the other.
    #[default]
    Auto,
    /// By tcx links.
    Tcx,
    /// By filters of a clsact qdisc.
    Clsact,
}

impl Attach {
    /// Whether a hook's program is attached by tcx, on this kernel.
    pub fn is_tcx(self, hook: Hook) -> bool {
        match self {
            Self::Auto => !matches!(hook, Hook::FromPod | Hook::ToPod) && link::is_supported(),
            Self::Tcx => true,
            Self::Clsact => false,
        }
    }
}

/// A program and where it goes.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// Which program it is.
    pub hook: Hook,
    /// Which packets it sees.
    pub direction: Direction,
    /// The program.
    pub program: BorrowedFd<'a>,
    /// The device's name.
    pub device: &'a str,
    /// The device's index.
    pub ifindex: u32,
    /// Where what attaches it is pinned.
    pub pin: &'a Path,
}

/// What a program is attached by.
enum Attached {
    Link { link: OwnedFd, program: u32 },
    Filter { ifindex: u32, program: u32 },
}

/// Which packets a hook's program sees.
pub const fn direction(hook: Hook) -> Result<Direction> {
    match hook {
        Hook::FromPod | Hook::FromOverlay | Hook::FromUplink => Ok(Direction::Ingress),
        Hook::ToPod | Hook::ToOverlay | Hook::ToUplink => Ok(Direction::Egress),
        Hook::SockConnect | Hook::SockSendmsg | Hook::SockBind => Err(Error::NoDevice(hook.word())),
    }
}

impl Target<'_> {
    fn error(&self, what: &'static str, source: io::Error) -> Error {
        failed(what, self.hook, self.device, source)
    }

    /// Whether a program is attached there, by what is pinned.
    pub fn is_attached(&self) -> Result<bool> {
        let pinned = match bpf::open(self.pin, false) {
            Ok(pinned) => pinned,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(source) => {
                return Err(Error::Pin {
                    what: "open",
                    path: self.pin.to_owned(),
                    source,
                });
            }
        };
        match link::state(pinned.as_fd()) {
            Some(state) => Ok(state.ifindex == self.ifindex),
            None => clsact::is_attached(self.ifindex, self.direction).map_err(|e| self.error("look at", e)),
        }
    }

    /// Attaches the program where none is attached; replaces the one that is there, if so wanted.
    pub fn attach(&self, tcx: bool, replace: bool) -> Result<()> {
        if let Some(attached) = self.attached(Some(self.ifindex))? {
            return if replace { self.put(&attached) } else { Ok(()) };
        }
        if tcx {
            let link = link::create(self.program, self.ifindex, self.direction)
                .map_err(|e| self.error("attach", e))?;
            self.pin(link.as_fd())
        } else {
            // A pin without a filter is nothing; a filter without a pin would be forgotten.
            self.pin(self.program)?;
            let attached = clsact::attach(self.program, self.ifindex, self.direction);
            attached.or_else(|error| {
                unpin(self.pin)?;
                Err(self.error("attach", error))
            })
        }
    }

    /// Replaces the program where one is attached; `false`: none is.
    pub fn replace(&self) -> Result<bool> {
        match self.attached(None)? {
            Some(attached) => self.put(&attached).map(|()| true),
            None => Ok(false),
        }
    }

    /// What is attached. What was pinned of a device that is gone (or, with `ifindex`, of another) is removed.
    fn attached(&self, ifindex: Option<u32>) -> Result<Option<Attached>> {
        if !self.pin.exists() {
            return Ok(None);
        }
        let pinned = bpf::open(self.pin, false).map_err(|source| Error::Pin {
            what: "open",
            path: self.pin.to_owned(),
            source,
        })?;
        let attached = if let Some(state) = link::state(pinned.as_fd()) {
            let is_there = state.ifindex != 0 && ifindex.is_none_or(|wanted| wanted == state.ifindex);
            is_there.then_some(Attached::Link {
                link: pinned,
                program: state.program,
            })
        } else {
            // The program of a filter: the device has it as long as it has the filter.
            let program = bpf::program::id(pinned.as_fd()).map_err(|e| self.error("look at", e))?;
            let at = ifindex.or_else(|| if_nametoindex(self.device).ok());
            at.filter(|at| clsact::is_attached(*at, self.direction).unwrap_or(false))
                .map(|ifindex| Attached::Filter { ifindex, program })
        };
        if attached.is_none() {
            unpin(self.pin)?;
        }
        Ok(attached)
    }

    /// Puts the program in the place of the one that is attached.
    fn put(&self, attached: &Attached) -> Result<()> {
        let ours = bpf::program::id(self.program).map_err(|e| self.error("replace", e))?;
        match attached {
            Attached::Link { program, .. } | Attached::Filter { program, .. } if *program == ours => Ok(()),
            Attached::Link { link, .. } => {
                link::update(link.as_fd(), self.program).map_err(|e| self.error("replace", e))
            }
            Attached::Filter { ifindex, .. } => {
                clsact::attach(self.program, *ifindex, self.direction)
                    .map_err(|e| self.error("replace", e))?;
                self.repin()
            }
        }
    }

    /// Pins the program in the place of another, in one step: what is attached always has a pin.
    fn repin(&self) -> Result<()> {
        let replacing = replacing(self.pin);
        let failed = |source| Error::Pin {
            what: "replace",
            path: self.pin.to_owned(),
            source,
        };
        unpin(&replacing)?;
        bpf::pin(self.program, &replacing).map_err(failed)?;
        fs::rename(&replacing, self.pin).map_err(failed)
    }

    fn pin(&self, fd: BorrowedFd<'_>) -> Result<()> {
        bpf::pin(fd, self.pin).map_err(|source| Error::Pin {
            what: "pin",
            path: self.pin.to_owned(),
            source,
        })
    }
}

/// Whether what is pinned there is a link at the device of that index.
pub fn is_at(pin: &Path, ifindex: u32) -> Result<bool> {
    let pinned = bpf::open(pin, false).map_err(|source| Error::Pin {
        what: "open",
        path: pin.to_owned(),
        source,
    })?;
    Ok(link::state(pinned.as_fd()).is_some_and(|state| state.ifindex == ifindex))
}

/// Detaches what is pinned there; fine if the device is gone.
pub fn detach(device: &str, hook: Hook, pin: &Path) -> Result<()> {
    let pinned = match bpf::open(pin, false) {
        Ok(pinned) => pinned,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(Error::Pin {
                what: "open",
                path: pin.to_owned(),
                source,
            });
        }
    };
    if link::state(pinned.as_fd()).is_none()
        && let Ok(ifindex) = if_nametoindex(device)
    {
        clsact::detach(ifindex, direction(hook)?).map_err(|e| failed("detach", hook, device, e))?;
    }
    // A link is detached when the last who holds it lets go.
    unpin(pin)
}

fn failed(what: &'static str, hook: Hook, device: &str, source: io::Error) -> Error {
    let hint = match source.raw_os_error() {
        Some(libc::ENODEV) => ": the device is gone, or is in another network namespace",
        Some(libc::EINVAL) => ": does the kernel have tcx (Linux 6.6)? `--attach clsact` does without",
        Some(libc::EPERM) => ": this needs root, or CAP_BPF and CAP_NET_ADMIN",
        _ => "",
    };
    Error::Attach {
        what,
        hook: hook.word(),
        device: device.to_owned(),
        source,
        hint,
    }
}
