//! The life of a pod: ADD and DEL, from the start of the plugin to its result.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use anyhow::Result;
use tombolo_testkit::TestNamespace;

use crate::cluster::{Cluster, STATE_ROOT, Settings};
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
    let disk = Disk::new()?;
    let mut dels = vec![Vec::new(); contenders.len()];
    // In the same rounds, what the disk takes of each ADD and DEL of ours.
    let adds = alternate(effort.rounds(100), contenders.len() + 1, |which| {
        if which == contenders.len() {
            return disk.flush();
        }
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
    let flush = "a flush of the disk, in ADD and DEL of ours alone";
    let mut figures = vec![Figure::alone(flush, Unit::Milliseconds, &adds[3], Bound::Open)];
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

/// The disk that addresses are kept on.
struct Disk(File);

impl Disk {
    fn new() -> Result<Self> {
        Ok(Self(tempfile::tempfile_in(STATE_ROOT)?))
    }

    /// Milliseconds of a write and its way to the disk.
    fn flush(&self) -> Result<f64> {
        let start = Instant::now();
        self.0.write_all_at(&[0; 4096], 0)?;
        self.0.sync_data()?;
        Ok(start.elapsed().as_secs_f64() * 1000.0)
    }
}

fn run((namespace, plugin): Contender<'_>, operation: Operation, pod: &Pod) -> Result<f64> {
    namespace.run(|| Ok(plugin.run(operation, pod)?.0))
}
