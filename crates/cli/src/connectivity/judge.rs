//! Whether what came of a case is what must. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use tombolo_probe::check::{Answer, Kind as FailureKind, Outcome, Success};

use super::cases::{Case, Expect, Rule};
use super::cluster::{Cluster, Kind};
use super::probes::Seen;

/// A case's verdict: nothing, or what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The rule.
    pub rule: Rule,
    /// Who asked.
    pub source: usize,
    /// Who was asked.
    pub target: usize,
    /// The case; none for what a pod sees on itself.
    pub case: Option<usize>,
    /// What is wrong, with what was expected and what was seen.
    pub wrong: Option<String>,
}

/// Judges all cases, and the addresses that pods have.
pub fn all(cluster: &Cluster, cases: &[Case], seen: &Seen) -> Vec<Verdict> {
    let mut verdicts: Vec<Verdict> = cases
        .iter()
        .enumerate()
        .map(|(index, case)| Verdict {
            rule: case.rule,
            source: case.source,
            target: case.target,
            case: Some(index),
            wrong: match seen.outcomes.get(&index) {
                Some(outcome) => one(case, outcome).err(),
                None => Some("the probe did not report on it".to_owned()),
            },
        })
        .collect();
    for (index, pod) in cluster
        .parties
        .iter()
        .enumerate()
        .filter(|(_, party)| party.kind == Kind::Pod)
    {
        let api: BTreeSet<IpAddr> = pod.addresses.iter().copied().collect();
        let own: BTreeSet<IpAddr> = seen.own.get(&index).into_iter().flatten().copied().collect();
        let wrong =
            (api != own).then(|| format!("the API says podIPs {}, the pod has {}", list(&api), list(&own)));
        verdicts.push(Verdict {
            rule: Rule::OwnAddress,
            source: index,
            target: index,
            case: None,
            wrong,
        });
    }
    verdicts
}

fn one(case: &Case, outcome: &Outcome) -> Result<(), String> {
    match (&case.expect, &outcome.answer) {
        (Expect::Nothing, Answer::Failure(failure)) if failure.kind == FailureKind::Timeout => Ok(()),
        (Expect::Nothing, Answer::Failure(failure)) => {
            Err(format!("expected silence, got an answer: {}", failure.message))
        }
        (Expect::Nothing, Answer::Success(success)) => {
            Err(format!("expected silence, {} answered", success.server.ip()))
        }
        (Expect::Refused, Answer::Failure(failure)) if failure.kind == FailureKind::Refused => Ok(()),
        (Expect::Refused, Answer::Failure(failure)) => {
            Err(format!("expected a refusal, got none: {}", failure.message))
        }
        (Expect::Refused, Answer::Success(success)) => {
            Err(format!("expected a refusal, {} answered", success.server.ip()))
        }
        (_, Answer::Failure(failure)) => Err(format!("expected an answer, got none: {}", failure.message)),
        (Expect::Untranslated(own), Answer::Success(success)) => untranslated(case, success, own),
        (Expect::Backend(backends), Answer::Success(success)) => by_backend(success, backends),
        (Expect::Translated(node), Answer::Success(success)) => {
            target_is_right(case, success)?;
            match success.seen.map(|seen| seen.ip()) {
                Some(seen) if !node.contains(&seen) => Err(format!(
                    "expected the node's source address ({}), the server saw {seen}",
                    list(node)
                )),
                _ => Ok(()),
            }
        }
    }
}

fn untranslated(case: &Case, success: &Success, own: &BTreeSet<IpAddr>) -> Result<(), String> {
    target_is_right(case, success)?;
    let local = success.local.ip();
    if !own.contains(&local) {
        return Err(format!(
            "expected the client's source address to be {}, it is {local}",
            list(own)
        ));
    }
    match success.seen {
        Some(seen) if seen != success.local => Err(format!(
            "expected no NAT: sent from {}, the server saw {seen}",
            success.local
        )),
        _ => Ok(()),
    }
}

fn by_backend(success: &Success, backends: &BTreeMap<IpAddr, BTreeSet<IpAddr>>) -> Result<(), String> {
    let server = success.server.ip();
    let Some(sources) = backends.get(&server) else {
        let backends = backends.keys().copied().collect();
        return Err(format!("expected {} to answer, {server} did", list(&backends)));
    };
    match success.seen.map(|seen| seen.ip()) {
        Some(seen) if !sources.contains(&seen) => Err(format!(
            "expected {server} to see {}, it saw {seen}",
            list(sources)
        )),
        _ => Ok(()),
    }
}

fn target_is_right(case: &Case, success: &Success) -> Result<(), String> {
    if success.server.ip() == case.check.address {
        return Ok(());
    }
    Err(format!(
        "expected {} to answer, {} did",
        case.check.address,
        success.server.ip()
    ))
}

fn list(addresses: &BTreeSet<IpAddr>) -> String {
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    if texts.is_empty() {
        "none".to_owned()
    } else {
        texts.join(" or ")
    }
}

#[cfg(test)]
mod tests {
    use tombolo_probe::check::{Check, Failure, Protocol};

    use super::super::cases::Size;
    use super::*;

    fn case(expect: Expect) -> Case {
        let check = Check {
            id: "0".to_owned(),
            protocol: Protocol::Udp,
            address: "10.244.2.9".parse().unwrap(),
            port: None,
            size: 64,
            dont_fragment: false,
            deadline_ms: 1,
            source: None,
        };
        Case {
            rule: Rule::OtherNode,
            source: 0,
            target: 1,
            size: Size::Small,
            check,
            expect,
        }
    }

    fn success(local: &str, seen: &str) -> Answer {
        Answer::Success(Success {
            seen: Some(seen.parse().unwrap()),
            server: "10.244.2.9:7070".parse().unwrap(),
            local: local.parse().unwrap(),
            path_mtu: None,
        })
    }

    fn failure(kind: FailureKind) -> Answer {
        Answer::Failure(Failure {
            kind,
            message: "m".to_owned(),
            path_mtu: None,
        })
    }

    fn judge(expect: Expect, answer: Answer) -> Result<(), String> {
        one(
            &case(expect),
            &Outcome {
                id: "0".to_owned(),
                micros: 1,
                attempts: 1,
                answer,
            },
        )
    }

    fn set(address: &str) -> BTreeSet<IpAddr> {
        [address.parse().unwrap()].into()
    }

    #[test]
    fn translation_is_found_out() {
        let own = || Expect::Untranslated(set("10.244.1.5"));
        assert_eq!(
            judge(own(), success("10.244.1.5:4000", "10.244.1.5:4000")),
            Ok(())
        );
        for seen in ["172.20.1.11:4000", "10.244.1.5:4001"] {
            assert!(
                judge(own(), success("10.244.1.5:4000", seen))
                    .unwrap_err()
                    .contains("no NAT")
            );
        }
        assert!(judge(own(), success("10.9.9.9:4000", "10.9.9.9:4000")).is_err());
        assert!(judge(own(), failure(FailureKind::Timeout)).is_err());
    }

    #[test]
    fn a_missing_translation_is_found_out() {
        let node = || Expect::Translated(set("172.20.1.11"));
        assert_eq!(
            judge(node(), success("10.244.1.5:4000", "172.20.1.11:5000")),
            Ok(())
        );
        assert!(judge(node(), success("10.244.1.5:4000", "10.244.1.5:4000")).is_err());
    }

    #[test]
    fn only_silence_is_nothing() {
        assert_eq!(judge(Expect::Nothing, failure(FailureKind::Timeout)), Ok(()));
        for kind in [FailureKind::Refused, FailureKind::Unreachable] {
            assert!(judge(Expect::Nothing, failure(kind)).is_err());
        }
        assert!(judge(Expect::Nothing, success("198.51.100.10:1", "198.51.100.10:1")).is_err());
    }

    #[test]
    fn a_wrong_backend_and_a_wrong_source_are_found_out() {
        let expect =
            |backend: &str, source: &str| Expect::Backend([(backend.parse().unwrap(), set(source))].into());
        let answer = || success("10.244.1.5:4000", "10.244.1.5:4000");
        assert_eq!(judge(expect("10.244.2.9", "10.244.1.5"), answer()), Ok(()));
        assert!(judge(expect("10.244.2.8", "10.244.1.5"), answer()).is_err());
        assert!(judge(expect("10.244.2.9", "172.20.1.11"), answer()).is_err());
        assert!(judge(expect("10.244.2.9", "10.244.1.5"), failure(FailureKind::Refused)).is_err());
    }

    #[test]
    fn only_a_refusal_is_one() {
        assert_eq!(judge(Expect::Refused, failure(FailureKind::Refused)), Ok(()));
        assert!(judge(Expect::Refused, failure(FailureKind::Timeout)).is_err());
        assert!(judge(Expect::Refused, success("10.244.1.5:1", "10.244.1.5:1")).is_err());
    }

    #[test]
    fn the_wrong_answerer_is_found_out() {
        let answer = Answer::Success(Success {
            seen: None,
            server: "10.244.2.8:0".parse().unwrap(),
            local: "10.244.1.5:0".parse().unwrap(),
            path_mtu: None,
        });
        assert!(judge(Expect::Untranslated(set("10.244.1.5")), answer).is_err());
    }
}
