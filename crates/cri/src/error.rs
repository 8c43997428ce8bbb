use std::io;
use std::path::PathBuf;

/// Why the runtime does not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder of containerd's own cannot be made, read or removed.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A program is not there or cannot be started.
    #[error("cannot run {program}: {source}; the Debian packages containerd and runc have it")]
    Program {
        /// Which.
        program: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It did not come up, or could not take the image.
    #[error("containerd {what}; it said last:\n{log}")]
    Start {
        /// What is wrong.
        what: String,
        /// The end of its log.
        log: String,
    },
    /// It refused a request, or did not answer.
    #[error("{method}: {status}")]
    Request {
        /// Which.
        method: &'static str,
        /// Its answer; large.
        #[source]
        status: Box<tonic::Status>,
    },
    /// A command inside a container failed.
    #[error("{command} ended with {status} and said {said:?}")]
    Command {
        /// Which.
        command: String,
        /// Its exit status.
        status: i32,
        /// What it wrote to its standard error.
        said: String,
    },
    /// Processes that were killed did not go.
    #[error("{0:?} were killed and are still there; look at /proc/<pid>/stack")]
    Undead(Vec<i32>),
}

impl Error {
    /// Wraps what the system said of a file.
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}
