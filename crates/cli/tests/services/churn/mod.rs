//! Services change at random, and the clients of others notice nothing: not one connection fails, or comes to a server
//! that is another Service's.
//!
//! 200 Services for a few seconds; 1,000 for a minute with `TOMBOLO_LONG=1`. `TOMBOLO_SEED` repeats the changes of a
//! run.

mod changes;
mod clients;
mod model;
mod stable;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::objects::addresses;
use crate::reach::ALL_WAYS;
use crate::support::Lab;
use crate::support::asking::{Client, Protocol, get};
use changes::Api;
use clients::{Tally, Target};
use model::Model;
use stable::Stable;

const NODES: [&str; 2] = ["node1", "node2"];

/// What becomes of packets that a Service is short of something for. None may.
const TROUBLES: [&str; 9] = [
    "backend_elsewhere",
    "backend_gone",
    "flow_table_full",
    "no_backend",
    "no_route",
    "no_service",
    "no_source_port",
    "source_range",
    "unknown_flow",
];

/// How much of it.
struct Form {
    services: usize,
    time: Duration,
    /// Changes a second; and how many of them are made, however slow the machine is.
    rate: u32,
    changes: u64,
    /// How often each client asks each Service in each way, for certain.
    answers: u64,
}

impl Form {
    fn asked_for() -> Self {
        if std::env::var_os("TOMBOLO_LONG").is_some() {
            Self {
                services: 1000,
                time: Duration::from_secs(60),
                rate: 200,
                changes: 3000,
                answers: 20,
            }
        } else {
            Self {
                services: 200,
                time: Duration::from_secs(4),
                rate: 100,
                changes: 300,
                answers: 1,
            }
        }
    }
}

/// In a lab of its own with these options.
pub fn fails_nobody(options: &[&str]) {
    let form = Form::asked_for();
    let seed = match std::env::var("TOMBOLO_SEED") {
        Ok(text) => text.parse().expect("TOMBOLO_SEED is a number"),
        Err(_) => u64::from(std::process::id()) ^ Instant::now().elapsed().as_nanos() as u64,
    };
    say(&format!("TOMBOLO_SEED={seed} {}", options.join(" ")));
    let more = [
        "--segments",
        "2",
        "--families",
        "dual",
        "--lb-pool",
        "203.0.113.0/24",
        "--lb-pool",
        "2001:db8:200::/112",
    ];
    let lab = Lab::up(2, &[&more[..], options].concat());
    let stable = Stable::make(&lab);
    let api = Api::of(&lab);
    let mut model = Model::new(seed, form.services, stable.own());
    api.make(&mut model);

    let clients = clients(&lab, &stable);
    reach_all(&lab, &clients);
    let before = troubles(&lab);
    let (done, tallies) = under_load(&clients, || {
        api.change(&mut model, form.rate, form.time, form.changes)
    });
    say(&format!("{} changes {done:?}", options.join(" ")));
    for (who, tally) in &tallies {
        say(&format!("{who}: {tally}"));
    }
    for (who, tally) in &tallies {
        assert!(
            tally.failed.is_empty() && tally.misdirected.is_empty(),
            "{who} (TOMBOLO_SEED={seed}): {:#?}\n{:#?}",
            tally.failed,
            tally.misdirected
        );
        assert!(tally.fewest >= form.answers, "{who} asked too little: {tally}");
    }
    assert_eq!(
        troubles(&lab),
        before,
        "packets were dropped (TOMBOLO_SEED={seed})"
    );
    assert_eq!(done.len(), model::WAYS, "not all kinds of changes: {done:?}");
    model.assert_programmed(|| NODES.map(|node| programmed(&lab, node)));
}

/// Waits until everybody is answered by all, as nodes take a moment to hear of them.
fn reach_all(lab: &Lab, clients: &[Asking]) {
    thread::scope(|scope| {
        for Asking { client, targets, .. } in clients {
            scope.spawn(move || {
                for target in targets {
                    client.ask_until_answered(lab, target.protocol, target.to);
                }
            });
        }
    });
}

/// Changes while all clients ask; returns what was changed how often, and what came of each client.
fn under_load<T>(clients: &[Asking], change: impl FnOnce() -> T) -> (T, Vec<(String, Tally)>) {
    let anew = ALL_WAYS.map(|protocol| (protocol, clients::ask_anew as Way, "each time anew"));
    let connected = [Protocol::Tcp, Protocol::Udp]
        .map(|protocol| (protocol, clients::stay_connected as Way, "connected"));
    let ways: Vec<_> = anew.into_iter().chain(connected).collect();
    let start = Barrier::new(clients.len() * ways.len() + 1);
    let end = AtomicBool::new(false);
    thread::scope(|scope| {
        let (start, end) = (&start, &end);
        let mut at_work = Vec::new();
        for Asking {
            name,
            client,
            targets,
        } in clients
        {
            for &(protocol, ask, how) in &ways {
                let own: Vec<&Target> = targets.iter().filter(|t| t.protocol == protocol).collect();
                let work = scope.spawn(move || ask(client, &own, start, end));
                at_work.push((format!("{name}, {protocol:?}, {how}"), work));
            }
        }
        start.wait();
        // However this ends, so do they.
        let ending = Ending(end);
        let changed = change();
        drop(ending);
        let tallies = at_work
            .into_iter()
            .map(|(name, work)| (name, work.join().unwrap()));
        (changed, tallies.collect())
    })
}

/// How to ask until it ends, from when all start.
type Way = fn(&Client, &[&Target], &Barrier, &AtomicBool) -> Tally;

struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Somebody who asks, and whom.
struct Asking {
    name: &'static str,
    client: Client,
    targets: Vec<Target>,
}

/// Pods of both nodes, somebody outside by node ports and load balancers' addresses, and a node, where sockets lead
/// there.
fn clients(lab: &Lab, stable: &Stable) -> Vec<Asking> {
    let asking = |name, client, targets| Asking {
        name,
        client,
        targets,
    };
    let mut clients = vec![
        asking("pod of node1", Client::pod(lab, "a1"), stable.inside()),
        asking("pod of node2", Client::pod(lab, "a2"), stable.inside()),
        asking("outside", Client::outside(lab), stable.outside(NODES.len())),
    ];
    if lab.socket_hooks {
        let node = Client::node(lab, "node1", &addresses(0));
        clients.push(asking("node1", node, stable.inside()));
    }
    clients
}

/// How many packets the nodes have dropped for want of something.
fn troubles(lab: &Lab) -> BTreeMap<String, u64> {
    let mut troubles = BTreeMap::new();
    for node in NODES {
        let drops: Vec<Value> = serde_json::from_str(&get(lab, node, &["drops", "--json"])).unwrap();
        for drop in drops {
            let reason = drop["reason"].as_str().unwrap();
            if TROUBLES.contains(&reason) {
                let place = format!("{node} {} {reason}", drop["hook"].as_str().unwrap());
                troubles.insert(place, drop["packets"].as_u64().unwrap());
            }
        }
    }
    troubles
}

/// The backends of each Service at its cluster IPs, as a node has them.
fn programmed(lab: &Lab, node: &str) -> BTreeMap<String, BTreeSet<SocketAddr>> {
    let rows: Vec<Value> = serde_json::from_str(&get(lab, node, &["services", "--json"])).unwrap();
    let mut found: BTreeMap<String, BTreeSet<SocketAddr>> = BTreeMap::new();
    for row in rows {
        let Some(service) = row["service"].as_str() else {
            continue;
        };
        let backends = row["internal"]["backends"].as_array().unwrap();
        let backends = backends
            .iter()
            .map(|b| b["address"].as_str().unwrap().parse::<SocketAddr>().unwrap());
        found.entry(service.into()).or_default().extend(backends);
    }
    found
}

#[allow(clippy::print_stderr, reason = "shown when the test fails")]
fn say(what: &str) {
    eprintln!("{what}");
}
