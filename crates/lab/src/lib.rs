//! A cluster on one machine: nodes are network namespaces that run the very agent that production runs.
//!
//! `lab up` makes a [`plan`] of the options; builds the [`fabric`] with the namespaces of all nodes; and
//! starts, each in its [`place`], the lab's own control plane ([`serve`]), the operator, and on every node
//! the agent. All that a lab has lies in its folder ([`state`]), its control group and its namespaces, so
//! that [`down`](fn@down) finds everything, whatever happened before.

mod api;
mod cgroup;
mod down;
mod error;
mod exec;
mod fabric;
mod manifest;
mod mount_namespace;
mod mounts;
mod options;
mod place;
pub mod plan;
mod pod;
mod port_mapping;
mod serve;
mod state;
mod status;
mod up;

pub use api::Api;
pub use down::{down, labs};
pub use error::{Error, Result};
pub use exec::{exec, find_place};
pub use fabric::PodRoutes;
pub use options::{DEFAULT_NAME, Families, LayoutArg, NameArgs, RoutingArg, UpArgs};
pub use place::{CONTROL, OUTSIDE, Place, ROUTER};
pub use pod::PodRecord;
pub use serve::{ServeArgs, serve};
pub use state::LabDir;
pub use status::{LabStatus, NodeStatus, PodStatus, ProcessStatus, status};
pub use up::up;
