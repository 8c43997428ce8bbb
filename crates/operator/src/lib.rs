//! Cluster-wide work: a NodeNetwork for each Node, with an index and blocks of pod addresses.
//!
//! What is to be done is decided by one pure function of the objects, [`plan`]: nothing is
//! remembered between runs, so a crash at any point leaves nothing to clean up.

mod args;
mod plan;
mod run;

pub use args::Args;
pub use plan::{Action, Plan, plan};
pub use run::{Error, run};
