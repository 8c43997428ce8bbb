//! What goes through Services: from pods to ClusterIPs, and from outside to node ports, whatever their number.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use tombolo_testkit::wait_for;

use crate::cluster::{Cluster, Settings, node_address, pod_to_pod};
use crate::figure::{Bound, Figure};
use crate::load::{LoadPath, Mode, PORT};
use crate::objects::{create_service, fill};
use crate::peers::NatNode;
use crate::plugin::Pod;
use crate::rounds::Effort;
use crate::traffic::{MODES, at_least, compare};

/// How many Services there are, the one that is measured among them.
const COUNTS: [usize; 4] = [10, 1_000, 10_000, 50_000];

/// The number at which node ports are measured once more.
const MANY: usize = 10_000;

/// How long agents may take to hear of new Services.
const DEADLINE: Duration = Duration::from_secs(120);

/// Through a ClusterIP, against the same pod by its own address, and against the way of processes that no program at
/// sockets sees.
pub fn cluster_ip(effort: Effort) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (nodes, place) in [(1, "same node"), (2, "across nodes")] {
        let cluster = start(nodes)?;
        let pods = [Pod::new("client"), Pod::new("server")];
        let direct = pod_to_pod(&cluster, [&pods[0], &pods[1]])?;
        let service = create_service(&cluster.api, "measured", "ClusterIP", &[direct.address().ip()])?;
        let address = SocketAddr::new(service.cluster_ip, PORT);
        let through = direct
            .by(&pods[0].namespace, address)?
            .started_in(&cluster.nodes[0].cgroup);
        let by_packets = direct.by(&pods[0].namespace, address)?;
        let bounds = [0.99, 0.99, 0.97].map(Bound::AtLeast);
        let peers = [
            ("the pod's address", &direct, bounds),
            ("without socket hooks", &by_packets, [Bound::Open; 3]),
        ];
        let mut there_are = 1;
        for &count in counts(effort) {
            fill_up(&cluster, &mut there_are, count)?;
            for mode in MODES {
                // Only a new connection asks the tables.
                if mode.0 == Mode::ConnectRequestResponse || count == COUNTS[0] {
                    let what = format!("ClusterIP of {count}, {place}");
                    figures.extend(compare(&what, mode, &[&through], &[""], &peers, effort)?);
                }
            }
        }
    }
    Ok(figures)
}

/// From outside through node ports to a pod of that node and to one of another, against rules of nftables.
pub fn node_port(effort: Effort) -> Result<Vec<Figure>> {
    let cluster = start(2)?;
    let pods = [Pod::new("local"), Pod::new("remote")];
    let nat = NatNode::new()?;
    let mut paths = Vec::new();
    for (number, (pod, name)) in pods.iter().zip(["local", "remote"]).enumerate() {
        let node = &cluster.nodes[0].namespace;
        let address = cluster.nodes[number].add(pod)?;
        let direct = LoadPath::new(node, &pod.namespace, address)?;
        let service = create_service(&cluster.api, name, "NodePort", &[address])?;
        let port = SocketAddr::new(node_address(1).parse()?, service.node_port);
        let ours = direct.by(&cluster.outside, port)?;
        let theirs = LoadPath::new(&nat.node, &nat.pods[number], nat.addresses[number])?;
        let theirs = theirs.by(&nat.outside, nat.node_port(number))?;
        paths.push((name, ours, theirs));
    }
    let mut figures = Vec::new();
    let mut there_are = 2;
    let many = match effort {
        Effort::Full => MANY,
        Effort::Quick => MANY / 10,
    };
    for count in [there_are, many] {
        fill_up(&cluster, &mut there_are, count)?;
        for (name, ours, theirs) in &paths {
            let peers = [("nftables, one Service", theirs, at_least([1.0; 3]))];
            for mode in MODES {
                if mode.0 == Mode::ConnectRequestResponse || count == 2 {
                    let what = format!("node port of {count}, {name} backend");
                    figures.extend(compare(&what, mode, &[ours], &[""], &peers, effort)?);
                }
            }
        }
    }
    Ok(figures)
}

fn start(nodes: usize) -> Result<Cluster> {
    Cluster::start(Settings {
        nodes,
        routing: "direct",
        track_flows: false,
    })
}

fn counts(effort: Effort) -> &'static [usize] {
    match effort {
        Effort::Full => &COUNTS,
        Effort::Quick => &COUNTS[..2],
    }
}

/// Adds Services until there are so many, and waits until all agents know them.
fn fill_up(cluster: &Cluster, there_are: &mut usize, count: usize) -> Result<()> {
    fill(&cluster.api, *there_are, count - *there_are)?;
    *there_are = count;
    for node in &cluster.nodes {
        wait_for(DEADLINE, "the agent to know all Services", || {
            node.metric("tombolo_services") == Some(count as f64)
        });
    }
    Ok(())
}
