//! The plugin executed for real: environment, stdin, stdout, exit status, real namespaces and
//! links. The agent is a stand-in that answers with the real types over a real socket; the real
//! one is tested against the plugin in the agent's own crate and in the lab.

#![allow(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it must be"
)]

mod add;
mod agent;
mod bad_input;
mod check;
mod del;
mod gc;
mod loopback;
mod run;
mod status;
mod version;
