//! What it costs: the agent's memory, the plugin's size, the time of a whole lab.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::cluster::{Cluster, Settings};
use crate::figure::{Bound, Figure, Unit};
use crate::plugin::{Pod, own_program};
use crate::rounds::{Effort, alternate};

/// So many pods the agent has.
const PODS: usize = 100;

/// So many it finds when it starts.
const MANY_PODS: usize = 250;

/// The program header of an interpreter (elf(5), `PT_INTERP`): what has none is static.
const PT_INTERP: u32 = 3;

/// The agent's resident memory with 100 pods, and the plugin's size, which must be static.
pub fn agent_and_plugin(_: Effort) -> Result<Vec<Figure>> {
    let cluster = Cluster::start(Settings {
        nodes: 1,
        routing: "direct",
        track_flows: false,
    })?;
    let node = &cluster.nodes[0];
    let pods = Pod::several(PODS);
    for pod in &pods {
        node.add(pod)?;
    }
    let memory = [node.agent_memory()?];
    let program = fs::read(own_program("tombolo-cni")?)?;
    let linked = if is_static(&program)? {
        "static"
    } else {
        "NOT static"
    };
    let size = [program.len() as f64 / f64::from(1 << 20)];
    Ok(vec![
        Figure::alone(
            "agent with 100 pods, resident",
            Unit::MebiBytes,
            &memory,
            Bound::AtMost(40.0),
        ),
        Figure::alone(
            &format!("tombolo-cni, {linked}"),
            Unit::MebiBytes,
            &size,
            Bound::AtMost(3.0),
        ),
    ])
}

/// From the agent's start until it serves, beside as many pods as a large node has.
pub fn agent_start(effort: Effort) -> Result<Vec<Figure>> {
    let mut cluster = Cluster::start(Settings {
        nodes: 1,
        routing: "vxlan",
        track_flows: false,
    })?;
    let pods = Pod::several(MANY_PODS);
    for pod in &pods {
        cluster.nodes[0].add(pod)?;
    }
    let samples = alternate(effort.rounds(15), 1, |_| cluster.nodes[0].restart())?;
    Ok(vec![Figure::alone(
        "agent start, 250 pods",
        Unit::Seconds,
        &samples[0],
        Bound::AtMost(0.5),
    )])
}

/// `lab up` with three nodes.
pub fn lab_up(effort: Effort) -> Result<Vec<Figure>> {
    let lab = Lab {
        program: own_program("tombolo")?,
        name: format!("bench-{}", std::process::id()),
    };
    let samples = alternate(effort.rounds(5), 1, |_| {
        let start = Instant::now();
        lab.run("up", &["--nodes", "3"])?;
        let took = start.elapsed().as_secs_f64();
        lab.run("down", &[])?;
        Ok(took)
    })?;
    Ok(vec![Figure::alone(
        "lab up, three nodes",
        Unit::Seconds,
        &samples[0],
        Bound::AtMost(2.0),
    )])
}

/// A lab, which is down when this value is gone.
struct Lab {
    program: PathBuf,
    name: String,
}

impl Lab {
    fn run(&self, command: &str, arguments: &[&str]) -> Result<()> {
        let mut lab = Command::new(&self.program);
        lab.args(["lab", command, "--name", &self.name])
            .args(arguments)
            .stdout(Stdio::null());
        let output = lab.stderr(Stdio::piped()).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`tombolo lab {command}` failed: {said}");
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Fine if it is down.
        if let Err(error) = self.run("down", &[]) {
            eprintln!("{error:#}");
        }
    }
}

/// Whether a 64-bit ELF program of this machine runs without an interpreter.
fn is_static(program: &[u8]) -> Result<bool> {
    let bytes = |at: usize, count: usize| program.get(at..at + count).context("not a whole ELF program");
    let half = |at| Ok::<_, anyhow::Error>(u16::from_ne_bytes(bytes(at, 2)?.try_into()?));
    ensure!(bytes(0, 5)? == b"\x7fELF\x02", "not a 64-bit ELF program");
    let table = usize::try_from(u64::from_ne_bytes(bytes(32, 8)?.try_into()?))?;
    let (size, count) = (usize::from(half(54)?), usize::from(half(56)?));
    for header in 0..count {
        if u32::from_ne_bytes(bytes(table + header * size, 4)?.try_into()?) == PT_INTERP {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_is_not_static() {
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(is_static(&own).unwrap(), cfg!(target_feature = "crt-static"));
        is_static(&own[..60]).unwrap_err();
    }
}
