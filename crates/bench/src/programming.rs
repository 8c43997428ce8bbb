//! How fast Services come from the API to the kernel, and what it takes to hold them.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tombolo_testkit::{wait_for, wait_for_some};

use crate::cluster::{Cluster, Settings};
use crate::figure::{Bound, Figure, Unit};
use crate::load::PORT;
use crate::objects::{create_service, fill, move_service};
use crate::plugin::Pod;
use crate::rounds::{Effort, alternate};

/// How many Services there are, with two endpoints each.
const MANY: usize = 10_000;

/// How long anything may take.
const DEADLINE: Duration = Duration::from_secs(120);

/// All of it.
pub fn measure(effort: Effort) -> Result<Vec<Figure>> {
    let count = match effort {
        Effort::Full => MANY,
        Effort::Quick => MANY / 10,
    };
    let mut cluster = Cluster::start(Settings {
        nodes: 1,
        routing: "direct",
        track_flows: false,
    })?;
    fill(&cluster.api, 0, count - 1)?;
    let pods = ["client", "one", "other"].map(Pod::new);
    let mut addresses = Vec::new();
    for pod in &pods {
        addresses.push(cluster.nodes[0].add(pod)?);
    }
    let service = create_service(&cluster.api, "moving", "ClusterIP", &addresses[1..2])?;
    wait_for(DEADLINE, "the agent to know all Services", || {
        cluster.nodes[0].metric("tombolo_services") == Some(count as f64)
    });
    let move_between = Moving {
        cluster: &cluster,
        client: &pods[0],
        address: SocketAddr::new(service.cluster_ip, PORT),
        backends: [listen(&pods[1], addresses[1])?, listen(&pods[2], addresses[2])?],
    };
    let mut next = 1;
    let moves = alternate(effort.rounds(101), 1, |_| {
        let took = move_between.to(next);
        next = 1 - next;
        took
    })?;
    let memory = [cluster.nodes[0].agent_memory()?];
    let maps = [cluster.nodes[0].kernel_memory()?];
    drop(move_between);

    let mut cold = [Vec::new(), Vec::new()];
    for _ in 0..effort.rounds(9) {
        let (rows, all) = cold_start(&mut cluster, count)?;
        cold[0].push(rows);
        cold[1].push(all);
    }
    let of = |what: &str| format!("{count} Services, {} endpoints: {what}", 2 * count - 1);
    let seconds = |what, samples: &[f64], bound| Figure::alone(&of(what), Unit::Seconds, samples, bound);
    Ok(vec![
        seconds(
            "cold, objects in memory to the kernel",
            &cold[0],
            Bound::AtMost(0.5),
        ),
        seconds("cold, agent's start to the kernel", &cold[1], Bound::Open),
        Figure::alone(
            &of("a backend changes, API write to traffic"),
            Unit::Milliseconds,
            &moves[0],
            Bound::AtMost(10.0),
        ),
        Figure::alone(
            &of("agent, resident"),
            Unit::MebiBytes,
            &memory,
            Bound::AtMost(80.0),
        ),
        Figure::alone(&of("kernel maps"), Unit::MebiBytes, &maps, Bound::Open),
    ])
}

/// Starts the agent with an empty kernel: the seconds from when it had all objects, and from its start.
fn cold_start(cluster: &mut Cluster, count: usize) -> Result<(f64, f64)> {
    let node = &mut cluster.nodes[0];
    let start = Instant::now();
    node.restart_cold()?;
    // Of the first round of all: it waits until all objects are there.
    let rows = wait_for_some(DEADLINE, "the agent to write all rows", || {
        node.metric("tombolo_services_round_seconds_sum")
            .filter(|sum| *sum > 0.0)
    });
    let took = start.elapsed().as_secs_f64();
    ensure!(
        node.metric("tombolo_services") == Some(count as f64),
        "the agent began without all objects"
    );
    Ok((rows, took))
}

/// A Service that leads to one pod or the other.
struct Moving<'a> {
    cluster: &'a Cluster,
    client: &'a Pod,
    address: SocketAddr,
    backends: [(IpAddr, TcpListener); 2],
}

impl Moving<'_> {
    /// Milliseconds from before the API server is told until the first connection that the other pod gets.
    fn to(&self, which: usize) -> Result<f64> {
        let (address, listener) = &self.backends[which];
        let start = Instant::now();
        move_service(&self.cluster.api, "moving", &[*address])?;
        self.client.namespace.run(|| {
            while listener.accept().is_err() {
                ensure!(start.elapsed() < DEADLINE, "the Service does not move");
                // One on its way to the pod that the Service leaves is reset.
                drop(TcpStream::connect(self.address));
            }
            Ok(())
        })?;
        let took = start.elapsed().as_secs_f64() * 1000.0;
        for (_, listener) in &self.backends {
            while listener.accept().is_ok() {}
        }
        Ok(took)
    }
}

fn listen(pod: &Pod, address: IpAddr) -> Result<(IpAddr, TcpListener)> {
    let listener = pod.namespace.run(|| TcpListener::bind((address, PORT)))?;
    listener.set_nonblocking(true)?;
    Ok((address, listener))
}
