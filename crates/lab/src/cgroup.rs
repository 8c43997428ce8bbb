//! Control groups (version 2): what is started in one is found and ended through it, never by name.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Error, Result, system};
use crate::mounts;

/// How long killed processes may take to be gone.
const DYING: Duration = Duration::from_secs(10);

/// A control group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// The control group of a whole lab, which may not exist.
    pub fn of_lab(name: &str) -> Result<Self> {
        Ok(Self(mounts::cgroup2()?.join(format!("{LAB_PREFIX}{name}"))))
    }

    /// The names of all labs that have a control group.
    pub fn labs() -> Result<Vec<String>> {
        let root = mounts::cgroup2()?;
        let entries = fs::read_dir(&root).map_err(system("list", &root))?;
        let names = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok());
        Ok(names
            .filter_map(|name| Some(name.strip_prefix(LAB_PREFIX)?.to_owned()))
            .collect())
    }

    /// A control group inside this one.
    pub fn child(&self, name: &str) -> Self {
        Self(self.0.join(name))
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes it, and those it is in; fine if it exists.
    pub fn create(&self) -> Result<()> {
        fs::create_dir_all(&self.0).map_err(system("create control group", &self.0))
    }

    /// The file through which a process joins: it writes `0`.
    pub fn procs(&self) -> Result<OwnedFd> {
        let path = self.0.join("cgroup.procs");
        let file = OpenOptions::new()
            .write(true)
            .open(&path)
            .map_err(system("open", &path))?;
        Ok(file.into())
    }

    /// The ids of the processes in it and in those inside it.
    pub fn processes(&self) -> Result<Vec<u32>> {
        let mut found = Vec::new();
        self.walk(&mut |cgroup| {
            let path = cgroup.join("cgroup.procs");
            match fs::read_to_string(&path) {
                Ok(text) => found.extend(text.lines().filter_map(|line| line.parse::<u32>().ok())),
                Err(error) if gone(&error) => {}
                Err(error) => return Err(system("read", &path)(error)),
            }
            Ok(())
        })?;
        found.sort_unstable();
        Ok(found)
    }

    /// Kills everything in it, waits until that is gone, and removes it. Fine if it does not exist.
    pub fn remove(&self) -> Result<()> {
        let kill = self.0.join("cgroup.kill");
        match fs::write(&kill, "1") {
            Ok(()) => {}
            Err(error) if gone(&error) => return Ok(()),
            Err(error) => return Err(system("write", &kill)(error)),
        }
        let deadline = Instant::now() + DYING;
        while self.is_populated()? {
            if Instant::now() > deadline {
                let left = self.processes()?;
                return Err(Error::Deadline {
                    waiting_for: format!("the end of the killed processes in {}", self.0.display()),
                    seconds: DYING.as_secs(),
                    state: format!("{left:?} are still there; look at /proc/<pid>/stack"),
                });
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        // Deepest first.
        let mut folders = Vec::new();
        self.walk(&mut |cgroup| {
            folders.push(cgroup.to_owned());
            Ok(())
        })?;
        for folder in folders.iter().rev() {
            remove_folder(folder, deadline)?;
        }
        Ok(())
    }

    fn is_populated(&self) -> Result<bool> {
        let path = self.0.join("cgroup.events");
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text.lines().any(|line| line == "populated 1")),
            Err(error) if gone(&error) => Ok(false),
            Err(error) => Err(system("read", &path)(error)),
        }
    }

    /// Visits it and all inside it, outer ones first.
    fn walk(&self, visit: &mut dyn FnMut(&Path) -> Result<()>) -> Result<()> {
        let mut open = vec![self.0.clone()];
        while let Some(folder) = open.pop() {
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) if gone(&error) => continue,
                Err(error) => return Err(system("list", &folder)(error)),
            };
            visit(&folder)?;
            let folders = entries
                .flatten()
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            open.extend(folders.map(|entry| entry.path()));
        }
        Ok(())
    }
}

const LAB_PREFIX: &str = "tombolo-lab-";

fn remove_folder(folder: &Path, deadline: Instant) -> Result<()> {
    loop {
        match fs::remove_dir(folder) {
            Ok(()) => return Ok(()),
            Err(error) if gone(&error) => return Ok(()),
            // Dead processes are still being taken out.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(system("remove control group", folder)(error)),
        }
    }
}

fn gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}
