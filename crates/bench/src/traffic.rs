//! What goes through: TCP over our paths and over those of the peers.

use std::time::Duration;

use anyhow::Result;

use crate::cluster::{Cluster, Settings, node_address, pod_to_pod};
use crate::figure::{Bound, Figure, Unit};
use crate::load::{LoadPath, Mode};
use crate::peers::{BareVeth, DebianNode, KernelVxlan};
use crate::plugin::Pod;
use crate::rounds::{Effort, alternate};

/// Rounds of each figure.
pub const ROUNDS: usize = 60;

/// All modes, with what they are called.
pub const MODES: [(Mode, &str); 3] = [
    (Mode::Stream, "stream"),
    (Mode::RequestResponse, "request/response"),
    (Mode::ConnectRequestResponse, "connect/request/response"),
];

/// A peer, and the bound in each mode.
pub type Peer<'a> = (&'a str, &'a LoadPath<'a>, [Bound; 3]);

/// Pod to pod on one node, without and with flows tracked, against a bare veth and Debian's bridge.
pub fn same_node(effort: Effort) -> Result<Vec<Figure>> {
    let bare = BareVeth::new()?;
    let debian = DebianNode::new("bridge")?;
    let bridged = [Pod::new("bridged-1"), Pod::new("bridged-2")];
    debian.namespace.run(|| debian.plugin.add(&bridged[0]))?;
    let address = debian.namespace.run(|| debian.plugin.add(&bridged[1]))?;
    let bare = LoadPath::new(&bare.ends[0], &bare.ends[1], bare.address)?;
    let bridge = LoadPath::new(&bridged[0].namespace, &bridged[1].namespace, address)?;
    let ours = Ours::start(1)?;
    let peers = [
        ("a bare veth", &bare, at_least([0.95; 3])),
        ("Debian's bridge", &bridge, at_least([1.0; 3])),
    ];
    ours.compare("pod to pod, same node", &peers, effort)
}

/// Pod to pod across nodes without encapsulation, without and with flows tracked, against the same nodes' own traffic
/// over the same wire, with Tombolo on it and without. A wire is a veth pair here.
pub fn direct(effort: Effort) -> Result<Vec<Figure>> {
    let bare = BareVeth::new()?;
    let bare = LoadPath::new(&bare.ends[0], &bare.ends[1], bare.address)?;
    let ours = Ours::start(2)?;
    let nodes = LoadPath::new(
        &ours.plain.nodes[0].namespace,
        &ours.plain.nodes[1].namespace,
        node_address(2).parse()?,
    )?;
    let bounds = at_least([0.88, 0.94, 0.94]);
    let peers = [
        ("node to node, same wire", &nodes, bounds),
        ("node to node without Tombolo", &bare, bounds),
    ];
    ours.compare("across nodes, direct", &peers, effort)
}

/// Pod to pod across nodes in the overlay, against the kernel's own VXLAN.
pub fn vxlan(effort: Effort) -> Result<Vec<Figure>> {
    let kernel = KernelVxlan::new()?;
    let theirs = LoadPath::new(&kernel.pods[0], &kernel.pods[1], kernel.address)?;
    let settings = Settings {
        nodes: 2,
        routing: "vxlan",
        track_flows: false,
    };
    let cluster = Cluster::start(settings)?;
    let pods = [Pod::new("client"), Pod::new("server")];
    let ours = pod_to_pod(&cluster, [&pods[0], &pods[1]])?;
    let peers = [("the kernel's VXLAN", &theirs, at_least([1.0; 3]))];
    let mut figures = Vec::new();
    for mode in MODES {
        figures.extend(compare(
            "across nodes, VXLAN",
            mode,
            &[&ours],
            &[""],
            &peers,
            effort,
        )?);
    }
    Ok(figures)
}

/// A cluster as it is, and one that tracks flows, each with two pods as far apart as it goes.
struct Ours {
    plain: Cluster,
    tracking: Cluster,
    pods: [Pod; 4],
}

impl Ours {
    fn start(nodes: usize) -> Result<Self> {
        let cluster = |track_flows| {
            Cluster::start(Settings {
                nodes,
                routing: "direct",
                track_flows,
            })
        };
        Ok(Self {
            plain: cluster(false)?,
            tracking: cluster(true)?,
            pods: ["client", "server", "tracked-client", "tracked-server"].map(Pod::new),
        })
    }

    /// Both against all peers, in the same rounds.
    fn compare(&self, what: &str, peers: &[Peer<'_>], effort: Effort) -> Result<Vec<Figure>> {
        let [client, server, tracked_client, tracked_server] = &self.pods;
        let paths = [
            &pod_to_pod(&self.plain, [client, server])?,
            &pod_to_pod(&self.tracking, [tracked_client, tracked_server])?,
        ];
        let mut figures = Vec::new();
        for mode in MODES {
            figures.extend(compare(
                what,
                mode,
                &paths,
                &["", ", flows tracked"],
                peers,
                effort,
            )?);
        }
        Ok(figures)
    }
}

pub fn at_least(ratios: [f64; 3]) -> [Bound; 3] {
    ratios.map(Bound::AtLeast)
}

/// Each of ours against each peer in one mode.
pub fn compare(
    what: &str,
    (mode, mode_name): (Mode, &str),
    ours: &[&LoadPath<'_>],
    variants: &[&str],
    peers: &[Peer<'_>],
    effort: Effort,
) -> Result<Vec<Figure>> {
    let paths: Vec<&LoadPath<'_>> = ours
        .iter()
        .copied()
        .chain(peers.iter().map(|(_, path, _)| *path))
        .collect();
    let duration = Duration::from_millis(if effort == Effort::Quick { 100 } else { 200 });
    let (unit, scale) = match mode {
        Mode::Stream => (Unit::GigabitsPerSecond, 1e-9),
        _ => (Unit::PerSecond, 1.0),
    };
    let samples = alternate(effort.rounds(ROUNDS), paths.len(), |which| {
        Ok(paths[which].measure(mode, duration)? * scale)
    })?;
    let mut figures = Vec::new();
    let (own, theirs) = samples.split_at(ours.len());
    for (own, variant) in own.iter().zip(variants) {
        for ((peer, _, bounds), theirs) in peers.iter().zip(theirs) {
            let at = MODES.iter().position(|(m, _)| *m == mode).unwrap_or_default();
            let what = format!("{what}{variant}: {mode_name}");
            figures.push(Figure::compared(&what, unit, own, (peer, theirs), bounds[at]));
        }
    }
    Ok(figures)
}
