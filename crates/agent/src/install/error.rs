use std::io;
use std::path::{Path, PathBuf};

/// Why the plugin or its configuration is not installed, or not taken away.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no plugin to install.
    #[error(
        "cannot read the CNI plugin {}: {source}; put it beside this program, or say with --cni-plugin where it is",
        path.display()
    )]
    Plugin {
        /// Where it should be.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file that is there cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file cannot be put in its place; what was there before still is.
    #[error("cannot put {} in place: {source}{}", path.display(), remedy(source))]
    Write {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file cannot be taken away.
    #[error("cannot remove {}: {source}{}", path.display(), remedy(source))]
    Remove {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// What says what is installed makes no sense.
    #[error(
        "{} does not say what is installed: {source}; remove it, and by hand what was installed",
        path.display()
    )]
    Record {
        /// The record.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

impl Error {
    /// Wraps what the system said of the plugin to install.
    pub(super) fn plugin(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Plugin {
            path: path.into(),
            source,
        }
    }

    /// Wraps what the system said of a file that is there.
    pub(super) fn read(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Read {
            path: path.into(),
            source,
        }
    }

    /// Wraps what the system said of a file that is to be.
    pub(super) fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Write {
            path: path.into(),
            source,
        }
    }

    /// Wraps what the system said of a file that is not to be.
    pub(super) fn remove(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Remove {
            path: path.into(),
            source,
        }
    }
}

fn remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free space there, and the agent tries again by itself"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "; make the folder writable for the agent, or name another that the runtime looks into \
             (--cni-bin-dir, --cni-conf-dir)"
        }
        _ => "",
    }
}
