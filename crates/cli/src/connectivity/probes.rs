//! Runs the cases where they belong: one probe process for each source, inside its namespaces.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::Stdio;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tombolo_lab::{LabDir, Place, find_place};
use tombolo_probe::check::{Check, Outcome, Report};

use super::cases::Case;
use super::cluster::Cluster;
use crate::error::Error;

/// Sources that ask at the same time: what they have in flight must fit into the memory that a target's
/// kernel keeps for reassembling fragments.
const AT_ONCE: usize = 4;

/// What came of the cases.
#[derive(Debug, Default)]
pub struct Seen {
    /// By the case's index.
    pub outcomes: BTreeMap<usize, Outcome>,
    /// The addresses that each source has on its interfaces, by its index.
    pub own: BTreeMap<usize, Vec<IpAddr>>,
}

impl Seen {
    /// Adds what came of other cases.
    pub fn add(&mut self, other: Self) {
        self.outcomes.extend(other.outcomes);
        self.own.extend(other.own);
    }
}

/// Runs all cases.
///
/// # Errors
/// If a source's process cannot be run.
pub async fn run(lab: &LabDir, cluster: &Cluster, cases: &[Case]) -> Result<Seen, Error> {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut running = JoinSet::new();
    for (source, party) in cluster.parties.iter().enumerate() {
        let checks = cases
            .iter()
            .filter(|case| case.source == source)
            .map(|case| case.check.clone());
        let checks: Vec<Check> = checks.collect();
        if checks.is_empty() {
            continue;
        }
        let place = find_place(lab, &party.name)?;
        let (name, turns) = (party.name.clone(), turns.clone());
        running.spawn(async move {
            let _turn = turns.acquire().await;
            let report = one(&place, &checks).await;
            (
                source,
                report.map_err(|reason| Error::Checks { place: name, reason }),
            )
        });
    }
    let mut seen = Seen::default();
    while let Some(done) = running.join_next().await {
        let (source, report) = done.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        let report = report?;
        seen.own.insert(source, report.addresses);
        for outcome in report.results {
            if let Ok(index) = outcome.id.parse() {
                seen.outcomes.insert(index, outcome);
            }
        }
    }
    Ok(seen)
}

async fn one(place: &Place, checks: &[Check]) -> Result<Report, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = place.command(program);
    command
        .args(["probe", "check"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut command = tokio::process::Command::from(command);
    command.kill_on_drop(true);
    let called = async {
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(&serde_json::to_vec(checks)?).await?;
        }
        child.wait_with_output().await
    };
    let output = called.await.map_err(|error: std::io::Error| error.to_string())?;
    serde_json::from_slice(&output.stdout).map_err(|_| {
        format!(
            "the probe ended with {} and said {:?}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        )
    })
}
