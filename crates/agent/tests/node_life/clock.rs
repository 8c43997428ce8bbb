//! The clock is set. This machine's own cannot be: the agent runs with libfaketime, which changes what it is told of
//! the time of day, and leaves the clock alone that only goes forwards, as clock_settime(2) does.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;
use tombolo_testkit::{Process, Server, ask_tcp, wait_for};

use crate::common::{DEADLINE, NODE, Node, Pod};

/// Where Debian and Ubuntu have the library.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// Starts the agent with a clock that `file` sets.
fn start(node: &mut Node, file: &Path) {
    assert!(
        Path::new(LIBRARY).exists(),
        "{LIBRARY} is missing: install the package faketime"
    );
    let mut command = node.agent_command(&node.pins());
    command
        .env("LD_PRELOAD", LIBRARY)
        .env("FAKETIME_TIMESTAMP_FILE", file)
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    node.run_agent(Process::spawn(&mut command));
    node.wait_ready();
}

#[test]
fn a_clock_that_jumps_changes_nothing() {
    // Four addresses, of which the first is never given.
    let mut node = Node::new(&["10.244.1.0/30"]);
    let folder = tempfile::tempdir().unwrap();
    let file: PathBuf = folder.path().join("clock");
    let set = |offset: &str| {
        let temporary = file.with_extension("new");
        std::fs::write(&temporary, offset).unwrap();
        std::fs::rename(&temporary, &file).unwrap();
    };
    set("+0");
    start(&mut node, &file);
    let (a, b) = (Pod::new(), Pod::new());
    let added = [&a, &b].map(|pod| node.add(pod).unwrap().address(true));
    let freed = Pod::new();
    node.add(&freed).unwrap();
    node.del(&freed);
    let rested = Instant::now();
    let resting = |node: &Node| {
        let error = node.add(&Pod::new()).unwrap_err();
        assert_eq!(error["code"], json!(101), "{error}");
        assert!(error.to_string().contains("resting"), "{error}");
    };
    resting(&node);
    // Two years on, the address rests all the same; two years back, it does not rest for two years.
    set("+2y");
    resting(&node);
    for offset in ["-2y", "+2y", "-2y"] {
        set(offset);
        // What is said and heard goes through.
        let mtu = if offset == "-2y" { 1400 } else { 1300 };
        node.api.patch_network(&json!({"spec": {"mtu": mtu}}));
        wait_for(DEADLINE, "the agent to hear of the change and to say so", || {
            node.api.node(NODE).status.unwrap_or_default().pod_mtu == mtu
        });
    }
    let last = Pod::new();
    wait_for(DEADLINE * 2, "the address to have rested", || {
        node.add(&last).is_ok()
    });
    let waited = rested.elapsed();
    assert!(waited > Duration::from_secs(25), "it rested for {waited:?} only");
    let server = Server::start(&b.namespace, (added[1], 0).into());
    let seen = ask_tcp(&a.namespace, server.address(), b"hello").unwrap();
    assert_eq!(seen.ip(), added[0]);
    // A start in the past, with what was stored in the future.
    node.end_agent(nix::sys::signal::Signal::SIGKILL);
    start(&mut node, &file);
    node.del(&last);
}
