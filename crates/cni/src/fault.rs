//! Fault points: named steps of an operation at which a test can have it fail, or end its process as kill -9
//! does. They are compiled in by the feature `fault-points` alone, which only dev-dependencies turn on; without
//! it [`at`] is nothing.
//!
//! A test names a file in the environment variable [`FILE`] of the process and arms one fault by writing
//! `<step> error`, `<step> kill` or `<step> pause` into it. Whoever comes by that step removes the file, and
//! fails, ends, or stays there until the file `<FILE>.paused` that he makes is removed.

use std::fmt::{self, Debug};

use crate::error::{Error, code};

/// The environment variable that names the file of the armed fault.
pub const FILE: &str = "TOMBOLO_FAULT_FILE";

/// A step failed because a test wants it so.
#[cfg(feature = "fault-points")]
#[derive(Clone, Debug)]
pub struct Fault(String);

/// Nothing fails where there are no tests.
#[cfg(not(feature = "fault-points"))]
#[derive(Clone, Debug)]
pub struct Fault(std::convert::Infallible);

/// The steps of the plugin. Those of the agent are in its own crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PluginStep {
    /// ADD: everything is checked; the agent is not asked yet.
    AddChecked,
    /// ADD: the agent has made it; nothing is printed yet.
    AddAnswered,
    /// DEL: everything is checked; the agent is not asked yet.
    DelChecked,
    /// DEL: the agent has removed it.
    DelAnswered,
    /// DEL without an agent: the record is written.
    DelRecorded,
    /// DEL without an agent: it was asked once more, in vain.
    DelAskedAgain,
    /// DEL without an agent: the link is removed.
    DelLinkRemoved,
}

impl PluginStep {
    /// All steps, in their order.
    pub const ALL: [Self; 7] = [
        Self::AddChecked,
        Self::AddAnswered,
        Self::DelChecked,
        Self::DelAnswered,
        Self::DelRecorded,
        Self::DelAskedAgain,
        Self::DelLinkRemoved,
    ];
}

/// Comes by a step, whose name is that of its variant.
///
/// # Errors
/// A test has armed an error there. (Where it has armed a kill, this does not return.)
#[cfg(feature = "fault-points")]
pub fn at(step: impl Debug) -> Result<(), Fault> {
    use nix::sys::signal::{Signal, raise};
    let Some(file) = std::env::var_os(FILE) else {
        return Ok(());
    };
    let step = format!("{step:?}");
    let Ok(armed) = std::fs::read_to_string(&file) else {
        return Ok(());
    };
    let Some((name, action)) = armed.trim().split_once(' ') else {
        return Ok(());
    };
    // Of several who come by at once, one removes it.
    if name != step || std::fs::remove_file(&file).is_err() {
        return Ok(());
    }
    match action {
        "pause" => {
            let mut paused = file;
            paused.push(".paused");
            let made = std::fs::write(&paused, step);
            while made.is_ok() && std::path::Path::new(&paused).exists() {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            Ok(())
        }
        "kill" => raise(Signal::SIGKILL).map_err(|_| Fault(step)),
        _ => Err(Fault(step)),
    }
}

/// Nothing.
///
/// # Errors
/// None.
#[cfg(not(feature = "fault-points"))]
#[inline(always)]
pub fn at(_step: impl Debug) -> Result<(), Fault> {
    Ok(())
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a test has it fail at {}", self.0)
    }
}

impl std::error::Error for Fault {}

impl From<Fault> for tombolo_netlink::Error {
    fn from(fault: Fault) -> Self {
        Self::Namespace {
            operation: "come by a fault point".into(),
            source: std::io::Error::other(fault),
        }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self::new(
            code::IO,
            "the operation failed at a fault point",
            fault.to_string(),
        )
    }
}
