//! kill -9 at any point: what was acknowledged is there, what was released is gone, nothing is
//! held twice.
//!
//! A child process allocates and releases on several threads, and says over a pipe before each
//! call what it is about to do and after it what was acknowledged. It is killed at a random
//! moment, and the store that it leaves is compared with what it said. (A kill spares what the
//! kernel has cached; that a commit also reaches the disk itself is the library's fdatasync.)

#![allow(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it must be"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use proptest::test_runner::{RngAlgorithm, TestRng};
use tombolo_ipam::{AddressStore, Family, Owner, Request};
use tombolo_testkit::Process;

const STORE: &str = "TOMBOLO_CRASH_STORE";
const SEED: &str = "TOMBOLO_CRASH_SEED";
const ROUNDS: u64 = 40;
const THREADS: u64 = 4;
const OWNERS: u64 = 40;

fn owner(number: u64) -> Owner {
    Owner {
        container_id: format!("c{number}"),
        ifname: "eth0".into(),
    }
}

fn random(seed: u64) -> impl FnMut(u64) -> u64 {
    use proptest::prelude::Rng;
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut random = TestRng::from_seed(RngAlgorithm::XorShift, &bytes);
    move |below| random.next_u64() % below
}

/// What is known of an owner.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Known {
    Held(Vec<IpAddr>),
    /// A call was under way when the process died: either outcome is right.
    Asking,
    Releasing(Vec<IpAddr>),
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("addresses");
    // Smaller than the owners' needs, so that freed addresses come around.
    let store = AddressStore::open(&path, Duration::ZERO).unwrap();
    store
        .set_blocks(&["10.0.0.0/27".parse().unwrap(), "fd00::/122".parse().unwrap()])
        .unwrap();
    drop(store);

    let mut known: BTreeMap<Owner, Known> = BTreeMap::new();
    let mut acknowledged = 0;
    for round in 0..ROUNDS {
        acknowledged += run_and_kill(&path, round, &mut known);
        known = compare(&path, &known);
    }
    // Else the kills came too early for the test to mean something.
    assert!(
        acknowledged > 20 * ROUNDS,
        "only {acknowledged} calls were acknowledged"
    );
}

fn run_and_kill(path: &Path, seed: u64, known: &mut BTreeMap<Owner, Known>) -> u64 {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .env(STORE, path)
        .env(SEED, seed.to_string())
        .stdout(Stdio::piped());
    let mut process = Process::spawn(&mut command);
    let mut lines = BufReader::new(process.child().stdout.take().unwrap()).lines();
    let line = lines.by_ref().map(Result::unwrap).find(|line| line == "ready");
    assert!(line.is_some(), "the child did not start");

    let mut random = random(seed);
    let said: Vec<String> = lines
        .by_ref()
        .take(1 + random(300) as usize)
        .map(Result::unwrap)
        .collect();
    // At any point of the calls under way.
    thread::sleep(Duration::from_micros(random(2_000)));
    process.signal(Signal::SIGKILL);
    process.wait(Duration::from_secs(10));
    let rest = lines.map(Result::unwrap);

    let mut acknowledged = 0;
    for line in said.into_iter().chain(rest) {
        let words: Vec<_> = line.split(' ').collect();
        let [what, number, addresses @ ..] = words.as_slice() else {
            panic!("{line:?}")
        };
        let owner = owner(number.parse().unwrap());
        let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        match *what {
            "asking" => drop(known.insert(owner, Known::Asking)),
            "releasing" => match known.remove(&owner) {
                Some(Known::Held(held)) => drop(known.insert(owner, Known::Releasing(held))),
                other => assert_eq!(other, None),
            },
            "held" => drop(known.insert(owner, Known::Held(addresses))),
            "free" => drop(known.remove(&owner)),
            _ => panic!("{line:?}"),
        }
        acknowledged += u64::from(matches!(*what, "held" | "free"));
    }
    acknowledged
}

/// Compares the store with what is known, and gives what is known then.
fn compare(path: &Path, known: &BTreeMap<Owner, Known>) -> BTreeMap<Owner, Known> {
    let store = AddressStore::open(path, Duration::ZERO).unwrap();
    let found: BTreeMap<Owner, Vec<IpAddr>> = store
        .attachments()
        .unwrap()
        .into_iter()
        .map(|a| (a.owner, a.addresses))
        .collect();
    for (owner, known) in known {
        match (known, found.get(owner)) {
            (Known::Held(addresses), found) => assert_eq!(found, Some(addresses), "{owner}"),
            (Known::Releasing(addresses), Some(found)) => assert_eq!(found, addresses, "{owner}"),
            (Known::Asking | Known::Releasing(_), _) => {}
        }
    }
    let stray: Vec<_> = found.keys().filter(|owner| !known.contains_key(owner)).collect();
    assert!(
        stray.is_empty(),
        "held though released or never asked for: {stray:?}"
    );
    let all: Vec<_> = found.values().flatten().collect();
    assert_eq!(
        all.iter().collect::<BTreeSet<_>>().len(),
        all.len(),
        "held twice: {all:?}"
    );
    found
        .into_iter()
        .map(|(owner, addresses)| (owner, Known::Held(addresses)))
        .collect()
}

#[test]
#[ignore = "the child process of the test above"]
fn child() {
    let (Some(path), Some(seed)) = (std::env::var_os(STORE), std::env::var_os(SEED)) else {
        return;
    };
    let seed: u64 = seed.to_str().unwrap().parse().unwrap();
    let store = AddressStore::open(Path::new(&path), Duration::ZERO).unwrap();
    say("\nready");
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let store = &store;
            scope.spawn(move || {
                let mut random = random(1_000 + seed * THREADS + thread);
                loop {
                    // Each thread has owners of its own, as a runtime never works twice on one at once.
                    let number = random(OWNERS / THREADS) * THREADS + thread;
                    step(store, number);
                }
            });
        }
    });
}

fn step(store: &AddressStore, number: u64) {
    let owner = owner(number);
    if store.get(&owner).unwrap().is_some() {
        say(&format!("releasing {number}"));
        store.release(&owner).unwrap().unwrap();
        say(&format!("free {number}"));
        return;
    }
    say(&format!("asking {number}"));
    let request = Request {
        owner,
        netns: PathBuf::from("/run/netns/x"),
        network: None,
        pod: None,
        mac: [2; 6],
        mtu: 1450,
        families: Family::ALL.to_vec(),
        addresses: Vec::new(),
        host_ports: Vec::new(),
    };
    match store.allocate(&request) {
        Ok(attachment) => {
            let addresses: Vec<_> = attachment.addresses.iter().map(IpAddr::to_string).collect();
            say(&format!("held {number} {}", addresses.join(" ")));
        }
        Err(tombolo_ipam::Error::Exhausted { .. }) => say(&format!("free {number}")),
        Err(error) => panic!("{error}"),
    }
}

/// One line in one write, so that a kill leaves it whole or not at all.
fn say(line: &str) {
    std::io::stdout()
        .lock()
        .write_all(format!("{line}\n").as_bytes())
        .unwrap();
    std::io::stdout().flush().unwrap();
}
