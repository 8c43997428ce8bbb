//! Reading stdin, with an end to size and time.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tombolo_cni::CONFIG_MAX;
use tombolo_cni::error::{Error, Result, code};

/// How long a runtime may take to pass a configuration.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How long it may take to pass what VERSION can do without.
pub const VERSION_PATIENCE: Duration = Duration::from_secs(1);

/// Reads stdin to its end.
pub fn read_stdin(patience: Duration) -> Result<Vec<u8>> {
    let deadline = Instant::now() + patience;
    let mut stdin = io::stdin().lock();
    let mut bytes = Vec::new();
    let mut chunk = [0; 16 << 10];
    loop {
        wait_readable(&stdin, deadline)?;
        let count = match stdin.read(&mut chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            count => count.map_err(|error| failed(&error))?,
        };
        if count == 0 {
            return Ok(bytes);
        }
        bytes.extend_from_slice(&chunk[..count]);
        if bytes.len() > CONFIG_MAX {
            return Err(Error::new(
                code::INVALID_CONFIG,
                "the network configuration is too large",
                format!("stdin holds more than {CONFIG_MAX} bytes; see what the runtime passes"),
            ));
        }
    }
}

fn wait_readable(stdin: &impl AsFd, deadline: Instant) -> Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)], timeout) {
            Err(nix::Error::EINTR) => {}
            Err(errno) => return Err(failed(&errno)),
            Ok(0) => return Err(failed(&"it did not end in time")),
            Ok(_) => return Ok(()),
        }
    }
}

fn failed(cause: &dyn std::fmt::Display) -> Error {
    Error::new(
        code::IO,
        "cannot read the network configuration from stdin",
        format!("{cause}; the container runtime must write it there and close it"),
    )
}
