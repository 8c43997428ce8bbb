//! Control groups: an agent attaches its programs at sockets to one, and so whoever starts in it reaches Services by them.

use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tombolo_testkit::wait_for;

/// How long the last process that has ended may take to be taken out.
const DEADLINE: Duration = Duration::from_secs(10);

/// A control group (version 2), which is gone when this is. Its processes must be by then.
#[derive(Debug)]
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// Makes one.
    pub fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let mut mounts = mounts.lines().map(|line| line.split(' '));
        let root = mounts.find_map(|mut words| {
            let place = words.nth(1)?;
            (words.next()? == "cgroup2").then_some(place)
        });
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(root.context("no cgroup v2 tree is mounted")?)
            .join(format!("tombolo-bench-{}-{number}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self(path))
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Has a command start in it.
    pub fn hold(&self, command: &mut Command) -> Result<()> {
        let path = self.0.join("cgroup.procs");
        let procs = OpenOptions::new()
            .write(true)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        let join = move || nix::unistd::write(&procs, b"0").map(drop).map_err(Into::into);
        // SAFETY: between fork and exec this makes one system call and nothing else.
        unsafe { command.pre_exec(join) };
        Ok(())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        wait_for(DEADLINE, "the end of a control group", || {
            fs::remove_dir(&self.0).is_ok() || !self.0.exists()
        });
    }
}
