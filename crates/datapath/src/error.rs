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
    /// A newer release has its maps there.
    #[error(
        "{} is of a newer release than this one, whose version is {ABI_VERSION}: beside its maps this one would run \
         the pods by tables of its own. Run that release again; or, to go back to this one, `tombolo uninstall` of that \
         release removes them (and cuts the pods off until the agent starts again)",
        .0.display()
    )]
    NewerAbi(PathBuf),
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
