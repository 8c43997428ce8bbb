//! The datapath of a node: programs, maps, and where they are attached.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    ops::Deref,
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
};

use tombolo_abi::Hook;

use crate::{
    Attach, Error, Packet, Result, Run, Tables,
    attach::{self, Target},
    bpf, object,
    pins::Pins,
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
}

impl Default for Options {
    fn default() -> Self {
        Self {
            directory: "/sys/fs/bpf/tombolo".into(),
            attach: Attach::Auto,
            track_flows: false,
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
    programs: BTreeMap<Hook, OwnedFd>,
    pins: Pins,
    attach: Attach,
}

impl Datapath {
    /// Makes the maps, or takes those that are pinned; loads the programs, once for all devices.
    ///
    /// Where all maps were there, the programs that are attached are replaced by these at once, so
    /// that an upgrade is a restart. Where they are new (no agent of this ABI version has run), those
    /// that are attached stay, and serve from their own maps, until the new ones are filled and
    /// [`Datapath::replace_programs`] is called.
    ///
    /// # Errors
    /// [`Error::NotBpffs`], [`Error::MapMismatch`], [`Error::ProgramLoad`] and others; what is
    /// attached stays attached.
    pub fn load(options: &Options) -> Result<Self> {
        let pins = Pins::make(&options.directory)?;
        let loaded = object::load(&pins.maps, options.track_flows)?;
        let datapath = Self {
            tables: Tables::new(loaded.maps)?,
            programs: loaded.programs,
            pins,
            attach: options.attach,
        };
        if loaded.maps_reused {
            datapath.replace_programs()?;
        }
        Ok(datapath)
    }

    /// Puts this datapath's programs wherever a program is attached, one by one, each in one step.
    /// What is pinned of devices that are gone is removed.
    pub fn replace_programs(&self) -> Result<()> {
        for (device, hook, pin) in self.pins.attached()? {
            let target = Target {
                hook,
                program: self.program(hook)?.as_fd(),
                device: &device,
                ifindex: 0,
                pin: &pin,
            };
            if !target.replace(None)? {
                tracing::info!(
                    device,
                    hook = hook.word(),
                    "the device of this attachment is gone"
                );
            }
        }
        Ok(())
    }

    /// Attaches a hook's program to a device; fine if it is attached, also under the name that the device
    /// had before.
    pub fn attach(&self, hook: Hook, device: &str, ifindex: u32) -> Result<()> {
        let pin = self.pins.link(device, hook);
        let target = Target {
            hook,
            program: self.program(hook)?.as_fd(),
            device,
            ifindex,
            pin: &pin,
        };
        let tcx = self.attach.is_tcx(hook);
        match target.attach(tcx) {
            // A device takes a program once, and has this one by a link that is pinned elsewhere.
            Err(Error::Attach { source, .. })
                if source.kind() == io::ErrorKind::AlreadyExists && self.take_name(&target)? =>
            {
                target.attach(tcx)
            }
            done => done,
        }
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
        for hook in Hook::ALL {
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

    /// Runs a program on a packet, with the maps as they are; it is counted like any other. Redirects
    /// are decided, but not done.
    pub fn test_run(&self, hook: Hook, packet: &Packet<'_>) -> Result<Run> {
        bpf::program::test_run(self.program(hook)?, packet).map_err(|source| Error::Run {
            hook: hook.word(),
            source,
        })
    }

    fn program(&self, hook: Hook) -> Result<&OwnedFd> {
        self.programs
            .get(&hook)
            .ok_or_else(|| Error::Object(format!("no program {}", hook.word())))
    }
}

impl Deref for Datapath {
    type Target = Tables;

    fn deref(&self) -> &Tables {
        &self.tables
    }
}
