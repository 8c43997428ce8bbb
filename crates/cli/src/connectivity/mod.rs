//! `tombolo connectivity`: the rules of the Kubernetes network as a matrix, proven with real traffic from
//! inside the pods, the nodes and the outside host of a lab.
//!
//! A snapshot of the [`cluster`] gives the [`cases`] (pure); [`probes`] run them where they belong; each
//! outcome is [`judge`]d (pure); the [`report`] shows them.

mod cases;
mod cluster;
mod judge;
mod probes;
mod report;
mod services;

use std::process::ExitCode;

use clap::Args;
use tombolo_lab::{LabDir, NameArgs, PodRoutes};

use self::cases::{Case, Rule};
use self::cluster::Cluster;
use crate::FOUND_WRONG;
use crate::error::Error;
use crate::output::print_json;

/// The options of `tombolo connectivity`.
#[derive(Debug, Args)]
#[command(after_help = "\
Every pod, node and the outside host asks every target over TCP, UDP and ICMP, in all IP families, with small,
MTU-sized (unfragmented) and 64 kB payloads. Servers report the source address that they saw: where it is not
the address that the client has, something translated it. ICMP is answered by the target's kernel, which cannot
report that; there the check is that the reply comes from the address that was asked.

Services with probes behind them are asked by pods at their cluster IPs, and by the outside host at every node's
port and at their load balancer addresses. Nodes' own processes do not reach Services yet, and are not asked to.

Exit status 0 only if every cell is as the model demands, otherwise 3.")]
pub struct ConnectivityArgs {
    #[command(flatten)]
    name: NameArgs,
    /// Print every check as JSON
    #[arg(long)]
    json: bool,
}

/// Makes all checks and reports.
///
/// # Errors
/// If checks could not be made at all; a check that fails is part of the report.
pub async fn run(args: &ConnectivityArgs) -> Result<ExitCode, Error> {
    let lab = LabDir::find(args.name.name.as_deref())?;
    let cluster = Cluster::read(&lab).await?;
    let cases = cases::all(&cluster);
    let (outside, inside): (Vec<Case>, Vec<Case>) = cases
        .iter()
        .cloned()
        .partition(|case| case.rule == Rule::OutsideToPod);
    // The router knows no pods here: a packet between nodes that should be in the overlay and is not, or that
    // leaves the cluster untranslated, must not find its way by accident.
    let mut seen = probes::run(&lab, &cluster, &inside).await?;
    // For these alone it does: whoever is outside shall have a way to the pods, and the nodes must refuse.
    let announced = PodRoutes::announce(&lab, &cluster.blocks())?;
    seen.add(probes::run(&lab, &cluster, &outside).await?);
    drop(announced);
    let verdicts = judge::all(&cluster, &cases, &seen);
    let matrix = report::Matrix::new(&cluster, &cases, &verdicts);
    if args.json {
        print_json(&matrix.json())?;
    } else {
        matrix.print()?;
    }
    Ok(if matrix.is_good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FOUND_WRONG)
    })
}
