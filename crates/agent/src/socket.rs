//! The agent's unix socket, and the lock that makes it the only agent of its node.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::error::Error;

/// How long a starting agent waits for one that is ending.
pub const TAKE_OVER_DEADLINE: Duration = Duration::from_secs(10);

/// The right to be the node's agent, for as long as it lives.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held, not read")] Flock<File>);

/// Makes the state folder and becomes the node's only agent; waits as long as `patience` for one that is ending.
///
/// # Errors
/// Another agent goes on, or the folder cannot be written.
pub fn lock(state_dir: &Path, patience: Duration) -> Result<Lock, Error> {
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(state_dir);
    made.map_err(Error::file("make the state folder", state_dir))?;
    let path = state_dir.join("agent.lock");
    let open = || {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
    };
    let mut file = open().map_err(Error::file("open the lock", &path))?;
    let deadline = Instant::now() + patience;
    loop {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(Lock(lock)),
            Err((file, Errno::EWOULDBLOCK)) if Instant::now() < deadline => file,
            Err((_, Errno::EWOULDBLOCK)) => return Err(Error::AnotherAgent { path }),
            Err((_, errno)) => return Err(Error::file("lock", &path)(errno.into())),
        };
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Listens on the socket, in place of one that an earlier agent left. Nobody but root can connect, at no
/// moment; who does waits until the agent accepts.
///
/// # Errors
/// The folder cannot be made or written.
pub fn listen(path: &Path) -> Result<UnixListener, Error> {
    if let Some(folder) = path.parent() {
        let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(folder);
        made.map_err(Error::file("make the socket's folder", folder))?;
    }
    let temporary = path.with_extension("new");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::file("remove", &temporary)(error));
        }
        _ => {}
    }
    let listener = UnixListener::bind(&temporary).map_err(Error::file("listen on", &temporary))?;
    fs::set_permissions(&temporary, Permissions::from_mode(0o600))
        .map_err(Error::file("close to others", &temporary))?;
    fs::rename(&temporary, path).map_err(Error::file("put in its place", path))?;
    listener
        .set_nonblocking(true)
        .map_err(Error::file("set up", path))?;
    Ok(listener)
}
