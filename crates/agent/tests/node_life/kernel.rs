//! The kernel's side of the node: rebooted, without a bpffs, or with the state of a release that is newer.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use tombolo_abi::ABI_VERSION;
use tombolo_testkit::{Process, ask_tcp, wait_for};

use crate::common::fabric::{Fabric, addresses};
use crate::common::{Node, Pod};
use crate::{Running, ips};

const DUAL: [&str; 2] = ["10.244.1.0/24", "fd00:10:244::1:0/112"];

/// What an agent says that cannot start.
fn last_words(node: &Node, pins: &Path) -> String {
    let mut command = node.agent_command(pins);
    let mut agent = Process::spawn(command.stderr(Stdio::piped()));
    let status = agent.wait(Duration::from_secs(20));
    assert!(!status.success());
    let mut said = String::new();
    std::io::Read::read_to_string(agent.child().stderr.as_mut().unwrap(), &mut said).unwrap();
    said
}

#[test]
fn after_a_reboot_store_and_world_are_brought_together() {
    for routing in ["direct", "vxlan"] {
        let fabric = Fabric::new(routing);
        let (mut one, two) = (fabric.node(1), fabric.node(2));
        let b = Running::on(&two);
        let gone: Vec<Pod> = (0..3)
            .map(|_| {
                let pod = Pod::new();
                one.add(&pod).unwrap();
                pod
            })
            .collect();
        // One ADD was under way, and one DEL had found no agent.
        std::fs::write(
            one.state_dir()
                .join("adding")
                .join(format!("{}@eth0", gone[0].id)),
            "",
        )
        .unwrap();
        one.end_agent(Signal::SIGKILL);
        one.del(&gone[1]);
        one.reboot(gone);
        // The machine comes up as it does: addresses first, and the agent after them.
        fabric.plug("port1", &one, "eth0");
        one.settle("eth0", &addresses(1, 11));
        one.start_agent();
        one.wait_ready();
        one.expect_only(&[]);
        let a = Running::on(&one);
        for v4 in [true, false] {
            let seen = ask_tcp(&b.pod.namespace, a.server(v4), b"hello").unwrap();
            assert_eq!(seen.ip(), b.address(v4));
            let seen = ask_tcp(&one.namespace, b.server(v4), b"hello").unwrap();
            assert_eq!(seen.ip(), ips(&addresses(1, 11))[usize::from(!v4)]);
        }
        one.expect_only(&[(&a.pod, &a.added)]);
    }
}

#[test]
fn without_a_bpffs_the_agent_says_what_to_do() {
    let node = Node::new(&DUAL);
    let folder = tempfile::tempdir().unwrap();
    let said = last_words(&node, folder.path());
    assert!(said.contains("is not on a bpffs"), "{said}");
    assert!(said.contains("mount -t bpf bpf /sys/fs/bpf"), "{said}");
    assert!(
        said.contains("container"),
        "{said} leaves out what to do in a container"
    );
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        0,
        "nothing is left there"
    );
    assert!(!node.socket().exists(), "it does not serve");
}

#[test]
fn the_state_of_a_newer_release_is_left_alone() {
    let mut node = Node::start(&DUAL);
    let (a, b) = (Running::on(&node), Running::on(&node));
    node.end_agent(Signal::SIGTERM);
    // A release that this one has never heard of.
    let newer = node.pins().join(format!("v{}", ABI_VERSION + 7));
    std::fs::create_dir(&newer).unwrap();
    let said = last_words(&node, &node.pins());
    assert!(said.contains(&newer.display().to_string()), "{said}");
    assert!(said.contains("run a build of version"), "{said}");
    let seen = ask_tcp(&a.pod.namespace, b.server(true), b"hello").unwrap();
    assert_eq!(seen.ip(), a.address(true), "what runs, runs on");
    std::fs::remove_dir(&newer).unwrap();
    node.start_agent();
    node.wait_ready();
    node.expect_only(&[(&a.pod, &a.added), (&b.pod, &b.added)]);
    wait_for(crate::DEADLINE, "pods to be made again", || {
        node.add(&Pod::new()).is_ok()
    });
}
