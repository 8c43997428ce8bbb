//! What the tests share: a place of their own in the kernel.

#![allow(dead_code, reason = "each test file uses its part")]

use std::{path::PathBuf, process::Command};

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

    pub fn load_attached_by(&self, attach: Attach) -> Datapath {
        Datapath::load(&Options {
            attach,
            ..self.options()
        })
        .unwrap()
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
