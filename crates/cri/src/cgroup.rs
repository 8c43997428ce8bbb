//! The control groups of what containerd starts: one of the same name in every hierarchy, of version 1 or 2.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::Error;

/// How long killed processes may take to be gone.
const DYING: Duration = Duration::from_secs(20);

/// Control groups of a name that nobody else has. They are there until they are removed.
#[derive(Debug)]
pub struct Cgroup {
    name: String,
    hierarchies: Vec<PathBuf>,
}

impl Cgroup {
    /// The groups; containers make theirs in them, and shims find theirs.
    pub fn create() -> Result<Self, Error> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tombolo-cri-{}-{number}", std::process::id());
        let cgroup = Self {
            name,
            hierarchies: hierarchies()?,
        };
        // In version 1 a shim joins those that are there; `pids` takes processes without being set up.
        let shims = cgroup.hierarchies.iter().find(|path| path.ends_with("pids"));
        if let Some(hierarchy) = shims.or(cgroup.hierarchies.last()) {
            let folder = hierarchy.join(cgroup.shims().trim_start_matches('/'));
            fs::create_dir_all(&folder).map_err(Error::file(folder))?;
        }
        Ok(cgroup)
    }

    /// The groups' name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The groups' path, which containers' are to be below.
    pub fn path(&self) -> String {
        format!("/{}", self.name)
    }

    /// The path of the shims' group.
    pub fn shims(&self) -> String {
        format!("/{}/shims", self.name)
    }

    /// Kills everything in them, again and again until no more comes, and removes them.
    pub fn remove(&self) -> Result<(), Error> {
        let deadline = Instant::now() + DYING;
        loop {
            let folders = self.folders()?;
            let processes = processes(&folders);
            if processes.is_empty() {
                // Deepest first.
                let removed = folders
                    .iter()
                    .rev()
                    .map(|folder| (folder, fs::remove_dir(folder)));
                match removed
                    .into_iter()
                    .find_map(|(folder, done)| Some((folder, done.err()?)))
                {
                    None => return Ok(()),
                    Some((folder, error)) if Instant::now() > deadline => {
                        return Err(Error::file(folder)(error));
                    }
                    Some(_) => {}
                }
            } else if Instant::now() > deadline {
                return Err(Error::Undead(processes.into_iter().collect()));
            }
            for process in processes {
                // It may be gone already.
                let _ = kill(Pid::from_raw(process), Signal::SIGKILL);
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// All groups that there are, outer ones first.
    fn folders(&self) -> Result<Vec<PathBuf>, Error> {
        let mut found = Vec::new();
        for hierarchy in &self.hierarchies {
            walk(&hierarchy.join(&self.name), &mut found)?;
        }
        Ok(found)
    }
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), Error> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::file(folder)(error)),
    };
    found.push(folder.into());
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), found)?;
        }
    }
    Ok(())
}

fn processes(folders: &[PathBuf]) -> BTreeSet<i32> {
    let texts = folders
        .iter()
        .filter_map(|folder| fs::read_to_string(folder.join("cgroup.procs")).ok());
    texts
        .flat_map(|text| {
            text.lines()
                .filter_map(|line| line.parse().ok())
                .collect::<Vec<i32>>()
        })
        .collect()
}

/// Where control groups are mounted (proc_pid_mountinfo(5)).
fn hierarchies() -> Result<Vec<PathBuf>, Error> {
    let path = "/proc/self/mountinfo";
    let text = fs::read_to_string(path).map_err(Error::file(path))?;
    let mounts = text.lines().filter_map(|line| line.split_once(" - "));
    let cgroups = mounts.filter(|(_, kind)| kind.starts_with("cgroup"));
    Ok(cgroups
        .filter_map(|(mount, _)| mount.split(' ').nth(4))
        .map(PathBuf::from)
        .collect())
}
