//! Cluster-wide work: a NodeNetwork for each Node, with an index and blocks of pod addresses; and addresses for
//! Services of type LoadBalancer.
//!
//! What is to be done is decided by pure functions of the objects, [`plan`] and [`load_balancer::plan`]: nothing is
//! remembered between runs, so a crash at any point leaves nothing to clean up.

mod args;
pub mod load_balancer;
mod plan;
mod run;

pub use args::Args;
pub use plan::{Action, Plan, plan};
pub use run::{Error, run};
