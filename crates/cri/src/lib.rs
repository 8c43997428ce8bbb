//! A real containerd with runc, of one's own, and the questions that a kubelet asks it.
//!
//! ```text
//! Client ──CRI (gRPC over a unix socket)──▶ Containerd ──▶ shims ──▶ runc ──▶ containers of the image
//!                                               └──CNI──▶ the plugins under test
//! ```
//!
//! It is for tests and benchmarks; they say where it runs: inside a node of a lab, or a namespace. Its folders,
//! its control groups and its sockets are its own, and gone with it, as are all that it started.

mod cgroup;
mod client;
mod config;
mod containerd;
mod error;
mod image;
mod messages;

pub use client::{Client, Network, Pod, Sandbox};
pub use config::Cni;
pub use containerd::Containerd;
pub use error::Error;
pub use messages::{PortMapping, Protocol};
