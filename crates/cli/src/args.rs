use clap::{Parser, Subcommand};

use crate::node::{GetCommand, StatusArgs};
use crate::probe::ProbeCommand;

/// A Kubernetes network: pods reach every pod and every node without NAT.
#[derive(Debug, Parser)]
#[command(name = "tombolo", version, max_term_width = 100)]
#[command(after_help = "\
Exit status: 0 done; 1 failed; 2 wrong usage; 3 the check that was asked for found something wrong.")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// A whole cluster on this machine, for learning and for trying things out
    #[cfg(feature = "lab")]
    #[command(subcommand)]
    Lab(crate::lab::LabCommand),
    /// Prove the rules of the Kubernetes network with real traffic in a lab
    #[cfg(feature = "lab")]
    Connectivity(crate::connectivity::ConnectivityArgs),
    /// Connect the pods of this node (a daemon, one on each node)
    Agent(tombolo_agent::Args),
    /// Take the CNI plugin and its configuration off this node, and put back what was there before
    #[command(after_help = "\
Do it when the node's pods are gone and its agent has ended: the runtime needs the plugin to disconnect pods,
and an agent would install it again.")]
    AgentUninstall(tombolo_agent::UninstallArgs),
    /// Hand out blocks of pod addresses to nodes (a daemon, one for the cluster)
    Operator(tombolo_operator::Args),
    /// Say whether this node's network is healthy, and why not
    Status(StatusArgs),
    /// Show the tables of this node
    #[command(subcommand)]
    Get(GetCommand),
    /// Echo server and client that report the addresses they saw
    #[command(subcommand)]
    Probe(ProbeCommand),
    /// The control plane of a lab, started by `lab up`
    #[cfg(feature = "lab")]
    #[command(hide = true)]
    LabServe(tombolo_lab::ServeArgs),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
