//! Who has sent a request.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::net::UnixListener;

/// The other end of a request's connection.
#[derive(Clone, Debug)]
pub struct Caller(Option<Arc<OwnedFd>>);

impl Caller {
    /// One without a connection, who never goes.
    pub const fn always_there() -> Self {
        Self(None)
    }

    /// Whether it has closed the connection, as its end does: nobody will hear the answer. Asks the kernel, so
    /// what has happened before counts, whether or not the async runtime has come to see it.
    pub fn is_gone(&self) -> bool {
        let Some(connection) = &self.0 else {
            return false;
        };
        let mut look = [PollFd::new(connection.as_fd(), PollFlags::empty())];
        let looked = poll(&mut look, PollTimeout::ZERO);
        looked.is_ok()
            && look[0]
                .revents()
                .is_some_and(|seen| seen.contains(PollFlags::POLLHUP))
    }
}

impl Connected<IncomingStream<'_, UnixListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        // Without it, the caller counts as there.
        Self(stream.io().as_fd().try_clone_to_owned().ok().map(Arc::new))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn an_end_that_is_closed_is_seen() {
        let (here, there) = UnixStream::pair().unwrap();
        let caller = Caller(Some(Arc::new(here.into())));
        assert!(!caller.is_gone());
        let second = there.try_clone().unwrap();
        drop(there);
        assert!(!caller.is_gone());
        drop(second);
        assert!(caller.is_gone());
    }
}
