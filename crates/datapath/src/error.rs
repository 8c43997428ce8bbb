use std::{io, path::PathBuf};

use tombolo_abi::ABI_VERSION;

/// What this crate returns.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong between the user side and the kernel side.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The embedded object is broken.
    #[error("the embedded eBPF object cannot be used ({0}): this build is broken, rebuild it")]
    Object(String),
    /// No bpffs where the pins are to be.
    #[error(
        "{0} is not on a bpffs: mount the machine's (mount -t bpf bpf /sys/fs/bpf); where this runs in a container, mount \
         the host's /sys/fs/bpf into it. Programs and tables are pinned there to outlive this process, which a bpffs \
         that goes with its container would not let them"
    )]
    NotBpffs(PathBuf),
    /// A folder or pin cannot be used.
    #[error("cannot {what} {}: {source}", .path.display())]
    Pin {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused to make a map.
    #[error("the kernel refuses to make the map {map}: {source} (as root, or with CAP_BPF?)")]
    MapCreate {
        /// The map.
        map: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A pinned map is not of this build's shape.
    #[error(
        "the map pinned at {} has {found}, this build needs {wanted}: it was made by a build that did not raise \
         ABI_VERSION; `tombolo uninstall` removes it (and cuts the pods off until the agent starts again)",
        .path.display()
    )]
    MapMismatch {
        /// The pin.
        path: PathBuf,
        /// The shape that is there.
        found: String,
        /// The shape that is wanted.
        wanted: String,
    },
    /// Tables of an ABI version that cannot be taken over from.
    #[error(
        "{} holds tables of ABI version {found}, and this build, of version {ours}, takes over those of one version \
         before or after only: run a build of version {step} first (pods stay connected meanwhile), or remove them \
         with `tombolo uninstall` (which cuts the pods off until the agent starts again)",
        .path.display(),
        ours = ABI_VERSION,
        step = if *.found > ABI_VERSION { found - 1 } else { found + 1 }
    )]
    UnknownAbi {
        /// The folder of the tables.
        path: PathBuf,
        /// Their version.
        found: u32,
    },
    /// A map of a neighbouring ABI version whose rows cannot be carried over.
    #[error(
        "the map pinned at {} has {found}, and this build needs {wanted}: keys differ, which no ABI version may \
         change, so one of the two builds is broken; start the one that ran here before",
        .path.display()
    )]
    Unconvertible {
        /// The pin.
        path: PathBuf,
        /// The shape that is there.
        found: String,
        /// The shape that is wanted.
        wanted: String,
    },
    /// The verifier refused a program.
    #[error(
        "the kernel refuses the program {program}: {source}; is it older than 6.1, or built without features that \
         are needed? The verifier ends with:\n{log}"
    )]
    ProgramLoad {
        /// The program.
        program: &'static str,
        /// What the kernel said.
        source: io::Error,
        /// The end of the verifier's log.
        log: String,
    },
    /// A program cannot be attached to, replaced at, or detached from a device.
    #[error("cannot {what} {hook} at {device}: {source}{hint}")]
    Attach {
        /// What was tried.
        what: &'static str,
        /// The program.
        hook: &'static str,
        /// The device.
        device: String,
        /// What the kernel said.
        source: io::Error,
        /// What to do about it.
        hint: &'static str,
    },
    /// Programs cannot be attached to the processes of a control group.
    #[error("cannot {what} the control group {}: {source}{hint}", .path.display())]
    Cgroup {
        /// What was tried.
        what: &'static str,
        /// The group's folder.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
        /// What to do about it.
        hint: &'static str,
    },
    /// A hook that is at no device.
    #[error("{0} is a hook of sockets: it has no device, and sees no packets")]
    NoDevice(&'static str),
    /// The sockets of a network namespace cannot be listed or ended.
    #[error("cannot {what} the UDP sockets of this network namespace: {source}{hint}")]
    Sockets {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
        /// What to do about it.
        hint: &'static str,
    },
    /// A read or write of a map failed.
    #[error("cannot {what} the map {map}: {source}")]
    Map {
        /// What was tried.
        what: &'static str,
        /// The map.
        map: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// More rows than a map holds.
    #[error("the map {map} holds {capacity} entries, and {wanted} are needed: nothing was changed")]
    TableFull {
        /// The map.
        map: &'static str,
        /// Its size.
        capacity: usize,
        /// What it was asked to hold.
        wanted: usize,
    },
    /// A test run failed.
    #[error("cannot run {hook} on a packet: {source}")]
    Run {
        /// The program.
        hook: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}
