//! Where processes of a lab run: the namespaces and the control group of a node, a pod, or a host beside
//! the cluster.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use nix::sched::{CloneFlags, setns};
use tombolo_netlink::Namespace;

use crate::cgroup::Cgroup;
use crate::error::{Result, system};
use crate::mount_namespace::MountNamespace;
use crate::pod::PodRecord;
use crate::state::LabDir;

/// The name of the router's place: the broader network around the cluster.
pub const ROUTER: &str = "router";
/// The name of the outside host's place.
pub const OUTSIDE: &str = "outside";
/// The name of the place of the API server and the operator: this machine's namespaces.
pub const CONTROL: &str = "control";

/// A place to run processes in. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Place(Arc<Handles>);

#[derive(Debug)]
struct Handles {
    cgroup: OwnedFd,
    mount: Option<MountNamespace>,
    net: Option<Namespace>,
}

impl Place {
    /// This machine's namespaces, in a control group of the lab.
    pub fn control(lab: &LabDir) -> Result<Self> {
        Self::new(&lab.cgroup()?.child(CONTROL), None, None)
    }

    /// The router or the outside host: this machine's files, a network of their own.
    pub fn beside(lab: &LabDir, name: &str) -> Result<Self> {
        Self::new(
            &lab.cgroup()?.child(name),
            None,
            Some(Namespace::open(&lab.netns(name))?),
        )
    }

    /// A node.
    pub fn node(lab: &LabDir, node: &str) -> Result<Self> {
        let mount = MountNamespace::open(&lab.mountns(node))?;
        Self::new(
            &lab.cgroup()?.child(node),
            Some(mount),
            Some(Namespace::open(&lab.netns(node))?),
        )
    }

    /// A pod: its node's files, its own network.
    pub fn pod(lab: &LabDir, pod: &PodRecord) -> Result<Self> {
        let path = lab.mountns(&pod.node);
        let mount = MountNamespace::open(&path)?;
        let net = mount.run(&path, || Ok(Namespace::open(&pod.netns)?))?;
        Self::new(&pod.cgroup(lab)?, Some(mount), Some(net))
    }

    fn new(cgroup: &Cgroup, mount: Option<MountNamespace>, net: Option<Namespace>) -> Result<Self> {
        cgroup.create()?;
        Ok(Self(Arc::new(Handles {
            cgroup: cgroup.procs()?,
            mount,
            net,
        })))
    }

    /// Moves the calling process in. It must have one thread only. Allocates nothing, so that it may run
    /// between `fork` and `exec`.
    fn enter(&self) -> io::Result<()> {
        let Handles { cgroup, mount, net } = &*self.0;
        nix::unistd::write(cgroup, b"0")?;
        if let Some(mount) = mount {
            setns(mount.as_fd(), CloneFlags::CLONE_NEWNS)?;
        }
        if let Some(net) = net {
            setns(net.as_fd(), CloneFlags::CLONE_NEWNET)?;
        }
        Ok(())
    }

    /// A command that will run here.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let place = self.clone();
        // SAFETY: `enter` makes system calls only; it neither allocates nor takes locks.
        unsafe { command.pre_exec(move || place.enter()) };
        command
    }

    /// Starts a process that outlives this one, with what it says going to `log`.
    pub fn start(&self, program: &Path, args: &[&str], log: &Path) -> Result<Child> {
        let (out, err) = log_files(log)?;
        let mut command = self.command(program);
        command.args(args).stdin(Stdio::null()).stdout(out).stderr(err);
        // A signal to the terminal's foreground group, such as Ctrl-C, is not for the lab.
        command.process_group(0);
        command.spawn().map_err(system("start", program))
    }
}

/// The two ends that a process writes to.
pub fn log_files(log: &Path) -> Result<(File, File)> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .map_err(system("open", log))?;
    let second = file.try_clone().map_err(system("open", log))?;
    Ok((file, second))
}

/// The last lines of a log, for people.
pub fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..]
        .iter()
        .map(|line| format!("  {line}\n"))
        .collect()
}
