//! What is measured goes before what else the machine does.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// The highest of the ordinary priorities (sched(7)).
const HIGHEST: libc::c_int = -20;

/// The session's priority as a whole, where the kernel shares CPUs among sessions first (sched(7), autogroup).
const SESSION: &str = "/proc/self/autogroup";

/// The priority of this process, and so of all that it starts: agents, plugins and load of all contenders. That of
/// its session is as it was when this value goes.
pub struct Priority {
    session_before: Option<String>,
}

impl Priority {
    /// Raises it.
    pub fn raise() -> Result<Self> {
        // SAFETY: the arguments are plain numbers.
        let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, HIGHEST) };
        nix::errno::Errno::result(result).context("raise the priority")?;
        if !Path::new(SESSION).exists() {
            return Ok(Self { session_before: None });
        }
        // "/autogroup-67 nice 0"; empty in a session that has none.
        let session = fs::read_to_string(SESSION)?;
        let before = session.trim().rsplit_once(' ').map(|(_, nice)| nice.to_owned());
        if before.is_some() {
            fs::write(SESSION, HIGHEST.to_string()).context("raise the session's priority")?;
        }
        Ok(Self {
            session_before: before,
        })
    }
}

impl Drop for Priority {
    fn drop(&mut self) {
        if let Some(nice) = &self.session_before
            && let Err(error) = fs::write(SESSION, nice)
        {
            eprintln!("cannot set the session's priority back to {nice}: {error}");
        }
    }
}
