//! What is measured goes before what else the machine does.

use anyhow::{Context, Result};

/// The highest of the ordinary priorities (sched(7)).
const NICE: libc::c_int = -20;

/// Raises the priority of this process, and so of all that it starts: agents, plugins and load of all contenders.
pub fn raise() -> Result<()> {
    // SAFETY: the arguments are plain numbers.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
    nix::errno::Errno::result(result)
        .map(drop)
        .context("raise the priority")
}
