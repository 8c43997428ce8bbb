//! Files that are replaced as a whole: whoever opens one finds all of the old or all of the new.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Puts what `content` gives at `target`, by rename within its folder, which is made where it is missing. It is
/// on the disk when this returns. A program that runs from what was there runs on.
pub fn put(target: &Path, mode: u32, content: &mut dyn Read) -> io::Result<()> {
    replace(target, |temporary| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(temporary)?;
        io::copy(content, &mut file)?;
        file.flush()?;
        // Whatever the umask is.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()
    })
}

/// Puts a copy of what is at `source` at `target`, in the same way; of a symbolic link, the link.
pub fn copy(source: &Path, target: &Path) -> io::Result<()> {
    let metadata = source.symlink_metadata()?;
    if metadata.is_symlink() {
        let pointed_at = source.read_link()?;
        return replace(target, |temporary| symlink(&pointed_at, temporary));
    }
    put(target, metadata.permissions().mode(), &mut File::open(source)?)
}

/// Removes a file; fine if there is none. It is off the disk when this returns.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Err(_) => Ok(()),
        Ok(()) => sync_folder(path),
    }
}

/// Whether there is anything at `path`, a dangling link included.
pub fn exists(path: &Path) -> io::Result<bool> {
    match path.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn replace(target: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder)?;
    }
    let temporary = beside(target);
    // Of an agent that was killed.
    remove(&temporary)?;
    let made = make(&temporary).and_then(|()| fs::rename(&temporary, target));
    if made.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    made.and_then(|()| sync_folder(target))
}

/// The name that a file has until it is complete. Runtimes take `.conf`, `.conflist` and `.json` alone.
fn beside(target: &Path) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

fn sync_folder(of: &Path) -> io::Result<()> {
    of.parent()
        .map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_made_leaves_what_was_there() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a.conflist");
        put(&target, 0o644, &mut b"old".as_slice()).unwrap();
        let mut half = b"half".as_slice().chain(Broken);
        assert_eq!(
            put(&target, 0o644, &mut half).unwrap_err().kind(),
            io::ErrorKind::StorageFull
        );
        assert_eq!(fs::read(&target).unwrap(), b"old");
        let names: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(names, ["a.conflist"]);
    }

    #[test]
    fn a_file_left_half_made_is_no_obstacle() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("new/plugin");
        put(&target, 0o755, &mut b"1".as_slice()).unwrap();
        fs::write(beside(&target), "half").unwrap();
        put(&target, 0o755, &mut b"2".as_slice()).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"2");
        assert_eq!(
            fs::metadata(&target).unwrap().permissions().mode() & 0o7777,
            0o755
        );
        assert!(!exists(&beside(&target)).unwrap());
    }

    #[test]
    fn links_are_copied_as_links() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        symlink("nowhere", at("link")).unwrap();
        copy(&at("link"), &at("copy")).unwrap();
        assert_eq!(at("copy").read_link().unwrap(), Path::new("nowhere"));
        assert!(exists(&at("copy")).unwrap());
        remove(&at("copy")).unwrap();
        remove(&at("copy")).unwrap();
        assert!(!exists(&at("copy")).unwrap());
    }
}
