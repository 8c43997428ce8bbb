//! A BPF file system of a test's own.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use crate::mount;

/// A BPF file system that is mounted nowhere: what is pinned in it lives as long as this value, and nothing is left
/// of a test that is killed.
#[derive(Debug)]
pub struct Bpffs(OwnedFd);

impl Bpffs {
    /// Makes an empty one.
    ///
    /// # Panics
    /// When the kernel refuses, as it does to all but root.
    pub fn new() -> Self {
        Self(mount::detached(c"bpf", &[]).unwrap_or_else(|error| panic!("make a BPF file system: {error}")))
    }

    /// Its root folder: a path by which any process can use it while this value lives.
    pub fn path(&self) -> PathBuf {
        mount::path(&self.0)
    }
}

impl Default for Bpffs {
    fn default() -> Self {
        Self::new()
    }
}
