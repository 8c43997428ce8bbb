use std::io;
use std::path::PathBuf;

/// Why a command failed: one line, with what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The lab's failure.
    #[cfg(feature = "lab")]
    #[error(transparent)]
    Lab(#[from] tombolo_lab::Error),
    /// The agent's failure.
    #[error(transparent)]
    Agent(#[from] tombolo_agent::Error),
    /// The operator's failure.
    #[error(transparent)]
    Operator(#[from] tombolo_operator::Error),
    /// The probe's failure.
    #[error(transparent)]
    Probe(#[from] tombolo_probe::Error),
    /// No runtime.
    #[error("cannot start the runtime: {0}; is the limit of open files or threads too low?")]
    Runtime(io::Error),
    /// Nobody answers on the agent's socket.
    #[error(
        "cannot reach the agent at {}: {source}; does `tombolo agent` run on this node? \
         (in a lab: tombolo lab exec NODE -- tombolo ...)",
        socket.display()
    )]
    NoAgent {
        /// The socket.
        socket: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The agent's answer makes no sense.
    #[error("the agent at {} answered {path} with nonsense: {reason}; are agent and command of one release?", socket.display())]
    Agreement {
        /// The socket.
        socket: PathBuf,
        /// What was asked for.
        path: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The agent refused.
    #[error("the agent refused {path}: {reason}")]
    Refused {
        /// What was asked for.
        path: String,
        /// Its words.
        reason: String,
    },
    /// Output could not be written.
    #[error("cannot write the output: {0}")]
    Output(io::Error),
    /// There is nothing to check.
    #[cfg(feature = "lab")]
    #[error(
        "the lab {lab:?} has no running pod with the image tombolo/probe to check from; apply some: kubectl --kubeconfig {kubeconfig} apply -f examples/pods.yaml"
    )]
    NoPods {
        /// The lab.
        lab: String,
        /// Its kubeconfig.
        kubeconfig: String,
    },
    /// A place's checks could not be run.
    #[cfg(feature = "lab")]
    #[error("cannot run the checks inside {place}: {reason}; does `tombolo lab status` show it running?")]
    Checks {
        /// Where.
        place: String,
        /// Why.
        reason: String,
    },
}
