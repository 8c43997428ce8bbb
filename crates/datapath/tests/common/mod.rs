//! What the tests share: a place of their own in the kernel, a small cluster in its tables, packets,
//! and assertions on all counters.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test")]

pub mod bed;
pub mod cluster;
pub mod cut_short;
pub mod frame;
pub mod node;
pub mod service;
