//! The agent is stopped, killed and replaced while packets flow between pods on two nodes: none is lost.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use support::{Background, Lab, TOMBOLO, eventually, run, succeed};

/// Ends a node's agent and starts a new one, as a service manager would.
fn replace(lab: &Lab, node: &str, signal: Signal) -> Background {
    let old = lab.process(node, "tombolo agent").expect("an agent");
    kill(Pid::from_raw(old as i32), signal).unwrap();
    eventually("the old agent to end", 20, || {
        (lab.process(node, "tombolo agent") != Some(old)).then_some(())
    });
    let words = [
        TOMBOLO,
        "agent",
        "--node",
        node,
        "--kubeconfig",
        "/run/tombolo/kubeconfig",
    ];
    let mut command = lab.exec(node, &words);
    let new = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let new = Background(new);
    eventually("the new agent to be ready", 30, || {
        run(&mut lab.exec(node, &[TOMBOLO, "status"]))
            .status
            .success()
            .then_some(())
    });
    new
}

/// Waits until the flood's target has received 200 more packets of each family: it flowed before the first
/// agent was ended, and still does after the last one was replaced.
fn flows_on(lab: &Lab) {
    let received = || -> [u64; 2] {
        let text = succeed(&mut lab.exec("a2", &["cat", "/proc/net/snmp", "/proc/net/snmp6"]));
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
    };
    let before = received();
    eventually("200 more packets of each family", 20, || {
        let now = received();
        (0..2)
            .all(|family| now[family] >= before[family] + 200)
            .then_some(())
    });
}

fn no_packet_is_lost(routing: &str) {
    let lab = Lab::up(2, &["--routing", routing]);
    let mut floods = Vec::new();
    for address in lab.addresses("a2") {
        let words = [
            TOMBOLO,
            "probe",
            "flood",
            "--to",
            &address,
            "--rate",
            "500",
            "--packets",
            "100000",
            "--until-eof",
        ];
        let mut command = lab.exec("a1", &words);
        let flood = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        floods.push(Background(flood));
    }
    let mut agents = Vec::new();
    flows_on(&lab);
    for node in ["node1", "node2"] {
        agents.push(replace(&lab, node, Signal::SIGTERM));
        agents.push(replace(&lab, node, Signal::SIGKILL));
    }
    flows_on(&lab);
    for flood in &mut floods {
        assert!(
            flood.0.try_wait().unwrap().is_none(),
            "the flood ended before the agents were replaced"
        );
        drop(flood.0.stdin.take());
        let mut text = String::new();
        std::io::Read::read_to_string(flood.0.stdout.as_mut().unwrap(), &mut text).unwrap();
        let tally: Value = serde_json::from_str(&text).unwrap();
        assert!(tally["sent"].as_u64() > Some(0), "{tally}");
        assert_eq!(tally["lost"], 0, "{tally}\n{}", lab.datapath());
        assert_eq!(tally["duplicated"], 0, "{tally}");
    }
    lab.assert_connected();
    // The new agents do their work.
    succeed(&mut lab.kubectl(&["delete", "pod", "a1", "--timeout=20s"]));
    drop(agents);
}

#[test]
fn direct() {
    no_packet_is_lost("direct");
}

#[test]
fn vxlan() {
    no_packet_is_lost("vxlan");
}
