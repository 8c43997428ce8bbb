//! File systems of a test's own, mounted nowhere: they live as long as the values here, and nothing is left of a test
//! that is killed.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use crate::mount;

/// A BPF file system: what is pinned in it lives as long as this value.
#[derive(Debug)]
pub struct Bpffs(OwnedFd);

/// A file system in memory, where syncing costs nothing.
#[derive(Debug)]
pub struct Tmpfs(OwnedFd);

macro_rules! file_system {
    ($type:ident, $kind:literal) => {
        impl $type {
            /// Makes an empty one.
            ///
            /// # Panics
            /// When the kernel refuses, as it does to all but root.
            pub fn new() -> Self {
                Self(
                    mount::detached($kind, &[])
                        .unwrap_or_else(|error| panic!("make a file system {:?}: {error}", $kind)),
                )
            }

            /// Its root folder: a path by which any process can use it while this value lives.
            pub fn path(&self) -> PathBuf {
                mount::path(&self.0)
            }
        }

        impl Default for $type {
            fn default() -> Self {
                Self::new()
            }
        }
    };
}

file_system!(Bpffs, c"bpf");
file_system!(Tmpfs, c"tmpfs");
