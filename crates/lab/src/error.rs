use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// What can go wrong with a lab.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The options contradict each other or the address plan.
    #[error("{0}")]
    Options(String),
    /// A lab of that name is there already.
    #[error(
        "a lab named {0:?} is already up; take it down with `tombolo lab down --name {0}` or choose another --name"
    )]
    Exists(String),
    /// There is no lab of that name.
    #[error("there is no lab named {0:?}; `tombolo lab status` lists those that are up")]
    NoSuchLab(String),
    /// There is no lab at all.
    #[error("no lab is up; start one with `tombolo lab up`")]
    NoLab,
    /// A lab was left half-made.
    #[error("the lab {0:?} is not complete: {1}; remove it with `tombolo lab down --name {0}`")]
    Incomplete(String, String),
    /// Another command works on the lab.
    #[error(
        "another `tombolo lab up` or `down` is at work on the lab {0:?}; wait for it or end it, then try again"
    )]
    Busy(String),
    /// Something that the lab needs is not on this machine.
    #[error("{missing}; {remedy}")]
    Missing {
        /// What.
        missing: String,
        /// What to do.
        remedy: String,
    },
    /// A system call on a file, mount, control group or process failed.
    #[error("cannot {operation} {}: {source}{}", path.display(), hint(source))]
    System {
        /// What was tried, such as `create`.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A change of a namespace's network failed.
    #[error("the lab's network: {0}")]
    Netlink(#[from] tombolo_netlink::Error),
    /// A file that the lab keeps is not valid.
    #[error("{} is not valid: {source}; take the lab down and up again", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A manifest is not valid.
    #[error("{}: {reason}", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The lab's API server refused or did not answer.
    #[error("the lab's API server, {operation}: {reason}")]
    Api {
        /// What was asked.
        operation: String,
        /// Its answer.
        reason: String,
    },
    /// A process of the lab ended though it should run.
    #[error("{name} ended ({status}); its last words, from {}:\n{tail}", log.display())]
    Ended {
        /// Which.
        name: String,
        /// How.
        status: String,
        /// Where it wrote.
        log: PathBuf,
        /// The end of that.
        tail: String,
    },
    /// Something did not come about in time.
    #[error("{waiting_for} took longer than {seconds} s: {state}")]
    Deadline {
        /// What.
        waiting_for: String,
        /// How long was waited.
        seconds: u64,
        /// How far it got, and where to look.
        state: String,
    },
    /// `up` was interrupted.
    #[error("interrupted; everything made so far was removed")]
    Interrupted,
    /// A node or pod that the lab does not have.
    #[error("the lab {lab:?} has no node or pod named {name:?}; it has {known}")]
    NoSuchPlace {
        /// The lab.
        lab: String,
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// Several things that do not depend on each other failed.
    #[error("{}", Listed(.0))]
    Several(Vec<Error>),
}

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

struct Listed<'a>(&'a [Error]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} things failed:", self.0.len())?;
        self.0.iter().try_for_each(|error| write!(f, "\n  - {error}"))
    }
}

fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => "; the lab needs root: run it with sudo",
        _ => "",
    }
}

/// Makes [`Error::System`] of an I/O error.
pub(crate) fn system<E: Into<io::Error>>(operation: &'static str, path: &Path) -> impl FnOnce(E) -> Error {
    let path = path.to_owned();
    move |source| Error::System {
        operation,
        path,
        source: source.into(),
    }
}

/// Collects the failures of steps that are all to be tried.
#[derive(Debug, Default)]
pub(crate) struct Failures(Vec<Error>);

impl Failures {
    /// Notes a step's failure.
    pub(crate) fn note<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.0.push(error)).ok()
    }

    /// All failures as one.
    pub(crate) fn into_result(mut self) -> Result<()> {
        match self.0.len() {
            0 => Ok(()),
            1 => Err(self.0.remove(0)),
            _ => Err(Error::Several(self.0)),
        }
    }
}
