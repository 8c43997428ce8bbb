//! Faults of agent and plugin: see `tombolo_cni::fault`.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;

use nix::sys::signal::Signal;

use super::{DEADLINE, Node};

impl Node {
    /// The file that arms a fault of agent and plugin (see `tombolo_cni::fault`).
    pub fn fault_file(&self) -> PathBuf {
        self.folder.path().join("fault")
    }

    /// Has whoever comes by a step next fail there: `error`, `kill` or `pause`.
    pub fn arm(&self, step: &str, action: &str) {
        // In one piece, as somebody may come by meanwhile.
        let written = self.fault_file().with_extension("new");
        std::fs::write(&written, format!("{step} {action}")).unwrap();
        std::fs::rename(written, self.fault_file()).unwrap();
    }

    /// Whether a fault is armed, and nobody has come by.
    pub fn is_armed(&self) -> bool {
        self.fault_file().exists()
    }

    /// Arms nothing. Whether something was.
    pub fn disarm(&self) -> bool {
        std::fs::remove_file(self.fault_file()).is_ok()
    }

    /// The file that is there while somebody pauses at a step.
    pub fn paused_file(&self) -> PathBuf {
        let mut path = self.fault_file().into_os_string();
        path.push(".paused");
        path.into()
    }

    /// Waits for the end of an agent that a fault kills.
    pub fn agent_was_killed(&mut self) {
        let mut agent = self.agent.take().expect("the agent runs");
        let status = agent.wait(DEADLINE);
        assert_eq!(status.signal(), Some(Signal::SIGKILL as i32), "{status}");
    }

    /// Whether an agent was started and has not been ended.
    pub fn has_agent(&self) -> bool {
        self.agent.is_some()
    }
}
