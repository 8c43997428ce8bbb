//! A place of a test's own in the kernel.

use std::{
    path::PathBuf,
    process::Command,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use tombolo_datapath::{Attach, Datapath, Options};

/// A network and a mount namespace for the calling thread, with a bpffs. All of it is gone when the
/// thread ends, however the test ends.
pub struct Bed {
    /// Where pins go.
    pub directory: PathBuf,
    _folder: tempfile::TempDir,
}

impl Bed {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("these tests need root");
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some("bpf"), folder.path(), Some("bpf"), MsFlags::empty(), none).unwrap();
        run("ip link set lo up");
        Self {
            directory: folder.path().join("tombolo"),
            _folder: folder,
        }
    }

    pub fn options(&self) -> Options {
        Options {
            directory: self.directory.clone(),
            ..Options::default()
        }
    }

    pub fn load(&self) -> Datapath {
        Datapath::load(&self.options()).unwrap()
    }

    pub fn load_with(&self, attach: Attach) -> Datapath {
        Datapath::load(&Options {
            attach,
            ..self.options()
        })
        .unwrap()
    }
}

/// The ways to attach programs that this kernel has.
pub fn attach_ways() -> Vec<Attach> {
    let tcx = Attach::Auto.is_tcx(tombolo_abi::Hook::FromUplink);
    [Attach::Tcx, Attach::Clsact]
        .into_iter()
        .filter(|way| tcx || *way != Attach::Tcx)
        .collect()
}

type Job = Box<dyn FnOnce() + Send>;

/// Another thread, mostly with a network namespace of its own; gone when this is dropped.
pub struct Other {
    /// For `ip link ... netns`.
    pub tid: i32,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Other {
    pub fn new() -> Self {
        Self::with(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            run("ip link set lo up");
        })
    }

    /// A thread in the network namespace of this one.
    pub fn here() -> Self {
        Self::with(|| {})
    }

    fn with(enter: impl FnOnce() + Send + 'static) -> Self {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (tell, tid) = mpsc::channel();
        let thread = thread::spawn(move || {
            enter();
            tell.send(nix::unistd::gettid().as_raw()).unwrap();
            for job in queue {
                job();
            }
        });
        Self {
            tid: tid.recv().unwrap(),
            jobs: Some(jobs),
            thread: Some(thread),
        }
    }

    /// Runs something inside, and gives back what it returned.
    pub fn run<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, answer) = mpsc::channel();
        self.jobs
            .as_ref()
            .unwrap()
            .send(Box::new(move || tell.send(f()).unwrap()))
            .unwrap();
        answer.recv().expect("it panicked")
    }

    /// Runs commands inside.
    pub fn commands(&self, commands: &'static [&'static str]) {
        self.run(move || commands.iter().for_each(|command| drop(run(command))));
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        drop(self.jobs.take());
        let _ = self.thread.take().unwrap().join();
    }
}

/// Runs a command in the thread's namespaces.
pub fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn ifindex(device: &str) -> u32 {
    nix::net::if_::if_nametoindex(device).unwrap()
}

/// Waits for something to become true; fails, with what is there instead, when it does not.
pub fn eventually(what: &str, mut is: impl FnMut() -> Result<(), String>) {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match is() {
            Ok(()) => return,
            Err(state) if Instant::now() > deadline => panic!("{what} did not come true: {state}"),
            Err(_) => thread::sleep(Duration::from_millis(2)),
        }
    }
}
