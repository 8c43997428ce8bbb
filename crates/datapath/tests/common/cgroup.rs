//! A control group of a test's own.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use super::bed::eventually;

/// A control group (of version 2) for threads of the test, which share their process with other tests. Gone when this
/// is dropped, which is after its threads.
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// Below the one that the test itself is in.
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let root = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .find(|words| words[2] == "cgroup2")
            .expect("no cgroup v2 tree is mounted")[1];
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
        let name = format!(
            "tombolo-test-{}-{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        );
        let cgroup = Self(Path::new(root).join(own).join(name));
        fs::create_dir(&cgroup.0).unwrap();
        fs::write(cgroup.0.join("cgroup.type"), "threaded").unwrap();
        cgroup
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Has the calling thread be in it, and what that starts.
    pub fn join(path: &Path) {
        fs::write(path.join("cgroup.threads"), "0").unwrap();
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Threads that have ended are still being taken out.
        eventually("removing the control group", || match fs::remove_dir(&self.0) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.to_string()),
            _ => Ok(()),
        });
    }
}
