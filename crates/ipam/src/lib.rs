//! Addresses, from the cluster's pools down to a pod: nothing is ever given twice.
//!
//! There are two levels, and they share no state:
//!
//! - **Pools to node blocks**, in [`next_block`]: a pure function that the operator calls with the
//!   blocks already taken. What is taken is written in the NodeNetworks of the Kubernetes API;
//!   nothing is kept here.
//! - **Blocks to pod addresses**, in [`AddressStore`]: a file on each node, written by its agent
//!   alone.
//!
//! The store is three layers, each ignorant of the one above:
//!
//! | file | job |
//! | --- | --- |
//! | `index.rs` | which address is in use, rests, or comes next. Pure: time is an argument, and each change comes back as rows to write |
//! | `disk.rs` | rows to and from one redb file; a write is all or nothing and ends with fdatasync |
//! | `store.rs` | locks the index, gathers the rows of calls that run at once, writes them in one commit on a thread of its own, and answers when they are on the disk |
//!
//! Rules that hold throughout:
//!
//! - An allocation is on the disk before the caller hears of it; a release is, before its address
//!   can be given again. A process may be killed and a machine lose power at any point.
//! - When the disk refuses, memory forgets what it knew and reads the file again before the next
//!   call: what is on disk is the truth.
//! - A freed address rests before it is given again, so that packets still under way, and caches
//!   and connections of others, do not meet the wrong pod. Never-used addresses go first, then
//!   the one freed longest ago.
//! - The wall clock is never asked. The order of releases is a number on disk; how long an address
//!   has rested is measured by the monotonic clock of the process, and begins anew when the store
//!   is opened. A clock that jumps can thus neither shorten a rest nor prolong one.
//! - A block's first address (its all-zeros one) is not given to pods; all others are.

mod attachment;
mod block;
mod disk;
mod error;
mod family;
mod index;
mod pool;
mod store;

pub use attachment::{Attachment, HostPort, Owner, PodRef, Request};
pub use block::BlockUsage;
pub use error::{Error, PoolFault, Result};
pub use family::Family;
pub use pool::{Pool, next_block, validate};
pub use store::{AddressStore, Pending};
