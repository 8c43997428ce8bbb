//! Where the logs of containers come from.

use std::io;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use thiserror::Error;

/// The log that a client wants to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRequest {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's uid.
    pub uid: String,
    /// The container, which the pod has.
    pub container: String,
    /// Whether to go on with what comes, until the container ends.
    pub follow: bool,
    /// How many of the last lines to begin with; None: all.
    pub tail_lines: Option<u64>,
    /// Whether each line begins with its time (RFC 3339) and a space.
    pub timestamps: bool,
}

/// The bytes of a log, in chunks of any size.
pub type LogStream = BoxStream<'static, io::Result<Bytes>>;

/// Why a log cannot be read.
#[derive(Debug, Error)]
pub enum LogError {
    /// There is no log yet.
    #[error("container \"{container}\" in pod \"{pod}\" is waiting to start: {why}")]
    Waiting {
        /// The pod.
        pod: String,
        /// The container.
        container: String,
        /// Why it has not started.
        why: String,
    },
    /// The log is there and cannot be read.
    #[error("cannot read the log of container \"{container}\" in pod \"{pod}\": {source}")]
    Unreadable {
        /// The pod.
        pod: String,
        /// The container.
        container: String,
        /// What failed.
        source: io::Error,
    },
}

/// What runs the containers, and so has their logs.
pub trait LogSource: Send + Sync {
    /// Opens a log.
    fn open(&self, request: LogRequest) -> BoxFuture<'_, Result<LogStream, LogError>>;
}

/// The source of a cluster in which no containers run.
#[derive(Clone, Copy, Debug)]
pub struct NoLogs;

impl LogSource for NoLogs {
    fn open(&self, request: LogRequest) -> BoxFuture<'_, Result<LogStream, LogError>> {
        let LogRequest { pod, container, .. } = request;
        let why = "nothing runs containers here".to_owned();
        Box::pin(async { Err(LogError::Waiting { pod, container, why }) })
    }
}
