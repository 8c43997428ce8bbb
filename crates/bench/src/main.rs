//! Tombolo measured against its peers, in pairs and by turns, on this machine: see docs/benchmarks.md.
//!
//! ```text
//! cni        the life of a pod: ADD and DEL         ─┐
//! sandbox    the same, as a kubelet waits for it    ─┤
//! traffic    what goes through: load over paths     ─┤
//! services   the same through Services, from pods   ─┼─▶ figure ─▶ report
//!            and from outside                        │
//! programming  how fast Services reach the kernel   ─┤
//! footprint  what it costs: memory, size, lab up    ─┘
//!               └── on: cluster (real agents), objects, peers, plugin, load
//! ```
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for the terminal: figures to stdout, progress to stderr"
)]

mod cluster;
mod cni;
mod figure;
mod footprint;
mod interrupt;
mod load;
mod objects;
mod peers;
mod plugin;
mod priority;
mod programming;
mod report;
mod rounds;
mod sandbox;
mod services;
mod statistics;
mod traffic;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand, ValueEnum};

use crate::figure::Figure;
use crate::rounds::Effort;

/// Measure Tombolo against its peers
#[derive(Debug, Parser)]
#[command(name = "tombolo-bench", args_conflicts_with_subcommands = true)]
struct Cli {
    /// Only these figures; left out: all
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Group>,
    /// Few and short rounds, to see that everything runs; the intervals say little then
    #[arg(long)]
    quick: bool,
    /// Put the tables between the markers of this Markdown file, too
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    #[command(subcommand)]
    load: Option<LoadCommand>,
}

/// The two sides of the load generator, which the benchmark starts in their namespaces.
#[derive(Debug, Subcommand)]
enum LoadCommand {
    #[command(hide = true)]
    LoadServer(load::server::Args),
    #[command(hide = true)]
    LoadClient(load::client::Args),
}

/// What is measured together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Group {
    Cni,
    Sandbox,
    SameNode,
    Direct,
    Vxlan,
    ClusterIp,
    NodePort,
    Programming,
    Agent,
    AgentStart,
    Lab,
}

impl Group {
    fn measure(self, effort: Effort) -> Result<Vec<Figure>> {
        match self {
            Self::Cni => cni::measure(effort),
            Self::Sandbox => sandbox::measure(effort),
            Self::SameNode => traffic::same_node(effort),
            Self::Direct => traffic::direct(effort),
            Self::Vxlan => traffic::vxlan(effort),
            Self::ClusterIp => services::cluster_ip(effort),
            Self::NodePort => services::node_port(effort),
            Self::Programming => programming::measure(effort),
            Self::Agent => footprint::agent_and_plugin(effort),
            Self::AgentStart => footprint::agent_start(effort),
            Self::Lab => footprint::lab_up(effort),
        }
    }
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tombolo-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    match &cli.load {
        Some(LoadCommand::LoadServer(args)) => return load::server::run(args),
        Some(LoadCommand::LoadClient(args)) => return load::client::run(args),
        None => {}
    }
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the benchmarks make network namespaces: run them as root"
    );
    interrupt::notice()?;
    let _priority = priority::Priority::raise()?;
    let effort = if cli.quick { Effort::Quick } else { Effort::Full };
    let mut figures = Vec::new();
    for &group in Group::value_variants() {
        if cli.only.is_empty() || cli.only.contains(&group) {
            let name = group
                .to_possible_value()
                .map_or_else(String::new, |v| v.get_name().into());
            eprintln!("measuring: {name}");
            figures.extend(group.measure(effort).with_context(|| format!("measure {name}"))?);
        }
    }
    let text = report::markdown(&figures)?;
    println!("{text}");
    match &cli.write {
        Some(file) => report::write(file, &text),
        None => Ok(()),
    }
}
