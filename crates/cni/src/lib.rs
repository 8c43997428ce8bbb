//! The Container Network Interface: how a container runtime asks for a pod's network.
//!
//! For each pod the runtime executes a plugin, `tombolo-cni`, with an operation in the environment
//! and a configuration on stdin, and reads a result or an error from stdout (CNI `SPEC.md`,
//! versions 0.3.0 to 1.1.0). The plugin checks what it is given and asks the agent, which does the
//! work and lives on:
//!
//! ```text
//! runtime ──exec: environment, stdin──▶ tombolo-cni ──HTTP over a unix socket──▶ agent
//!         ◀──stdout, exit status──────             ◀──what was made, or why not──
//! ```
//!
//! Along the way of an ADD:
//!
//! | file | job |
//! | --- | --- |
//! | `environment.rs` | what comes by environment variables, each checked when it is asked for |
//! | `config.rs` | what comes by stdin, and `prevResult` of the plugins before this one |
//! | `agent.rs` | the conversation with the agent, which the agent and the command line use too |
//! | `result.rs` | what goes to stdout, in the version asked for |
//! | `error.rs` | what goes there instead, with the specification's codes |
//! | `version.rs` | the versions of the protocol |
//! | `link_name.rs` | the name of the host's side of a pod's link, which follows from the attachment alone |
//! | `released.rs` | what a DEL leaves for an agent that is down |
//! | `fault.rs` | where tests can have a step fail; nothing in what is shipped |
//! | `bin/tombolo-cni/` | the plugin: a file an operation, and the HTTP client |
//!
//! The plugin is executed for every pod, so it is small, static and synchronous: it starts in well
//! under a millisecond. Anything that takes knowledge or time is the agent's.
//!
//! DEL must work when hardly anything else does (the specification calls it best-effort): without
//! the namespace, without `prevResult`, repeatedly, and without an agent. For the last, see
//! [`released`].

pub mod agent;
mod config;
mod environment;
pub mod error;
pub mod fault;
mod link_name;
mod port_mappings;
pub mod released;
mod result;
mod version;

/// The plugin's program, by the name that configurations call it by.
pub const PLUGIN_NAME: &str = "tombolo-cni";

pub use config::{CONFIG_MAX, Config};
pub use environment::{
    Args, CONTAINER_ID_MAX, Command, ContainerId, Environment, INTERFACE_NAME_MAX, InterfaceName, invalid,
};
pub use error::Error;
pub use link_name::{HOST_LINK_PREFIX, host_link_name};
pub use result::{AddResult, Dns, Interface, Ip, Route};
pub use version::{Version, VersionInfo};
