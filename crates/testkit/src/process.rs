//! Child processes that cannot outlive their test.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait_for_some;

/// A child process. It is killed when this value goes, and by the kernel when the thread that started it ends:
/// start it from the test's own thread.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Starts a command.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(command: &mut Command) -> Self {
        let die_with_parent = || prctl::set_pdeathsig(Signal::SIGKILL).map_err(Into::into);
        // SAFETY: between fork and exec this makes one system call and nothing else.
        unsafe { command.pre_exec(die_with_parent) };
        Self(
            command
                .spawn()
                .unwrap_or_else(|error| panic!("start {command:?}: {error}")),
        )
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Its pipes, where the command asked for some.
    pub fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    /// Sends it a signal; it is fine if it has ended.
    pub fn signal(&self, signal: Signal) {
        // Until it is waited for, its id is not given to another process.
        let _ = kill(Pid::from_raw(self.0.id().cast_signed()), signal);
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end within `deadline`.
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let description = format!("end of process {}", self.0.id());
        wait_for_some(deadline, &description, || {
            self.0
                .try_wait()
                .unwrap_or_else(|error| panic!("{description}: {error}"))
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
