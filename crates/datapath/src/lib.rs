//! The user side of the kernel side: loads, attaches, pins and replaces the programs of
//! `tombolo-bpf`, and gives typed access to their maps.
//!
//! What is pinned below the directory (which lies on a bpffs) outlives the process:
//!
//! ```text
//! <directory>/v<ABI>/<MAP>             the maps of one ABI version; of two, while one takes over from the other
//! <directory>/links/<device>-<hook>    what is attached: a tcx link, or the program of a clsact filter
//! ```
//!
//! The aya loader is not used, only its object parser: the loader reads all type information of the
//! running kernel, which nothing here needs and which would be most of the agent's memory.

mod attach;
mod bpf;
mod clsact;
mod counters;
mod datapath;
mod error;
mod object;
mod pins;
mod requirements;
mod rows;
mod staging;
mod table;
mod tables;
mod takeover;

pub use attach::Attach;
pub use bpf::program::{Packet, Run};
pub use clsact::{HANDLE as FILTER_HANDLE, PRIORITY as FILTER_PRIORITY};
pub use datapath::{Datapath, Options};
pub use error::{Error, Result};
pub use pins::remove;
pub use requirements::{Missing, requirements};
pub use rows::Rows;
pub use table::{Changes, Plain, Table};
pub use tables::{Tables, open_readonly};
