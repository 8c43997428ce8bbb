//! The life of a pod as a kubelet waits for it: RunPodSandbox of a real containerd, in which the plugins are one
//! part among others.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tombolo_cri::{Cni, Containerd, Network, Pod};
use tombolo_testkit::TestNamespace;

use crate::cluster::{Cluster, Settings};
use crate::figure::{Bound, Figure, Unit};
use crate::peers::DebianChain;
use crate::rounds::{Effort, alternate};

/// How long a runtime may take to find its network.
const DEADLINE: Duration = Duration::from_secs(30);

/// RunPodSandbox with Tombolo, with Debian's `bridge` and `portmap`, and without any plugin. What is judged is
/// what the plugins add: both less the last.
pub fn measure(effort: Effort) -> Result<Vec<Figure>> {
    let cluster = Cluster::start(Settings {
        nodes: 1,
        routing: "direct",
        track_flows: false,
    })?;
    let node = &cluster.nodes[0];
    let ours = start(
        &node.cni,
        &node.namespace,
        &format!("nsenter --mount={} --", node.mounts().display()),
    )?;
    let chain = DebianChain::new()?;
    let bridge = start(&chain.cni, &chain.namespace, "unshare --mount")?;
    let contenders = [
        (&ours, Network::Pod),
        (&bridge, Network::Pod),
        (&ours, Network::Node),
    ];
    let samples = alternate(effort.rounds(240), contenders.len(), |which| {
        let (containerd, network) = contenders[which];
        let client = containerd.client();
        let pod = Pod {
            network,
            ..Pod::new("pod")
        };
        let start = Instant::now();
        let sandbox = client.run_sandbox(&pod)?;
        let took = start.elapsed().as_secs_f64() * 1000.0;
        client.remove_sandbox(&sandbox)?;
        Ok(took)
    })?;
    let [ours, bridge, host] = [0, 1, 2].map(|which: usize| samples[which].as_slice());
    let added = |all: &[f64]| -> Vec<f64> { all.iter().zip(host).map(|(one, host)| one - host).collect() };
    let figure = |what, ours: &[f64], peer, theirs: &[f64], bound| {
        Figure::compared(what, Unit::Milliseconds, ours, (peer, theirs), bound)
    };
    let (name, third) = ("Debian's bridge and portmap", Bound::AtMost(1.0 / 3.0));
    Ok(vec![
        figure(
            "RunPodSandbox, less host network",
            &added(ours),
            name,
            &added(bridge),
            third,
        ),
        figure("RunPodSandbox", ours, name, bridge, Bound::Open),
        figure("RunPodSandbox", ours, "host network", host, Bound::Open),
    ])
}

/// A containerd in a node's network, started by way of a command that leads to its mounts. Gives it when it has
/// found its network.
fn start(cni: &Cni, node: &TestNamespace, mounts: &str) -> Result<Containerd> {
    let network = format!("--net={}", node.path().display());
    let words: Vec<String> = mounts.split(' ').map(Into::into).collect();
    let containerd = Containerd::start(cni, move |program| {
        let mut command = Command::new("nsenter");
        command.arg(&network).arg("--").args(&words).arg(program);
        command
    })?;
    let start = Instant::now();
    while let Some(problem) = containerd.client().network_problem()? {
        if start.elapsed() > DEADLINE {
            bail!("containerd finds no network: {problem}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(containerd)
}
