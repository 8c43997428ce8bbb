//! A small disk of a test's own, which can be full and read-only.

use std::ffi::CString;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use crate::mount;

/// The file that fills a disk.
const FILLER: &str = "filler";

/// A file system in memory that is mounted nowhere.
#[derive(Debug)]
pub struct Disk(OwnedFd);

impl Disk {
    /// An empty one of so many bytes.
    ///
    /// # Panics
    /// When the kernel refuses, as it does to all but root.
    pub fn new(bytes: usize) -> Self {
        let size = CString::new(bytes.to_string()).unwrap_or_default();
        let made = mount::detached(c"tmpfs", &[(c"size", &size)]);
        Self(made.unwrap_or_else(|error| panic!("make a disk: {error}")))
    }

    /// Its root folder: a path by which any process can use it while this value lives.
    pub fn path(&self) -> PathBuf {
        mount::path(&self.0)
    }

    /// Writes a file that takes all space, or removes it.
    ///
    /// # Panics
    /// When that fails for another reason than that the disk is full.
    pub fn set_full(&self, full: bool) {
        let filler = self.path().join(FILLER);
        let done = if full {
            let mut file = fs::File::create(&filler);
            match file
                .as_mut()
                .map(|file| std::io::copy(&mut std::io::repeat(0), file))
            {
                Ok(Err(error)) if error.kind() == std::io::ErrorKind::StorageFull => Ok(()),
                Ok(filled) => filled.map(drop),
                Err(_) => file.map(drop),
            }
        } else {
            fs::remove_file(&filler)
        };
        done.unwrap_or_else(|error| panic!("{}: {error}", filler.display()));
    }

    /// Lets nothing be written to it, or lets it again.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn set_read_only(&self, read_only: bool) {
        mount::set_read_only(&self.0, read_only)
            .unwrap_or_else(|error| panic!("make a disk read-only: {error}"));
    }
}
