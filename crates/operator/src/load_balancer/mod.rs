//! Addresses for Services of type LoadBalancer, out of the Network's `loadBalancerPools`.

mod balancer;
mod plan;

pub(crate) use balancer::Balancer;
pub use plan::{Assignment, CLASS, Plan, Problem, plan};
