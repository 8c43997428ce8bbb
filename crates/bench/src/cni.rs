//! The life of a pod: ADD and DEL, from the start of the plugin to its result.

use anyhow::Result;
use tombolo_testkit::TestNamespace;

use crate::cluster::{Cluster, Settings};
use crate::figure::{Bound, Figure, Unit};
use crate::peers::DebianNode;
use crate::plugin::{Operation, Plugin, Pod};
use crate::rounds::{Effort, alternate};

/// How many at once.
const STORM: usize = 50;

/// A node's namespace and its plugin.
type Contender<'a> = (&'a TestNamespace, &'a Plugin);

/// ADD, DEL and 50 ADDs at once, of Tombolo, Debian's `ptp` and Debian's `bridge`.
pub fn measure(effort: Effort) -> Result<Vec<Figure>> {
    let cluster = Cluster::start(Settings {
        nodes: 1,
        routing: "direct",
        track_flows: false,
    })?;
    let peers = [DebianNode::new("ptp")?, DebianNode::new("bridge")?];
    let contenders = [
        (&cluster.nodes[0].namespace, &cluster.nodes[0].plugin),
        (&peers[0].namespace, &peers[0].plugin),
        (&peers[1].namespace, &peers[1].plugin),
    ];
    let pod = Pod::new("pod");
    let mut dels = vec![Vec::new(); contenders.len()];
    let adds = alternate(effort.rounds(100), contenders.len(), |which| {
        let add = run(contenders[which], Operation::Add, &pod)?;
        dels[which].push(run(contenders[which], Operation::Del, &pod)?);
        Ok(add)
    })?;
    let pods = Pod::several(STORM);
    let storms = alternate(effort.rounds(15), contenders.len(), |which| {
        let (namespace, plugin) = contenders[which];
        namespace.run(|| {
            let took = plugin.run_all(Operation::Add, &pods)?;
            for pod in &pods {
                plugin.run(Operation::Del, pod)?;
            }
            Ok(took)
        })
    })?;
    let third = 1.0 / 3.0;
    let mut figures = Vec::new();
    for (what, samples, bound) in [
        ("CNI ADD", adds, third),
        ("CNI DEL", dels, third),
        ("50 ADDs at once", storms, 0.5),
    ] {
        let figure = |peer, theirs, bound| {
            Figure::compared(what, Unit::Milliseconds, &samples[0], (peer, theirs), bound)
        };
        figures.push(figure("Debian's ptp", &samples[1], Bound::AtMost(bound)));
        figures.push(figure("Debian's bridge", &samples[2], Bound::Open));
    }
    Ok(figures)
}

fn run((namespace, plugin): Contender<'_>, operation: Operation, pod: &Pod) -> Result<f64> {
    namespace.run(|| Ok(plugin.run(operation, pod)?.0))
}
