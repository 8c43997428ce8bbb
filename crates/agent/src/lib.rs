//! The node agent: makes the kernel of its node what the objects of the cluster say, and connects the
//! node's pods.
//!
//! ```text
//!  API server ─▶ objects ─┐
//!                         ├─▶ control ─▶ layout::compile ─▶ reconcile ─▶ kernel
//!  kernel ──▶ monitor,    │      │                          (overlay, sysctls, kernel_routes,
//!               │ facts ──┘      └─▶ status ─▶ API server    masquerade, tables, hooks)
//!               └─▶ slow_path ─▶ rows of endpoints
//!
//!  API server ─▶ services ─▶ services::compile ─▶ kernel
//!
//!  tombolo-cni ─▶ server ─▶ endpoints ─▶ wiring ─▶ kernel
//!                               └─▶ the address store
//! ```
//!
//! Nothing that waits for the kernel or the disk runs on the async runtime: the control loop has a
//! thread of its own, and so have Services and the monitor; endpoints are made on the runtime's blocking threads.
//!
//! So that the runtime calls the plugin at all, `control` has it installed (`install`) once pods can be served.
//!
//! Packets never meet the agent. What it makes outlives it, and at its start it takes up what is there.
//! While the API server is away, what was programmed stays, and pods come and go: blocks are in the
//! address store, the pods' MTU is in the node's own rows. No copy of the objects is kept on disk.

mod args;
mod caller;
mod claim;
mod control;
mod endpoints;
mod error;
mod facts;
#[cfg(not(feature = "fault-points"))]
mod fault;
#[cfg(feature = "fault-points")]
pub mod fault;
mod inside;
mod install;
mod journal;
mod kernel_routes;
mod kube_proxy;
mod masquerade;
mod metrics;
mod monitor;
mod objects;
mod overlay;
mod pod_routes;
mod reconcile;
mod reserved_ports;
mod restore;
mod run;
mod server;
mod services;
mod slow_path;
mod socket;
mod status;
mod sysctls;
mod turns;
mod views;
mod wiring;

pub use args::{Args, Attach, InstallArgs, LogFormat, UninstallArgs};
pub use error::Error;
pub use install::{CONFLIST_FILE, Error as InstallError, uninstall};
#[doc(hidden)]
pub use run::local_api;
pub use run::{run, runtime};
