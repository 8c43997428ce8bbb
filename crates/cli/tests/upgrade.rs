//! The agent is stopped, killed, and replaced by one of the same ABI version, of the next, and of the one before,
//! while packets flow between pods on two nodes: none is lost, and no connection breaks.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::agents::{Agent, Build, next};
use support::connections::{Connections, PodNetwork};
use support::floods::Floods;
use support::{Lab, TOMBOLO, succeed};

/// How often agents are killed at a moment of their start, and how often one of the other ABI version takes over.
struct Load {
    kills: usize,
    upgrades: usize,
}

const SHORT: Load = Load {
    kills: 6,
    upgrades: 4,
};
const LONG: Load = Load {
    kills: 100,
    upgrades: 20,
};

/// Idle TCP connections.
const CONNECTIONS: usize = 500;

/// The longest that an agent takes to serve, or so: it is killed somewhere before.
const START: Duration = Duration::from_millis(400);

/// Numbers that look random, and are the same in each run (Park and Miller's).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0 * 48_271 % 0x7fff_ffff;
        self.0 % end
    }
}

#[expect(clippy::print_stdout, reason = "figures of the long form")]
fn no_packet_is_lost(routing: &str) {
    let load = if std::env::var_os("TOMBOLO_LONG").is_some() {
        LONG
    } else {
        SHORT
    };
    let begun = Instant::now();
    let lab = Lab::up(2, &["--routing", routing]);
    let pods = ["a1", "a2"].map(|pod| PodNetwork::of(&lab, pod));
    let floods = Floods::begin(&lab, ["a1", "a2"]);
    let connections = Connections::open([&pods[0], &pods[1]], CONNECTIONS);
    // (The lab's own agents do not track flows: the connections become flows with their next packets.)
    let mut agents = ["node1", "node2"].map(|node| Agent::replace(&lab, node));
    connections.assert_alive(|| lab.datapath());

    // Replaced by the same version.
    for agent in &mut agents {
        agent.end(Signal::SIGTERM);
        agent.start(Build::This);
        agent.wait_ready();
    }
    // By the next one, and by the one before, on one node after the other: for a while they differ.
    for upgrade in 0..load.upgrades {
        let agent = &mut agents[upgrade % 2];
        let to = agent.build().other();
        agent.end(Signal::SIGTERM);
        agent.start(to);
        agent.wait_ready();
    }
    // Killed at any moment, of an upgrade too.
    let mut numbers = Numbers(20_261);
    for killed in 0..load.kills {
        let agent = &mut agents[killed % 2];
        let build = [Build::This, Build::Next][numbers.below(2) as usize];
        agent.end(Signal::SIGKILL);
        agent.start(build);
        if numbers.below(4) == 0 {
            agent.wait_ready();
        } else {
            std::thread::sleep(Duration::from_millis(numbers.below(START.as_millis() as u64)));
        }
    }
    for agent in &mut agents {
        agent.end(Signal::SIGKILL);
        agent.start(Build::This);
        agent.wait_ready();
    }

    let packets = floods.finish();
    connections.assert_alive(|| lab.datapath());
    println!(
        "{routing}: {} kills and {} upgrades in {:.0?}: {packets} packets, 0 lost; {CONNECTIONS} connections, 0 broken",
        load.kills + agents.len(),
        load.upgrades,
        begun.elapsed()
    );
    lab.assert_connected();
    // The new agents do their work.
    succeed(&mut lab.kubectl(&["delete", "pod", "a1", "--timeout=20s"]));
}

#[test]
fn direct() {
    no_packet_is_lost("direct");
}

#[test]
fn vxlan() {
    no_packet_is_lost("vxlan");
}

#[test]
fn what_users_run_has_no_object_of_the_tests() {
    let objects = Path::new(env!("CARGO_MANIFEST_DIR")).join("../datapath/object");
    let object = |name: &str| std::fs::read(objects.join(name)).unwrap();
    let (this, next_one) = (object("datapath.o"), object("datapath-next.o"));
    let users = std::fs::read(TOMBOLO).unwrap();
    assert!(contains(&users, &this) && !contains(&users, &next_one));
    // So it would be found.
    let tests = std::fs::read(next()).unwrap();
    assert!(contains(&tests, &next_one) && !contains(&tests, &this));
}

fn contains(program: &[u8], object: &[u8]) -> bool {
    program.windows(object.len()).any(|window| window == object)
}
