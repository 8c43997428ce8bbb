//! The runtime itself: its process and its folder.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tombolo_testkit::Process;

use crate::cgroup::Cgroup;
use crate::client::Client;
use crate::config::{self, Cni};
use crate::error::Error;
use crate::image;

/// How long it may take to come up, and to end.
const DEADLINE: Duration = Duration::from_secs(60);

/// A containerd. When this value goes, so does everything that it has started; it panics if that fails.
pub struct Containerd {
    // In the order in which they go: what makes new things, what was made, where it was kept.
    process: Option<Process>,
    cgroup: Cgroup,
    folder: tempfile::TempDir,
    command: Box<dyn Fn(&str) -> Command + Send>,
    client: Client,
}

impl Containerd {
    /// Starts one where the commands run that `command` gives for a program, with the image in it. Mounts that it
    /// makes must go with that place.
    ///
    /// # Errors
    /// It is not installed, or does not come up.
    pub fn start(cni: &Cni, command: impl Fn(&str) -> Command + Send + 'static) -> Result<Self, Error> {
        let cgroup = Cgroup::create()?;
        // On a disk, as usual.
        let folder = tempfile::tempdir_in("/var/tmp").map_err(Error::file("/var/tmp"))?;
        let at = |name: &str| folder.path().join(name);
        let text = config::text(folder.path(), cni, &cgroup.shims());
        fs::write(at("config.toml"), text).map_err(Error::file(at("config.toml")))?;
        image::write(&at("image.tar")).map_err(Error::file(at("image.tar")))?;
        let client = Client::new(&at("containerd.sock"), &cgroup.path())?;
        let mut containerd = Self {
            process: None,
            cgroup,
            folder,
            command: Box::new(command),
            client,
        };
        containerd.start_again()?;
        containerd.import()?;
        Ok(containerd)
    }

    /// What asks it.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Ends it by a signal; what it has started runs on.
    ///
    /// # Panics
    /// When it does not end.
    pub fn end(&mut self, signal: Signal) {
        if let Some(mut process) = self.process.take() {
            process.signal(signal);
            process.wait(DEADLINE);
        }
    }

    /// Starts it after [`Self::end`], and waits until it answers.
    ///
    /// # Errors
    /// It does not come up.
    pub fn start_again(&mut self) -> Result<(), Error> {
        let log = self.folder.path().join("log");
        let out = File::options().create(true).append(true).open(&log);
        let out = out.map_err(Error::file(&log))?;
        let mut command = (self.command)("containerd");
        command
            .arg("--config")
            .arg(self.folder.path().join("config.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(out);
        self.process = Some(Process::spawn(&mut command));
        let socket = self.socket();
        self.wait("does not answer", || {
            UnixStream::connect(&socket).is_ok() && self.client.network_problem().is_ok()
        })
    }

    fn import(&self) -> Result<(), Error> {
        let mut ctr = Command::new("ctr");
        ctr.arg("--address").arg(self.socket());
        ctr.args(["--namespace", "k8s.io", "images", "import"])
            .arg(self.folder.path().join("image.tar"));
        let output = ctr.output().map_err(|source| Error::Program {
            program: "ctr",
            source,
        })?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(self.failed(format!("does not take the image: {said}")));
        }
        // CRI hears of it later.
        self.wait("does not find the image", || {
            self.client.has_image().unwrap_or(false)
        })
    }

    fn wait(&self, what: &str, holds: impl Fn() -> bool) -> Result<(), Error> {
        let deadline = Instant::now() + DEADLINE;
        while !holds() {
            if Instant::now() > deadline {
                return Err(self.failed(what.into()));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn failed(&self, what: String) -> Error {
        Error::Start {
            what,
            log: self.last_words(),
        }
    }

    /// Where it keeps everything: whatever it starts has this path in its command line.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The name of its control groups, in every hierarchy.
    pub fn cgroup(&self) -> &str {
        self.cgroup.name()
    }

    /// The end of its log, for a person who looks at what went wrong.
    pub fn last_words(&self) -> String {
        let log = fs::read(self.folder.path().join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("containerd.sock")
    }

    /// Sockets of shims are not in its folder, wherever that is (containerd 1.6, `runtime/v2/shim`). A shim that
    /// is killed leaves its own.
    fn remove_shim_sockets(&self) {
        let tasks = self
            .folder
            .path()
            .join("state/io.containerd.runtime.v2.task/k8s.io");
        for task in fs::read_dir(tasks).into_iter().flatten().flatten() {
            let address = fs::read_to_string(task.path().join("address")).unwrap_or_default();
            if let Some(socket) = address.trim().strip_prefix("unix://") {
                let _ = fs::remove_file(socket);
            }
        }
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // First what would start more.
        self.process = None;
        let removed = self.cgroup.remove();
        self.remove_shim_sockets();
        match removed {
            // A second panic would hide the first.
            Err(error) if !thread::panicking() => panic!("remove containerd's control groups: {error}"),
            _ => {}
        }
    }
}
