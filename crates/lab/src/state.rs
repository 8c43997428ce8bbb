//! Where a lab keeps what must outlive the command that made it.
//!
//! `/run/tombolo/lab/<name>/` is the lab's folder; locking it makes `up` and `down` of one lab exclude each
//! other. In it, `state/` is a tmpfs of the lab's own that spreads to no other mount namespace: it holds the
//! files below, the bind mounts that keep the namespaces, and the lab's bpffs.

use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use nix::fcntl::{Flock, FlockArg};
use nix::mount::MsFlags;
use serde::{Serialize, de::DeserializeOwned};

use crate::cgroup::Cgroup;
use crate::error::{Error, Result, system};
use crate::mounts;
use crate::plan::Plan;

/// The folder of all labs.
const ROOT: &str = "/run/tombolo/lab";
/// Folders of this machine that a node has its own version of, and that must exist to be mounted over.
pub const NODE_STATE: &str = "/var/lib/tombolo";
/// See [`NODE_STATE`].
pub const NODE_RUN: &str = "/run/tombolo";
/// Where a node keeps the namespaces of its pods, inside its mount namespace.
pub const NODE_NETNS: &str = "/run/tombolo/netns";
/// Where a node finds how to reach the API server, inside its mount namespace.
pub const NODE_KUBECONFIG: &str = "/run/tombolo/kubeconfig";
/// Where a node's agent installs the CNI plugin, inside the node's mount namespace.
pub const NODE_CNI_BIN: &str = "/run/tombolo/cni/bin";
/// Where it installs the plugin's configuration; see [`LabDir::node_cni_conf`], too.
pub const NODE_CNI_CONF: &str = "/run/tombolo/cni/net.d";
/// How long one command waits for another that works on the same lab.
const LOCK_PATIENCE: Duration = Duration::from_secs(15);

/// The folder of one lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabDir {
    name: String,
    path: PathBuf,
}

/// The right to change a lab or the folder of all labs, until dropped.
#[must_use]
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held, never read")] Flock<File>);

impl LabDir {
    /// The folder of the lab of that name, which may not exist.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            path: Path::new(ROOT).join(name),
        }
    }

    /// The lab of that name, or the newest.
    ///
    /// # Errors
    /// [`Error::NoSuchLab`] or [`Error::NoLab`].
    pub fn find(name: Option<&str>) -> Result<Self> {
        match name {
            Some(name) => {
                let lab = Self::new(name);
                if lab.path.is_dir() {
                    Ok(lab)
                } else {
                    Err(Error::NoSuchLab(name.to_owned()))
                }
            }
            None => newest_first()?
                .into_iter()
                .next()
                .map(|name| Self::new(&name))
                .ok_or(Error::NoLab),
        }
    }

    /// The lab's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The lab's folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tmpfs in it.
    pub fn state(&self) -> PathBuf {
        self.path.join("state")
    }

    /// The kubeconfig for this machine.
    pub fn kubeconfig(&self) -> PathBuf {
        self.state().join("kubeconfig")
    }

    /// The kubeconfig for nodes; see [`NODE_KUBECONFIG`].
    pub fn node_kubeconfig(&self, node: &str) -> PathBuf {
        self.node(node).join("run/kubeconfig")
    }

    /// The folder of a node's CNI configuration; see [`NODE_CNI_CONF`].
    pub fn node_cni_conf(&self, node: &str) -> PathBuf {
        self.node(node).join("run/cni/net.d")
    }

    /// What a node has of its own: `run`, `lib`, and `cgroup` while it is being made.
    pub fn node(&self, node: &str) -> PathBuf {
        self.state().join("nodes").join(node)
    }

    /// The file that holds a network namespace: of a node, `router` or `outside`.
    pub fn netns(&self, place: &str) -> PathBuf {
        self.state().join("ns").join(format!("{place}.net"))
    }

    /// The file that holds a node's mount namespace.
    pub fn mountns(&self, node: &str) -> PathBuf {
        self.state().join("ns").join(format!("{node}.mnt"))
    }

    /// The lab's bpffs, with one folder for each node.
    pub fn bpffs(&self) -> PathBuf {
        self.state().join("bpf")
    }

    /// Where a process of the lab writes what it has to say.
    pub fn log(&self, process: &str) -> PathBuf {
        self.state().join("logs").join(format!("{process}.log"))
    }

    /// The records of the pods that run.
    pub fn pods(&self) -> PathBuf {
        self.state().join("pods")
    }

    /// The lab's control group.
    pub fn cgroup(&self) -> Result<Cgroup> {
        Cgroup::of_lab(&self.name)
    }

    /// The lab's plan.
    ///
    /// # Errors
    /// [`Error::Incomplete`] if `up` was interrupted before it was stored.
    pub fn plan(&self) -> Result<Plan> {
        let path = self.plan_path();
        if !path.exists() {
            return Err(Error::Incomplete(
                self.name.clone(),
                "`up` was interrupted early".to_owned(),
            ));
        }
        read_record(&path)
    }

    fn plan_path(&self) -> PathBuf {
        self.state().join("plan.json")
    }

    /// Makes the folder with all that is in it, and locks it.
    ///
    /// # Errors
    /// [`Error::Exists`] if it is there.
    pub fn create(&self, plan: &Plan) -> Result<Lock> {
        let lock = {
            let _all = lock_all()?;
            make_folder(Path::new(NODE_STATE), true)?;
            if self.path.exists() || self.cgroup()?.path().exists() {
                return Err(Error::Exists(self.name.clone()));
            }
            make_folder(&self.path, false)?;
            lock_folder(&self.path, || Error::Busy(self.name.clone()))?
                .ok_or_else(|| Error::Busy(self.name.clone()))?
        };
        let state = self.state();
        make_folder(&state, false)?;
        mounts::mount_new(
            "tmpfs",
            "tombolo-lab",
            &state,
            MsFlags::empty(),
            Some("mode=0700"),
        )?;
        mounts::make_private(&state, false)?;
        for folder in ["ns", "bpf", "nodes", "logs", "pods"] {
            make_folder(&state.join(folder), false)?;
        }
        mounts::mount_new(
            "bpf",
            "tombolo-lab",
            &self.bpffs(),
            MsFlags::empty(),
            Some("mode=0700"),
        )?;
        mounts::make_private(&self.bpffs(), false)?;
        for node in &plan.nodes {
            for folder in ["run/netns", "lib", "cgroup"] {
                make_folder(&self.node(&node.name).join(folder), true)?;
            }
            make_folder(&self.bpffs().join(&node.name), false)?;
        }
        write_record(&self.plan_path(), plan)?;
        Ok(lock)
    }

    /// Locks the folder; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Busy`] if another command keeps it locked.
    pub fn lock(&self) -> Result<Option<Lock>> {
        lock_folder(&self.path, || Error::Busy(self.name.clone()))
    }

    /// Removes the folder, and what all labs share if this was the last. Its mounts must be gone.
    pub fn remove(&self) -> Result<()> {
        let _all = lock_all()?;
        let removed = match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(system("remove", &self.path)(error))
            }
            _ => Ok(()),
        };
        if newest_first()?.is_empty() {
            // Whoever else uses these folders keeps them: only empty ones can be removed.
            for folder in [ROOT, NODE_RUN, NODE_STATE] {
                let _ = fs::remove_dir(folder);
            }
        }
        removed
    }
}

/// The names of all labs, the newest first.
pub fn newest_first() -> Result<Vec<String>> {
    let entries = match fs::read_dir(ROOT) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(system("list", Path::new(ROOT))(error)),
    };
    let mut labs: Vec<(SystemTime, String)> = entries
        .flatten()
        .filter_map(|entry| {
            let made = entry.metadata().and_then(|metadata| metadata.modified()).ok()?;
            Some((made, entry.file_name().into_string().ok()?))
        })
        .collect();
    labs.sort();
    Ok(labs.into_iter().rev().map(|(_, name)| name).collect())
}

fn make_folder(path: &Path, with_parents: bool) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(with_parents)
        .mode(if with_parents { 0o755 } else { 0o700 })
        .create(path)
        .map_err(system("create folder", path))
}

fn lock_all() -> Result<Lock> {
    let root = Path::new(ROOT);
    loop {
        make_folder(root, true)?;
        if let Some(lock) = lock_folder(root, || Error::Busy("any".to_owned()))? {
            return Ok(lock);
        }
    }
}

/// `None`: the folder is not, or no longer, there.
fn lock_folder(path: &Path, busy: impl Fn() -> Error) -> Result<Option<Lock>> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        let mut folder = match File::open(path) {
            Ok(folder) => folder,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(system("open", path)(error)),
        };
        let lock = loop {
            match Flock::lock(folder, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => break lock,
                Err((_, nix::Error::EWOULDBLOCK)) if Instant::now() > deadline => return Err(busy()),
                Err((file, nix::Error::EWOULDBLOCK | nix::Error::EINTR)) => folder = file,
                Err((_, error)) => return Err(system("lock", path)(error)),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        // The folder that was locked may have been removed, and made anew, while this waited.
        let locked = nix::sys::stat::fstat(&*lock).map_err(system("look at", path))?;
        match fs::metadata(path) {
            Ok(now) if now.ino() == locked.st_ino && now.dev() == locked.st_dev => {
                return Ok(Some(Lock(lock)));
            }
            _ => continue,
        }
    }
}

/// Stores a record so that readers see all of it or nothing.
pub fn write_record(path: &Path, record: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec_pretty(record).map_err(|source| Error::Record {
        path: path.to_owned(),
        source,
    })?;
    let temporary = path.with_extension("new");
    fs::write(&temporary, text).map_err(system("write", &temporary))?;
    fs::rename(&temporary, path).map_err(system("rename to", path))
}

/// Reads what [`write_record`] stored.
pub fn read_record<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read(path).map_err(system("read", path))?;
    serde_json::from_slice(&text).map_err(|source| Error::Record {
        path: path.to_owned(),
        source,
    })
}
