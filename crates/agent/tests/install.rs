//! The agent installs plugin and configuration for the container runtime, and takes them away again.
#![allow(clippy::unwrap_used, reason = "what panics here fails the test")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{DEADLINE, NODE, Node, Pod, plugin};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tombolo_agent::{CONFLIST_FILE, uninstall};
use tombolo_netlink::sysctl;
use tombolo_testkit::{Disk, Process, wait_for};

const BLOCKS: [&str; 2] = ["10.244.1.0/24", "fd00:10:244::1:0/112"];
const RESERVED_PORTS: &str = "net/ipv4/ip_local_reserved_ports";
const PORT_RANGE: &str = "net/ipv4/ip_local_port_range";

/// The folders of a container runtime.
struct Runtime {
    folder: tempfile::TempDir,
}

impl Runtime {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["bin", "net.d"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        Self { folder }
    }

    fn bin(&self) -> PathBuf {
        self.folder.path().join("bin")
    }

    fn conf(&self) -> PathBuf {
        self.folder.path().join("net.d")
    }

    fn plugin(&self) -> PathBuf {
        self.bin().join("tombolo-cni")
    }

    fn conflist(&self) -> PathBuf {
        self.conf().join(CONFLIST_FILE)
    }

    /// A node whose agent, once it is started, installs here.
    fn node(&self, blocks: &[&str]) -> Node {
        let mut node = Node::new(blocks);
        node.agent_args = args(&self.bin(), &self.conf(), plugin());
        node
    }
}

fn args(bin: &Path, conf: &Path, plugin: &Path) -> Vec<std::ffi::OsString> {
    let pairs = [
        ("--cni-bin-dir", bin),
        ("--cni-conf-dir", conf),
        ("--cni-plugin", plugin),
    ];
    pairs
        .into_iter()
        .flat_map(|(flag, path)| [flag.into(), path.into()])
        .collect()
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn messages(node: &Node) -> String {
    node.get("/v1/status")["messages"].to_string()
}

/// Changes something that the agent looks at, so that it looks at everything.
fn nudge(node: &Node, mtu: u16) {
    node.api.patch_network(&json!({"spec": {"mtu": mtu}}));
}

#[test]
fn the_configuration_comes_when_pods_can_be_served_and_stays() {
    let runtime = Runtime::new();
    let mut node = runtime.node(&[]);
    node.start_agent();
    wait_for(DEADLINE, "the agent to have looked at its node", || {
        node.api
            .node(NODE)
            .status
            .is_some_and(|status| !status.addresses.is_empty())
    });
    assert_eq!(names(&runtime.bin()), set(&["loopback", "tombolo-cni"]));
    assert_eq!(
        names(&runtime.conf()),
        set(&[]),
        "without a block no pod can be served"
    );

    node.api.set_blocks(NODE, &BLOCKS);
    wait_for(DEADLINE, "the configuration", || runtime.conflist().exists());
    // Whoever sees it finds an agent that serves.
    let list: Value = serde_json::from_slice(&fs::read(runtime.conflist()).unwrap()).unwrap();
    let ours = json!({
        "type": "tombolo-cni", "capabilities": {"ips": true, "portMappings": true},
        "socket": node.socket(), "stateDir": node.state_dir(),
    });
    let expected = json!({
        "cniVersion": "1.0.0", "cniVersions": ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"], "name": "tombolo", "plugins": [ours],
    });
    assert_eq!(list, expected);
    let pod = Pod::new();
    let mut config = list["plugins"][0].clone();
    config["cniVersion"] = list["cniVersion"].clone();
    config["name"] = list["name"].clone();
    let mut child = node
        .namespace
        .command(runtime.plugin())
        .env_clear()
        .env("CNI_COMMAND", "ADD")
        .env("CNI_CONTAINERID", &pod.id)
        .env("CNI_IFNAME", "eth0")
        .env("CNI_NETNS", pod.namespace.path())
        .env("CNI_PATH", runtime.bin())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(config.to_string().as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    assert_eq!(names(&runtime.bin()), set(&["loopback", "tombolo-cni"]));
    assert_eq!(names(&runtime.conf()), set(&[CONFLIST_FILE]));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(
        (mode(&runtime.plugin()), mode(&runtime.conflist())),
        (0o755, 0o644)
    );

    let before = [runtime.plugin(), runtime.conflist()].map(|path| fs::metadata(path).unwrap().ino());
    node.end_agent(Signal::SIGKILL);
    assert!(runtime.conflist().exists());
    node.start_agent();
    node.wait_ready();
    nudge(&node, 1400);
    wait_for(DEADLINE, "the agent to have looked", || {
        node.get("/v1/status")["podMtu"] == 1400
    });
    let after = [runtime.plugin(), runtime.conflist()].map(|path| fs::metadata(path).unwrap().ino());
    assert_eq!(before, after, "what is right is not written again");
    assert_eq!(messages(&node), "[]");
}

#[test]
fn an_agent_without_folders_installs_nothing_and_gives_back_ports() {
    let mut node = Node::new(&BLOCKS);
    let ports = |text: &str| {
        node.namespace
            .run(|| sysctl::write(RESERVED_PORTS, text).unwrap())
    };
    let reserved = |node: &Node| node.namespace.run(|| sysctl::read(RESERVED_PORTS).unwrap());
    let range = |node: &Node| node.namespace.run(|| sysctl::read(PORT_RANGE).unwrap());
    let before = range(&node);
    assert_eq!(before, "32768\t60999");
    ports("8000-8010,50000");
    node.start_agent();
    node.wait_ready();
    assert_eq!(reserved(&node), "8000-8010,40960-65535");
    assert_eq!(range(&node), "32768\t40959");
    node.end_agent(Signal::SIGKILL);
    node.start_agent();
    node.wait_ready();
    node.end_agent(Signal::SIGTERM);
    assert_eq!(
        remove(&node),
        [RESERVED_PORTS, PORT_RANGE].map(|key| Path::new("/proc/sys").join(key))
    );
    assert_eq!(reserved(&node), "8000-8010,50000");
    assert_eq!(range(&node), before);
    assert_eq!(remove(&node), Vec::<PathBuf>::new(), "again");
}

/// Uninstalls, inside the node.
fn remove(node: &Node) -> Vec<PathBuf> {
    node.namespace.run(|| uninstall(&node.state_dir()).unwrap())
}

#[test]
fn a_running_plugin_is_replaced() {
    let runtime = Runtime::new();
    let old = plugin();
    fs::copy(old, runtime.plugin()).unwrap();
    // It waits for its configuration, and so keeps its program's file busy.
    let pod = Pod::new();
    let mut command = Command::new(runtime.plugin());
    command
        .env_clear()
        .env("CNI_COMMAND", "ADD")
        .env("CNI_CONTAINERID", &pod.id)
        .env("CNI_IFNAME", "eth0")
        .env("CNI_NETNS", pod.namespace.path())
        .env("CNI_PATH", runtime.bin())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut running = Process::spawn(&mut command);
    let new = runtime.folder.path().join("tombolo-cni-of-the-next-release");
    let mut text = fs::read(old).unwrap();
    text.extend(b"another build");
    fs::write(&new, &text).unwrap();
    let mut node = runtime.node(&BLOCKS);
    node.agent_args = args(&runtime.bin(), &runtime.conf(), &new);
    node.start_agent();
    node.wait_ready();
    wait_for(DEADLINE, "the configuration", || runtime.conflist().exists());
    assert!(
        fs::read(runtime.plugin()).unwrap() == text,
        "the new plugin is there"
    );
    let child = running.child();
    child.stdin.take().unwrap().write_all(b"{}").unwrap();
    let mut printed = String::new();
    child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
    assert!(
        printed.contains("missing network name"),
        "the old one has run to its end: {printed}"
    );
}

#[test]
fn an_earlier_configuration_is_named_in_status_until_it_is_gone() {
    let runtime = Runtime::new();
    let earlier = runtime.conf().join("05-other.conflist");
    fs::write(
        &earlier,
        r#"{"cniVersion":"1.0.0","name":"other","plugins":[{"type":"bridge"}]}"#,
    )
    .unwrap();
    let mut node = runtime.node(&BLOCKS);
    node.start_agent();
    node.wait_ready();
    wait_for(DEADLINE, "the other's name in the node's status", || {
        messages(&node).contains("05-other.conflist")
    });
    assert!(messages(&node).contains("remove it"), "{}", messages(&node));
    wait_for(DEADLINE, "the same for the cluster", || {
        let health = node.api.node(NODE).status.unwrap_or_default().health;
        health.ready && health.message.contains("05-other.conflist")
    });
    fs::remove_file(&earlier).unwrap();
    nudge(&node, 1400);
    wait_for(DEADLINE, "nothing to be said", || messages(&node) == "[]");
}

#[test]
fn a_full_or_read_only_folder_is_said_and_tried_again() {
    let full = Disk::new(64 << 10);
    let runtime = Runtime::new();
    let mut node = runtime.node(&BLOCKS);
    node.agent_args = args(&runtime.bin(), &full.path(), plugin());
    full.set_full(true);
    node.start_agent();
    node.wait_ready();
    wait_for(DEADLINE, "the full disk to be said", || {
        messages(&node).contains("No space left")
    });
    assert!(messages(&node).contains("free space"), "{}", messages(&node));
    assert_eq!(names(&full.path()), set(&["filler"]), "nothing half-made");
    full.set_full(false);
    wait_for(DEADLINE, "the configuration", || {
        full.path().join(CONFLIST_FILE).exists()
    });
    wait_for(DEADLINE, "nothing to be said", || messages(&node) == "[]");

    node.end_agent(Signal::SIGTERM);
    let read_only = Disk::new(64 << 10);
    read_only.set_read_only(true);
    node.agent_args = args(&runtime.bin(), &read_only.path(), plugin());
    node.start_agent();
    wait_for(DEADLINE, "the read-only folder to be said", || {
        node.request("GET", "/v1/status", b"").is_ok() && messages(&node).contains("Read-only")
    });
    assert!(messages(&node).contains("writable"), "{}", messages(&node));
    assert_eq!(
        names(&full.path()),
        set(&[]),
        "what was installed elsewhere before is gone"
    );
    read_only.set_read_only(false);
    wait_for(DEADLINE, "the configuration", || {
        read_only.path().join(CONFLIST_FILE).exists()
    });
}

#[test]
fn uninstall_puts_back_what_was_there() {
    let runtime = Runtime::new();
    let foreign = r#"{"cniVersion":"1.0.0","name":"theirs","plugins":[{"type":"bridge"}]}"#;
    fs::write(runtime.conflist(), foreign).unwrap();
    fs::write(runtime.plugin(), "#!/bin/sh\n").unwrap();
    fs::set_permissions(runtime.plugin(), fs::Permissions::from_mode(0o700)).unwrap();
    let mut node = runtime.node(&BLOCKS);
    // Twice, so that what the first has installed is not taken for what was there before.
    for _ in 0..2 {
        node.start_agent();
        node.wait_ready();
        wait_for(DEADLINE, "our configuration", || {
            fs::read_to_string(runtime.conflist())
                .unwrap()
                .contains("tombolo-cni")
        });
        node.end_agent(Signal::SIGTERM);
        let state = node.state_dir();
        fs::write(state.join("unrelated"), "").unwrap();
    }
    let [ports, range] = [RESERVED_PORTS, PORT_RANGE].map(|key| Path::new("/proc/sys").join(key));
    assert_eq!(
        remove(&node),
        [
            runtime.conflist(),
            runtime.bin().join("loopback"),
            runtime.plugin(),
            ports,
            range
        ]
    );
    assert_eq!(fs::read_to_string(runtime.conflist()).unwrap(), foreign);
    assert_eq!(fs::read_to_string(runtime.plugin()).unwrap(), "#!/bin/sh\n");
    assert_eq!(
        fs::metadata(runtime.plugin()).unwrap().permissions().mode() & 0o7777,
        0o700
    );
    assert_eq!(
        (names(&runtime.bin()).len(), names(&runtime.conf()).len()),
        (1, 1)
    );
    assert_eq!(names(&node.state_dir().join("installed")), set(&[]));
    assert_eq!(remove(&node), Vec::<PathBuf>::new(), "again");
}

#[test]
fn a_loopback_plugin_of_somebody_elses_stays() {
    let runtime = Runtime::new();
    let loopback = runtime.bin().join("loopback");
    fs::write(&loopback, "theirs").unwrap();
    let mut node = runtime.node(&BLOCKS);
    node.start_agent();
    wait_for(DEADLINE, "the configuration", || runtime.conflist().exists());
    assert_eq!(fs::read_to_string(&loopback).unwrap(), "theirs");
    node.end_agent(Signal::SIGTERM);
    assert_eq!(remove(&node)[..2], [runtime.conflist(), runtime.plugin()]);
    assert_eq!(fs::read_to_string(&loopback).unwrap(), "theirs");
}

#[test]
fn status_says_whether_annotated_pods_are_shaped() {
    let runtime = Runtime::new();
    let mut node = runtime.node(&BLOCKS);
    node.start_agent();
    let says = |shapes: bool| node.get("/v1/status")["shapes"] == shapes;
    node.wait_ready();
    wait_for(DEADLINE, "our own configuration, which does not", || says(false));
    let plugins = json!([
        {"type": "tombolo-cni", "capabilities": {"bandwidth": true}},
        {"type": "bandwidth", "capabilities": {"bandwidth": true}},
    ]);
    let chain = json!({"cniVersion": "1.0.0", "name": "tombolo", "plugins": plugins});
    fs::write(runtime.conf().join("05-chain.conflist"), chain.to_string()).unwrap();
    nudge(&node, 1400);
    wait_for(DEADLINE, "the operator's, which does", || says(true));
    assert_eq!(messages(&node), "[]", "it calls our plugin");
}

#[test]
fn uninstall_leaves_nothing_where_nothing_was() {
    let runtime = Runtime::new();
    let mut node = runtime.node(&BLOCKS);
    node.start_agent();
    wait_for(DEADLINE, "the configuration", || runtime.conflist().exists());
    let error = uninstall(&node.state_dir()).unwrap_err().to_string();
    assert!(error.contains("another agent"), "{error}");
    assert!(runtime.conflist().exists() && runtime.plugin().exists());
    node.end_agent(Signal::SIGTERM);
    remove(&node);
    assert_eq!(
        (names(&runtime.bin()), names(&runtime.conf())),
        (set(&[]), set(&[]))
    );
}
