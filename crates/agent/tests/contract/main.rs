//! The CNI contract, kept by the real plugin and the real agent: CHECK, STATUS, GC, chains, and what is left when
//! something fails at any step or in any order.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what panics here fails the test"
)]

#[path = "../common/mod.rs"]
mod common;

mod chain;
mod check;
mod collect;
mod faults;
mod histories;
mod host_ports;
mod shipped;
mod status;

/// Blocks of a node for pods of both families.
const DUAL: [&str; 2] = ["10.244.1.0/24", "fd00:10:244::1:0/112"];
