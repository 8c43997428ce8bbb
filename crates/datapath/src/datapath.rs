//! The datapath of a node: programs, maps, and where they are attached.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    ops::Deref,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use tombolo_abi::{ABI_VERSION, Backend, BackendState, Hook, SocketKey, Timeouts, map};

use crate::{
    Attach, Error, Packet, Result, Run, Tables,
    attach::{self, Target},
    bpf::{self, link},
    object::{Constants, Embedded, Programs},
    pins::Pins,
    sock_diag, sockets,
    staging::{self, Staged},
    takeover,
};

/// How a datapath is loaded.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where maps and links are pinned: a folder on a bpffs; made if it is missing.
    pub directory: PathBuf,
    /// How programs are attached.
    pub attach: Attach,
    /// Whether flows are tracked.
    pub track_flows: bool,
    /// When flows end.
    pub timeouts: Timeouts,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            directory: "/sys/fs/bpf/tombolo".into(),
            attach: Attach::Auto,
            track_flows: false,
            timeouts: Timeouts::DEFAULT,
        }
    }
}

/// The datapath of a node. Derefs to its [`Tables`].
///
/// Devices are those of the calling thread's network namespace. Dropping it changes nothing in the
/// kernel.
#[derive(Debug)]
pub struct Datapath {
    tables: Tables,
    programs: Programs,
    pins: Pins,
    attach: Attach,
    track_flows: bool,
    timeouts: Timeouts,
}

impl Datapath {
    /// Makes the maps, or takes those that are pinned; loads the programs, once for all devices.
    ///
    /// Where the maps hold what is known of the node, those of this ABI version or of the one before or after,
    /// the programs that are attached are replaced by these at once, so that an upgrade is a restart. Where they
    /// had to be made anew, those that are attached stay, and serve from their own maps, until the new ones are
    /// filled and [`Datapath::replace_programs`] is called.
    ///
    /// Killed at any moment, it leaves every device with a program whose tables are filled; the next call, of
    /// this build's version or of the other one, goes on from there.
    ///
    /// # Errors
    /// [`Error::NotBpffs`], [`Error::UnknownAbi`], [`Error::MapMismatch`], [`Error::ProgramLoad`] and others;
    /// what is attached stays attached.
    pub fn load(options: &Options) -> Result<Self> {
        let pins = Pins::make(&options.directory)?;
        let object = Embedded::parse()?;
        let Staged { maps, filled } = staging::maps(&pins, &object)?;
        let constants = Constants {
            track_flows: options.track_flows,
            timeouts: options.timeouts,
            neighbour_flows: None,
        };
        let datapath = Self {
            programs: object.programs(&maps, constants)?,
            tables: Tables::new(maps)?,
            pins,
            attach: options.attach,
            track_flows: options.track_flows,
            timeouts: options.timeouts,
        };
        if filled || datapath.pins.attached()?.is_empty() {
            datapath.replace_programs()?;
        }
        Ok(datapath)
    }

    /// Puts this datapath's programs wherever a program is attached, one by one, each in one step. Its tables are
    /// filled; those of another ABI version go when its last flows have been carried over.
    /// What is pinned of devices that are gone is removed.
    ///
    /// # Errors
    /// The first that was met; all is done that can be, and it can be tried again.
    pub fn replace_programs(&self) -> Result<()> {
        self.pins.publish()?;
        for version in self.pins.neighbours()? {
            self.take_over(version)?;
        }
        self.put(&self.programs)
    }

    /// Takes over from the programs of another ABI version.
    fn take_over(&self, version: u32) -> Result<()> {
        let path = self.pins.maps_of(version).join(map::FLOWS);
        let ours = self.tables.flows().map();
        let theirs = match bpf::open(&path, false) {
            Ok(theirs) => Some(theirs),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => {
                return Err(Error::Pin {
                    what: "open",
                    path,
                    source,
                });
            }
        };
        if let Some(theirs) = theirs
            && !takeover::is_same(&theirs, ours)?
        {
            let constants = Constants {
                track_flows: self.track_flows,
                timeouts: self.timeouts,
                neighbour_flows: Some(&theirs),
            };
            let object = Embedded::parse()?;
            let maps = staging::open(&self.pins.maps(), &object)?;
            self.put_packets(&object.packet_programs(&maps, constants)?)?;
            let flows = takeover::copy_flows(version, &theirs, ours)?;
            self.arm_flows()?;
            tracing::info!(from = version, to = ABI_VERSION, flows, "carried the flows over");
        }
        self.put(&self.programs)?;
        self.pins.retire(version)?;
        tracing::info!(
            from = version,
            to = ABI_VERSION,
            "took over from another ABI version"
        );
        Ok(())
    }

    /// Starts the timers of flows that have none.
    fn arm_flows(&self) -> Result<()> {
        /// The least that a test run takes.
        const FRAME: [u8; 64] = [0; 64];
        let object = Embedded::parse()?;
        let maps = staging::open(&self.pins.maps(), &object)?;
        let constants = Constants {
            timeouts: self.timeouts,
            ..Constants::default()
        };
        let packet = Packet {
            frame: &FRAME,
            ..Packet::default()
        };
        bpf::program::test_run(&object.arming(&maps, constants)?, &packet)
            .map(drop)
            .map_err(|source| Error::Run {
                hook: "arm_flows",
                source,
            })
    }

    /// Puts programs wherever one is attached; returns the first error when all is done that can be.
    fn put(&self, programs: &Programs) -> Result<()> {
        let result = self.put_packets(&programs.packets);
        result.and(sockets::replace(&self.pins, &programs.sockets))
    }

    /// The same with those of devices.
    fn put_packets(&self, programs: &BTreeMap<Hook, OwnedFd>) -> Result<()> {
        let mut result = Ok(());
        for (device, hook, pin) in self.pins.attached()? {
            let target = Target {
                hook,
                direction: attach::direction(hook)?,
                program: program(programs, hook)?.as_fd(),
                device: &device,
                ifindex: 0,
                pin: &pin,
            };
            match target.replace() {
                Ok(true) => {}
                Ok(false) => tracing::info!(
                    device,
                    hook = hook.word(),
                    "the device of this attachment is gone"
                ),
                Err(error) => result = result.and(Err(error)),
            }
        }
        result
    }

    /// Attaches a hook's program to a device; fine if it is attached, also under the name that the device had
    /// before. One whose tables wait for their rows does not replace another.
    pub fn attach(&self, hook: Hook, device: &str, ifindex: u32) -> Result<()> {
        self.attach_by(self.attach, hook, device, ifindex)
    }

    /// The same, and leaves the device's ingress qdisc to somebody else: by tcx, which needs none, where
    /// the kernel has it (Linux 6.6).
    pub fn attach_beside(&self, hook: Hook, device: &str, ifindex: u32) -> Result<()> {
        let attach = if link::is_supported() {
            Attach::Tcx
        } else {
            self.attach
        };
        self.attach_by(attach, hook, device, ifindex)
    }

    fn attach_by(&self, attach: Attach, hook: Hook, device: &str, ifindex: u32) -> Result<()> {
        let pin = self.pins.link(device, hook);
        let target = Target {
            hook,
            direction: attach::direction(hook)?,
            program: program(&self.programs.packets, hook)?.as_fd(),
            device,
            ifindex,
            pin: &pin,
        };
        let put = || target.attach(attach.is_tcx(hook), !self.pins.staged().exists());
        match put() {
            // A device takes a program once, and has this one by a link that is pinned elsewhere.
            Err(Error::Attach { source, .. })
                if source.kind() == io::ErrorKind::AlreadyExists && self.take_name(&target)? =>
            {
                put()
            }
            done => done,
        }
    }

    /// Whether a hook's program is attached to a device.
    ///
    /// # Errors
    /// [`Error::Pin`] and [`Error::Attach`]: the kernel does not say.
    pub fn is_attached(&self, hook: Hook, device: &str, ifindex: u32) -> Result<bool> {
        let pin = self.pins.link(device, hook);
        Target {
            hook,
            direction: attach::direction(hook)?,
            program: program(&self.programs.packets, hook)?.as_fd(),
            device,
            ifindex,
            pin: &pin,
        }
        .is_attached()
    }

    /// Gives the pin of a renamed device its name of now; false: there is no such pin.
    fn take_name(&self, target: &Target<'_>) -> Result<bool> {
        for (_, hook, pin) in self.pins.attached()? {
            if hook == target.hook && attach::is_at(&pin, target.ifindex)? {
                fs::rename(&pin, target.pin).map_err(|source| Error::Pin {
                    what: "rename",
                    path: pin,
                    source,
                })?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Detaches all programs from a device; fine if none is attached, or the device is gone.
    pub fn detach(&self, device: &str) -> Result<()> {
        for hook in self.programs.packets.keys() {
            attach::detach(device, *hook, &self.pins.link(device, *hook))?;
        }
        Ok(())
    }

    /// What is attached where, by the devices' names.
    pub fn attachments(&self) -> Result<BTreeSet<(String, Hook)>> {
        Ok(self
            .pins
            .attached()?
            .into_iter()
            .map(|(device, hook, _)| (device, hook))
            .collect())
    }

    /// Attaches the programs of sockets to a control group (of version 2) and all below it: processes that start there
    /// reach Services by their sockets, where [`Tables::netns`] knows their network namespace. Fine if they are
    /// attached; from another group they go. Programs whose tables wait for their rows do not replace others.
    ///
    /// # Errors
    /// [`Error::Cgroup`] and [`Error::Pin`]; it can be tried again. What is attached is harmless without the rest.
    pub fn attach_sockets(&self, cgroup: &Path) -> Result<()> {
        sockets::attach(
            &self.pins,
            &self.programs.sockets,
            cgroup,
            !self.pins.staged().exists(),
        )
    }

    /// Detaches the programs of sockets; fine if they are not attached. Pods reach Services by their packets then, and
    /// the node itself does not reach them.
    pub fn detach_sockets(&self) -> Result<()> {
        sockets::detach(&self.pins)
    }

    /// Whether the programs of sockets are attached to a control group.
    pub fn are_sockets_attached(&self, cgroup: &Path) -> Result<bool> {
        sockets::are_attached(&self.pins, cgroup)
    }

    /// Ends the connected UDP sockets of the thread's network namespace, which is the node's, that speak in a Service's
    /// name with a backend that no longer serves: each is told `ECONNABORTED`, is connected no more, and may connect
    /// again. Those that have connected to the backend's address itself stay. Returns how many were ended.
    ///
    /// # Errors
    /// [`Error::Sockets`], of the first that could not be ended; the others were.
    pub fn end_sockets(&self) -> Result<usize> {
        let mut ended = 0;
        let mut outcome = Ok(());
        for socket in sock_diag::connected()? {
            match self
                .is_left(&socket)
                .and_then(|left| Ok(left && sock_diag::end(&socket)?))
            {
                Ok(was_ended) => ended += usize::from(was_ended),
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        outcome.map(|()| ended)
    }

    /// Whether a socket has a backend in a Service's name, and this one no longer serves.
    fn is_left(&self, socket: &sock_diag::Connected) -> Result<bool> {
        let key = SocketKey {
            cookie: socket.cookie,
            address: socket.address,
            port: socket.port,
            way: SocketKey::FROM_BACKEND,
            pad: 0,
        };
        let Some(peer) = self.tables.socket_peers().get(&key)? else {
            return Ok(false);
        };
        let serves = |backend: &Backend| {
            backend.state == BackendState::Serving as u8
                && (backend.address, backend.port) == (socket.address, socket.port)
        };
        Ok(!self
            .tables
            .backends()
            .get(peer.backend)?
            .is_some_and(|row| serves(&row)))
    }

    /// Runs a program on a packet, with the maps as they are; it is counted like any other. Redirects
    /// are decided, but not done.
    pub fn test_run(&self, hook: Hook, packet: &Packet<'_>) -> Result<Run> {
        bpf::program::test_run(program(&self.programs.packets, hook)?, packet).map_err(|source| Error::Run {
            hook: hook.word(),
            source,
        })
    }
}

fn program(programs: &BTreeMap<Hook, OwnedFd>, hook: Hook) -> Result<&OwnedFd> {
    let missing = || Error::Object(format!("no program {}", hook.word()));
    programs.get(&hook).ok_or_else(missing)
}

impl Deref for Datapath {
    type Target = Tables;

    fn deref(&self) -> &Tables {
        &self.tables
    }
}
