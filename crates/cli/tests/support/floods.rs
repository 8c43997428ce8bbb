//! Numbered packets between two pods, both ways and in both families, each of which must come back once.

use std::io::Read;
use std::process::Stdio;

use serde_json::Value;

use super::{Background, Lab, TOMBOLO, eventually, succeed};

/// Packets a second of each flood.
const RATE: &str = "250";

/// Floods that flow.
pub struct Floods<'a> {
    lab: &'a Lab,
    pods: [&'static str; 2],
    floods: Vec<Background>,
}

impl<'a> Floods<'a> {
    /// Begins, and waits until all flow.
    pub fn begin(lab: &'a Lab, pods: [&'static str; 2]) -> Self {
        let mut floods = Vec::new();
        for [from, to] in [pods, [pods[1], pods[0]]] {
            for address in lab.addresses(to) {
                let words = [
                    "probe",
                    "flood",
                    "--to",
                    &address,
                    "--rate",
                    RATE,
                    "--packets",
                    "4000000",
                    "--until-eof",
                ];
                let mut command = lab.exec(from, &[&[TOMBOLO], &words[..]].concat());
                let flood = command
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .spawn()
                    .unwrap();
                floods.push(Background(flood));
            }
        }
        let floods = Self { lab, pods, floods };
        floods.wait_for_more();
        floods
    }

    /// Waits until both pods have received 200 more packets of each family.
    #[track_caller]
    pub fn wait_for_more(&self) {
        let received = || self.pods.map(|pod| received(self.lab, pod)).concat();
        let before = received();
        eventually("200 more packets of each family", 20, || {
            let now = received();
            now.iter()
                .zip(&before)
                .all(|(now, before)| *now >= before + 200)
                .then_some(())
        });
    }

    /// Ends them; returns how many packets were sent, none of which was lost or doubled.
    #[track_caller]
    pub fn finish(mut self) -> u64 {
        self.wait_for_more();
        let mut sent = 0;
        for flood in &mut self.floods {
            assert!(
                flood.0.try_wait().unwrap().is_none(),
                "the flood ended before the agents were replaced"
            );
            drop(flood.0.stdin.take());
            let mut text = String::new();
            flood
                .0
                .stdout
                .as_mut()
                .unwrap()
                .read_to_string(&mut text)
                .unwrap();
            let tally: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(tally["lost"], 0, "{tally}\n{}", self.lab.datapath());
            assert_eq!(tally["duplicated"], 0, "{tally}");
            sent += tally["sent"].as_u64().unwrap();
        }
        sent
    }
}

/// Datagrams that a pod has received, by family.
fn received(lab: &Lab, pod: &str) -> [u64; 2] {
    let text = succeed(&mut lab.exec(pod, &["cat", "/proc/net/snmp", "/proc/net/snmp6"]));
    let v4 = text
        .lines()
        .filter_map(|line| line.strip_prefix("Udp: "))
        .nth(1)
        .unwrap();
    let v6 = text
        .lines()
        .find_map(|line| line.strip_prefix("Udp6InDatagrams"))
        .unwrap();
    [v4.split(' ').next().unwrap(), v6.trim()].map(|number| number.parse().unwrap())
}
