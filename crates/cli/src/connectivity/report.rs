//! The matrix, for people and for machines.

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use serde_json::{Value, json};

use super::cases::{Case, Expect, Rule};
use super::cluster::{Cluster, Kind, Party};
use super::judge::Verdict;
use crate::error::Error;
use crate::output::{print, print_table};

/// How many failures are explained one by one.
const EXPLAINED: usize = 25;

/// Everything that was found out.
pub struct Matrix<'a> {
    cluster: &'a Cluster,
    cases: &'a [Case],
    verdicts: &'a [Verdict],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    rule: Rule,
    text: String,
    checks: usize,
    failed: usize,
}

impl<'a> Matrix<'a> {
    /// The matrix of all verdicts.
    pub fn new(cluster: &'a Cluster, cases: &'a [Case], verdicts: &'a [Verdict]) -> Self {
        Self {
            cluster,
            cases,
            verdicts,
        }
    }

    /// Whether everything is as it must be.
    pub fn is_good(&self) -> bool {
        self.verdicts.iter().all(|verdict| verdict.wrong.is_none())
    }

    /// Prints it for people.
    pub fn print(&self) -> Result<(), Error> {
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled);
        let targets = || self.cluster.parties.iter().map(label);
        table.set_header(["from \\ to".to_owned()].into_iter().chain(targets()));
        let asks = |(_, party): &(usize, &Party)| party.kind != Kind::Service;
        for (source, party) in self.cluster.parties.iter().enumerate().filter(asks) {
            let cells = (0..self.cluster.parties.len()).map(|target| self.cell(source, target));
            table.add_row([label(party)].into_iter().chain(cells));
        }
        print_table(&table)?;
        print(
            "\nok: every check as it must be (TCP, UDP, ICMP; small, MTU-sized, 64 kB)   silent: nothing came \
             through, as it must be   .: not Tombolo's, or not yet\n",
        )?;
        for Summary {
            text, checks, failed, ..
        } in self.summary()
        {
            let (mark, count) = match (checks, failed) {
                (0, _) => ("none", "the lab has no such pair".to_owned()),
                (_, 0) => ("ok", format!("{checks} checks")),
                (_, _) => ("FAIL", format!("{failed} of {checks} checks")),
            };
            print(format_args!("{mark:<5} {text}: {count}"))?;
        }
        self.explain()
    }

    fn cell(&self, source: usize, target: usize) -> String {
        let of_pair = || {
            self.verdicts
                .iter()
                .filter(|one| one.source == source && one.target == target)
        };
        let (checks, failed) = (
            of_pair().count(),
            of_pair().filter(|one| one.wrong.is_some()).count(),
        );
        match (checks, failed) {
            (0, _) => ".".to_owned(),
            (_, 0) if of_pair().all(|one| one.rule == Rule::OutsideToPod) => "silent".to_owned(),
            (_, 0) => "ok".to_owned(),
            _ => format!("FAIL {failed}/{checks}"),
        }
    }

    fn summary(&self) -> Vec<Summary> {
        let of_rule = |rule: Rule| self.verdicts.iter().filter(move |one| one.rule == rule);
        Rule::ALL
            .into_iter()
            .map(|rule| Summary {
                rule,
                text: rule.to_string(),
                checks: of_rule(rule).count(),
                failed: of_rule(rule).filter(|one| one.wrong.is_some()).count(),
            })
            .collect()
    }

    fn explain(&self) -> Result<(), Error> {
        let wrong: Vec<&Verdict> = self.verdicts.iter().filter(|one| one.wrong.is_some()).collect();
        if wrong.is_empty() {
            return Ok(());
        }
        print("")?;
        for verdict in wrong.iter().take(EXPLAINED) {
            let (from, to) = (
                &self.cluster.parties[verdict.source],
                &self.cluster.parties[verdict.target],
            );
            let how = verdict
                .case
                .map(|index| form(&self.cases[index]))
                .unwrap_or_default();
            let what = verdict.wrong.as_deref().unwrap_or_default();
            print(format_args!("{} -> {}{how}: {what}", from.name, to.name))?;
        }
        if wrong.len() > EXPLAINED {
            print(format_args!(
                "and {} more; --json lists all",
                wrong.len() - EXPLAINED
            ))?;
        }
        let mut nodes: Vec<&str> = wrong
            .iter()
            .flat_map(|one| [one.source, one.target])
            .filter_map(|index| self.cluster.parties[index].node.as_deref())
            .collect();
        nodes.sort_unstable();
        nodes.dedup();
        print("\nWhere to look:")?;
        for node in nodes {
            print(format_args!(
                "  tombolo lab exec {node} -- tombolo get drops   # or: get routes, get endpoints, status"
            ))?;
        }
        Ok(())
    }

    /// For machines: the rules' summary, and every check.
    pub fn json(&self) -> Value {
        let checks: Vec<Value> = self.verdicts.iter().map(|verdict| self.check(verdict)).collect();
        json!({"ok": self.is_good(), "rules": self.summary(), "checks": checks})
    }

    fn check(&self, verdict: &Verdict) -> Value {
        let name = |index: usize| &self.cluster.parties[index].name;
        let mut value = json!({
            "rule": verdict.rule,
            "source": name(verdict.source),
            "target": name(verdict.target),
            "ok": verdict.wrong.is_none(),
        });
        if let Some(wrong) = &verdict.wrong {
            value["wrong"] = json!(wrong);
        }
        if let Some(case) = verdict.case.map(|index| &self.cases[index]) {
            value["protocol"] = json!(case.check.protocol);
            value["address"] = json!(case.check.address);
            value["size"] = json!(case.size);
            value["bytes"] = json!(case.check.size);
            value["expect"] = match &case.expect {
                Expect::Untranslated(own) => json!({"source": own, "nat": false}),
                Expect::Translated(node) => json!({"source": node, "nat": true}),
                Expect::Backend(backends) => json!({"backends": backends}),
                Expect::Refused => json!("refused"),
                Expect::Nothing => json!("nothing"),
            };
        }
        value
    }
}

fn label(party: &Party) -> String {
    match (party.kind, &party.node) {
        (Kind::Pod, Some(node)) => format!("{}@{}", party.name, node.trim_start_matches("node")),
        _ => party.name.clone(),
    }
}

fn form(case: &Case) -> String {
    let protocol = format!("{:?}", case.check.protocol).to_lowercase();
    format!(" ({}, {protocol}, {} bytes)", case.check.address, case.check.size)
}
