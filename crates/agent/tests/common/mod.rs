//! A node with the real agent, and an API server for it.
//!
//! The node is a network namespace with an uplink to another one, which stands for the network around the
//! cluster. Its state, its socket and its bpffs are folders of its own. The agent and the plugin are the real
//! programs, started inside.
#![allow(dead_code, unused_imports, reason = "each test binary uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "what panics here fails the test"
)]

mod api;
pub mod fabric;
mod faults;
mod plugin;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tombolo_abi::{BackendState, Frontend};
use tombolo_cni::{HOST_LINK_PREFIX, fault};
use tombolo_netlink::{ROUTE_PROTOCOL, Route};
use tombolo_testkit::{Bpffs, End, Process, TestNamespace, connect, wait_for};

pub use api::Api;
pub use plugin::{Added, Call, answer, plugin, silence, with_host_ports};

/// How long anything may take on a machine that does other things too.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// What [`Api`] and [`Node`] call the node.
pub const NODE: &str = "node-a";

/// Where the agent serves metrics; in a namespace of its own, so no test is in another's way.
const METRICS: &str = "127.0.0.1:9440";

/// The node's addresses.
pub const NODE_ADDRESSES: [&str; 2] = ["172.20.1.11", "fd00:20:1::11"];

/// A node.
pub struct Node {
    // The first to go, while all that it needs is still there.
    agent: Option<Process>,
    name: String,
    pub namespace: TestNamespace,
    pub outside: Arc<TestNamespace>,
    pub api: Arc<Api>,
    /// More arguments of the agent, from its next start on.
    pub agent_args: Vec<OsString>,
    bpffs: Bpffs,
    folder: tempfile::TempDir,
}

impl Node {
    /// A node whose agent serves, with these blocks.
    pub fn start(blocks: &[&str]) -> Self {
        let mut node = Self::new(blocks);
        node.start_agent();
        node.wait_ready();
        node
    }

    /// A node whose agent has not been started.
    pub fn new(blocks: &[&str]) -> Self {
        let namespace = TestNamespace::new("node");
        let outside = TestNamespace::new("outside");
        let uplink = End {
            name: "eth0",
            addresses: &["172.20.1.11/24", "fd00:20:1::11/64"],
            ..End::default()
        };
        let router = End {
            name: "eth0",
            addresses: &["172.20.1.1/24", "fd00:20:1::1/64"],
            ..End::default()
        };
        let (index, _) = connect((&namespace, uplink), (&outside, router));
        let mut netlink = namespace.netlink();
        for (destination, gateway) in [("0.0.0.0/0", "172.20.1.1"), ("::/0", "fd00:20:1::1")] {
            let route = Route {
                ifindex: Some(index),
                gateway: Some(gateway.parse().unwrap()),
                protocol: 4,
                ..Route::new(destination.parse().unwrap())
            };
            netlink.replace_route(&route).unwrap();
        }
        let api = Arc::new(Api::start(&namespace, blocks));
        Self::with(NODE, namespace, Arc::new(outside), api)
    }

    /// A machine that is to be a node: its state and its bpffs are empty.
    pub fn with(name: &str, namespace: TestNamespace, outside: Arc<TestNamespace>, api: Arc<Api>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("kubeconfig"), api.kubeconfig()).unwrap();
        Self {
            agent: None,
            name: name.into(),
            namespace,
            outside,
            api,
            bpffs: Bpffs::new(),
            folder,
            agent_args: Vec::new(),
        }
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Starts the agent.
    pub fn start_agent(&mut self) {
        assert!(self.agent.is_none(), "the agent runs");
        self.run_agent(self.another_agent());
    }

    /// Takes over an agent that was started.
    pub fn run_agent(&mut self, agent: Process) {
        assert!(self.agent.is_none(), "the agent runs");
        self.agent = Some(agent);
    }

    /// Starts an agent, whether or not one runs.
    pub fn another_agent(&self) -> Process {
        Process::spawn(&mut self.agent_command(&self.pins()))
    }

    /// What starts an agent that pins there.
    pub fn agent_command(&self, pins: &Path) -> Command {
        let mut command = self.namespace.command(env!("CARGO_BIN_EXE_tombolo-agent"));
        command
            .args(["--node", &self.name, "--metrics", METRICS])
            .arg("--kubeconfig")
            .arg(self.folder.path().join("kubeconfig"))
            .arg("--state-dir")
            .arg(self.state_dir())
            .arg("--socket")
            .arg(self.socket())
            .arg("--bpffs")
            .arg(pins)
            .args(&self.agent_args)
            .env(fault::FILE, self.fault_file())
            .stdin(Stdio::null());
        command
    }

    /// Ends the agent, for which another one has been started.
    pub fn replace_agent(&mut self, by: Process) {
        self.end_agent(Signal::SIGTERM);
        self.agent = Some(by);
    }

    /// What Prometheus would read.
    pub fn metrics(&self) -> String {
        self.namespace.run(|| {
            let mut stream = std::net::TcpStream::connect(METRICS).unwrap();
            stream
                .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                .unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        })
    }

    /// Waits until the agent would serve an ADD.
    pub fn wait_ready(&self) {
        wait_for(DEADLINE, "the agent to be ready", || {
            let answer = self.request("GET", "/v1/status", b"").ok();
            answer.is_some_and(|(status, body)| status == 200 && body["ready"] == json!(true))
        });
    }

    /// Ends the agent by a signal.
    pub fn end_agent(&mut self, signal: Signal) {
        let mut agent = self.agent.take().expect("the agent runs");
        agent.signal(signal);
        agent.wait(DEADLINE);
    }

    /// All that a reboot leaves is what is on the disk. The agent has ended, and the API server is elsewhere.
    pub fn reboot(&mut self, pods: Vec<Pod>) {
        assert!(self.agent.is_none(), "the agent runs");
        drop(pods);
        self.namespace = TestNamespace::new(&self.name);
        self.bpffs = Bpffs::new();
    }

    /// From its next start on, the agent finds nobody where the API server was.
    pub fn lose_api_server(&self) {
        let config = self.api.kubeconfig().replace("127.0.0.1", "127.0.0.2");
        std::fs::write(self.folder.path().join("kubeconfig"), config).unwrap();
    }

    /// The agent's resident memory, in KiB.
    pub fn agent_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.agent_id())).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// The agent's process id.
    pub fn agent_id(&self) -> u32 {
        self.agent.as_ref().expect("the agent runs").id()
    }

    pub fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("agent.sock")
    }

    pub fn pins(&self) -> PathBuf {
        self.bpffs.path().join("tombolo")
    }

    /// One exchange with the agent.
    pub fn request(&self, method: &str, path: &str, body: &[u8]) -> std::io::Result<(u16, Value)> {
        let mut stream = UnixStream::connect(self.socket())?;
        stream.set_read_timeout(Some(DEADLINE))?;
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes())?;
        // It may answer before it has read a body that is too long.
        let _ = stream.write_all(body);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer);
        let (head, body) = text
            .split_once("\r\n\r\n")
            .ok_or(std::io::ErrorKind::UnexpectedEof)?;
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|s| s.parse().ok())
            .ok_or(std::io::ErrorKind::InvalidData)?;
        Ok((status, serde_json::from_str(body).unwrap_or(Value::Null)))
    }

    /// The agent's answer to a question, which it must give.
    pub fn get(&self, path: &str) -> Value {
        let (status, body) = self.request("GET", path, b"").unwrap();
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// What there is of pods in the kernel and in the agent's folders.
    pub fn traces(&self) -> Traces {
        let mut netlink = self.namespace.netlink();
        let links = netlink
            .links()
            .unwrap()
            .into_iter()
            .filter(|l| l.name.starts_with(HOST_LINK_PREFIX));
        let links: Vec<_> = links.collect();
        let ours = |ifindex: u32| links.iter().any(|l| l.index == ifindex);
        let neighbours = netlink
            .neighbours()
            .unwrap()
            .into_iter()
            .filter(|n| ours(n.ifindex) && n.permanent);
        let neighbours = neighbours.map(|n| n.address).collect();
        let routes = netlink.routes(ROUTE_PROTOCOL).unwrap().into_iter();
        let routes = routes.filter(|r| r.destination.prefix_len() == r.destination.max_prefix_len());
        let tables = tombolo_datapath::open_readonly(&self.pins()).unwrap();
        let rows = tables.endpoints().entries().unwrap();
        let names = |folder: &Path| -> BTreeSet<String> {
            let entries = std::fs::read_dir(folder).into_iter().flatten();
            entries
                .map(|e| e.unwrap().file_name().into_string().unwrap())
                .collect()
        };
        let mut pins = names(&self.pins().join("links"));
        pins.retain(|p| p.starts_with(HOST_LINK_PREFIX));
        Traces {
            links: links.iter().map(|l| l.name.clone()).collect(),
            neighbours,
            routes: routes.map(|r| r.destination.addr()).collect(),
            rows: rows.keys().map(|a| IpAddr::from(*a)).collect(),
            host_ports: led_to(&tables),
            pins,
            files: names(&self.state_dir().join("adding"))
                .into_iter()
                .chain(names(&self.state_dir().join("released")))
                .collect(),
        }
    }

    /// The addresses that the agent holds to be in use.
    pub fn allocated(&self) -> BTreeSet<IpAddr> {
        let addresses = self.get("/v1/addresses");
        let allocations = addresses["allocations"].as_array().unwrap().iter();
        allocations
            .map(|a| a["address"].as_str().unwrap().parse().unwrap())
            .collect()
    }

    /// Checks that the node has exactly these pods, everywhere.
    pub fn expect_only(&self, pods: &[(&Pod, &Added)]) {
        let addresses: BTreeSet<IpAddr> = pods
            .iter()
            .flat_map(|(_, a)| a.addresses.iter().copied())
            .collect();
        let links: BTreeSet<String> = pods
            .iter()
            .map(|(p, _)| tombolo_cni::host_link_name(&p.id, "eth0"))
            .collect();
        let traces = self.traces();
        assert_eq!(traces.links, links, "links");
        assert_eq!(traces.rows, addresses, "rows of ENDPOINTS");
        let strange = traces.host_ports.difference(&addresses);
        assert_eq!(strange.count(), 0, "host ports lead to {:?}", traces.host_ports);
        assert_eq!(traces.routes, addresses, "routes to pods");
        assert_eq!(traces.neighbours, addresses, "neighbours");
        assert_eq!(traces.pins.len(), 2 * links.len(), "pins: {:?}", traces.pins);
        assert!(traces.files.is_empty(), "files: {:?}", traces.files);
        assert_eq!(self.allocated(), addresses, "addresses in the store");
    }
}

/// Where host ports lead to.
fn led_to(tables: &tombolo_datapath::Tables) -> BTreeSet<IpAddr> {
    let rows = tables.frontends().entries().unwrap();
    let of_pods = rows
        .iter()
        .filter(|(_, row)| row.flags & Frontend::HOST_PORT != 0);
    of_pods
        .filter_map(|(key, row)| {
            let ids = tables.slabs().get(row.internal.base()).unwrap().unwrap().backends;
            let backend = tables.backends().get(ids[0]).unwrap().unwrap();
            if backend.state != BackendState::Serving as u8 {
                let now = tables.frontends().get(key).unwrap();
                assert_eq!(now, None, "it has gone meanwhile, or leads to {backend:?}");
                return None;
            }
            Some(IpAddr::from(backend.address))
        })
        .collect()
}

/// What there is of pods.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Traces {
    pub links: BTreeSet<String>,
    pub neighbours: BTreeSet<IpAddr>,
    pub routes: BTreeSet<IpAddr>,
    pub rows: BTreeSet<IpAddr>,
    /// Pods' addresses that host ports lead to.
    pub host_ports: BTreeSet<IpAddr>,
    pub pins: BTreeSet<String>,
    pub files: BTreeSet<String>,
}

/// A pod's sandbox: a namespace and an id, as a runtime makes them.
pub struct Pod {
    pub id: String,
    pub namespace: TestNamespace,
}

impl Pod {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self {
            id: format!("pod-{}-{number}", std::process::id()),
            namespace: TestNamespace::new("pod"),
        }
    }
}
