//! CNI protocol types, and the plugin binary tombolo-cni
pub mod agent;
mod link_name;

pub use link_name::{HOST_LINK_PREFIX, host_link_name};
