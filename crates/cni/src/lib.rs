//! CNI protocol types, and the plugin binary tombolo-cni
pub mod agent;
mod config;
mod environment;
pub mod error;
mod link_name;
pub mod released;
mod result;
mod version;

pub use config::{CONFIG_MAX, Config};
pub use environment::{
    Args, CONTAINER_ID_MAX, Command, ContainerId, Environment, INTERFACE_NAME_MAX, InterfaceName, invalid,
};
pub use error::Error;
pub use link_name::{HOST_LINK_PREFIX, host_link_name};
pub use result::{AddResult, Dns, Interface, Ip, Route};
pub use version::{Version, VersionInfo};
