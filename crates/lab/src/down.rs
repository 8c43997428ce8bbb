//! Taking a lab down: whatever state it is in, nothing of it stays.

use std::path::Path;

use crate::cgroup::Cgroup;
use crate::error::{Failures, Result};
use crate::mounts;
use crate::state::{LabDir, Lock, newest_first};

/// Removes everything of a lab: processes, control groups, namespaces with the devices, routes, rules and
/// settings in them, pinned maps and programs, mounts and files. Every step is tried, whatever became of
/// the others. Returns whether there was anything.
///
/// # Errors
/// All that could not be removed.
pub fn down(lab: &LabDir) -> Result<bool> {
    let lock = lab.lock()?;
    if lock.is_none() && !lab.cgroup()?.path().exists() {
        return Ok(false);
    }
    remove(lab, lock)?;
    Ok(true)
}

/// The same for whoever holds the lock.
pub(crate) fn remove(lab: &LabDir, lock: Option<Lock>) -> Result<()> {
    let mut failures = Failures::default();
    // Processes first: they hold namespaces, and might make new things.
    failures.note(lab.cgroup().and_then(|cgroup| cgroup.remove()));
    // Removing the file that a namespace is mounted on takes that mount out of every mount namespace that has
    // inherited it; unmounting would do so for this one alone.
    for file in files(&lab.state().join("ns")) {
        failures.note(tombolo_netlink::Namespace::remove(&file).map_err(Into::into));
    }
    // Deepest first.
    for mount in failures
        .note(mounts::mounts())
        .unwrap_or_default()
        .into_iter()
        .rev()
    {
        if mount.target.starts_with(lab.path()) {
            failures.note(mounts::unmount_all(&mount.target));
        }
    }
    failures.note(lab.remove());
    drop(lock);
    failures.into_result()
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// The names of all labs, the newest first, including those of which only a control group is left.
pub fn labs() -> Result<Vec<String>> {
    let mut labs = newest_first()?;
    for name in Cgroup::labs()? {
        if !labs.contains(&name) {
            labs.push(name);
        }
    }
    Ok(labs)
}
