//! Nodes with real agents, and an embedded API server for them.
//!
//! A node is a network namespace; two nodes are joined by one wire. Programs, sockets and state are the node's
//! own, and all of it goes with this value, or with this process.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use kube::Api as KubeApi;
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, CustomResourceExt};
use nix::sys::signal::Signal;
use serde_json::json;
use tokio::runtime::Runtime;
use tombolo_apiserver::{
    DEFAULT_HISTORY, NoLogs, Options, Pki, Resource, ServiceRanges, Token, built_in_resources, serve,
};
use tombolo_cri::Cni;
use tombolo_kube::{CLUSTER, Network, NodeNetwork};
use tombolo_netlink::Route;
use tombolo_testkit::{Bpffs, End, Process, TestNamespace, connect, wait_for_some};

use crate::load::LoadPath;
use crate::plugin::{Operation, Plugin, Pod, own_program};

/// How long an agent may take to be ready.
const DEADLINE: Duration = Duration::from_secs(30);

/// Where agents serve their metrics, in their node's network.
const METRICS: &str = "127.0.0.1:9440";

/// Where state is. Not in memory: that an address is on the disk is part of an ADD.
pub const STATE_ROOT: &str = "/var/tmp";

/// How the cluster is set up.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// One, or two that are joined.
    pub nodes: usize,
    /// As in the Network.
    pub routing: &'static str,
    /// Whether the programs look every packet's flow up.
    pub track_flows: bool,
}

/// A cluster.
pub struct Cluster {
    pub nodes: Vec<Node>,
    /// A host behind the first node, which is no node.
    pub outside: TestNamespace,
    /// Where the wire of a single node ends.
    _other_side: TestNamespace,
    pub api: Api,
}

/// The API server, and a way to it.
pub struct Api {
    pub runtime: Runtime,
    pub client: Client,
}

/// A node.
pub struct Node {
    // The first to go, while all that it needs is still there.
    agent: Process,
    name: String,
    track_flows: bool,
    pub namespace: TestNamespace,
    pub plugin: Plugin,
    /// Where the agent has installed it for a container runtime.
    pub cni: Cni,
    bpffs: Bpffs,
    folder: tempfile::TempDir,
}

impl Cluster {
    /// Starts it, and waits until its agents serve.
    pub fn start(settings: Settings) -> Result<Self> {
        let names: Vec<String> = (1..=settings.nodes).map(|n| format!("node-{n}")).collect();
        let namespaces: Vec<TestNamespace> = names.iter().map(|name| TestNamespace::new(name)).collect();
        let addresses: Vec<String> = (1..=2).map(|n| format!("{}/24", node_address(n))).collect();
        let end = |n: usize| [addresses[n].as_str()];
        let other_side = TestNamespace::new("the other side of the wire");
        let peer = namespaces.get(1).unwrap_or(&other_side);
        let (one, two) = (end(0), end(1));
        let eth0 = |addresses| End {
            name: "eth0",
            addresses,
            ..End::default()
        };
        connect((&namespaces[0], eth0(&one)), (peer, eth0(&two)));
        let outside = TestNamespace::new("outside");
        let eth1 = End {
            name: "eth1",
            addresses: &["172.20.2.11/24"],
            ..End::default()
        };
        connect((&namespaces[0], eth1), (&outside, eth0(&["172.20.2.1/24"])));
        let route = Route {
            gateway: Some("172.20.2.11".parse()?),
            ..Route::new("172.20.1.0/24".parse()?)
        };
        outside.netlink().replace_route(&route)?;

        let (api, kubeconfigs) = start_api(settings, &namespaces)?;
        let started = names.iter().zip(namespaces).zip(kubeconfigs);
        let nodes =
            started.map(|((name, namespace), config)| Node::start(name, namespace, &config, settings));
        Ok(Self {
            nodes: nodes.collect::<Result<_>>()?,
            outside,
            _other_side: other_side,
            api,
        })
    }
}

impl Node {
    fn start(name: &str, namespace: TestNamespace, kubeconfig: &str, settings: Settings) -> Result<Self> {
        let folder = tempfile::tempdir_in(STATE_ROOT)?;
        let bpffs = Bpffs::new();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("kubeconfig"), kubeconfig)?;
        let cni = Cni {
            bin_dir: at("cni/bin"),
            conf_dir: at("cni/net.d"),
        };
        let agent = start_agent(name, &namespace, &folder, &bpffs, &cni, settings.track_flows)?;
        let program = own_program("tombolo-cni")?;
        let plugin = Plugin {
            path: program.parent().map(PathBuf::from).unwrap_or_default(),
            program,
            config: json!({
                "cniVersion": "1.0.0", "name": "tombolo", "type": "tombolo-cni",
                "socket": at("agent.sock"), "stateDir": at("state"),
            }),
        };
        let node = Self {
            agent,
            name: name.into(),
            track_flows: settings.track_flows,
            namespace,
            plugin,
            cni,
            bpffs,
            folder,
        };
        node.wait_ready();
        Ok(node)
    }

    /// A first pod is made, and taken away again.
    fn wait_ready(&self) {
        let pod = Pod::new("first");
        self.namespace.run(|| {
            wait_for_some(DEADLINE, "the agent to serve", || {
                self.plugin.run(Operation::Add, &pod).ok()
            });
            wait_for_some(DEADLINE, "the agent to serve", || {
                self.plugin.run(Operation::Del, &pod).ok()
            });
        });
    }

    /// Connects a pod.
    pub fn add(&self, pod: &Pod) -> Result<std::net::IpAddr> {
        self.namespace.run(|| self.plugin.add(pod))
    }

    /// The mount namespace that the agent is in.
    pub fn mounts(&self) -> PathBuf {
        format!("/proc/{}/ns/mnt", self.agent.id()).into()
    }

    /// Ends the agent and starts it anew: the seconds from just before its start to its first answer that it is ready.
    pub fn restart(&mut self) -> Result<f64> {
        self.end_agent();
        let start = Instant::now();
        self.start_agent()?;
        wait_for_some(DEADLINE, "the agent to be ready", || {
            self.is_ready().ok()?.then_some(())
        });
        Ok(start.elapsed().as_secs_f64())
    }

    /// The same with nothing of it left in the kernel, as after a reboot.
    pub fn restart_cold(&mut self) -> Result<()> {
        self.end_agent();
        std::fs::remove_dir_all(self.bpffs.path().join("tombolo"))?;
        self.start_agent()
    }

    fn end_agent(&mut self) {
        self.agent.signal(Signal::SIGTERM);
        self.agent.wait(DEADLINE);
    }

    fn start_agent(&mut self) -> Result<()> {
        self.agent = start_agent(
            &self.name,
            &self.namespace,
            &self.folder,
            &self.bpffs,
            &self.cni,
            self.track_flows,
        )?;
        Ok(())
    }

    /// One of the agent's metrics, by its name; none before it serves them.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let connect = || TcpStream::connect(METRICS);
        let mut stream = self.namespace.run(connect).ok()?;
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {METRICS}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let value = answer
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value?.parse().ok()
    }

    /// What the maps that the agent holds take of the kernel's memory, in MiB.
    pub fn kernel_memory(&self) -> Result<f64> {
        let mut maps = BTreeMap::new();
        for entry in std::fs::read_dir(format!("/proc/{}/fdinfo", self.agent.id()))? {
            let text = std::fs::read_to_string(entry?.path()).unwrap_or_default();
            let field = |name: &str| {
                text.lines()
                    .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
            };
            if let (Some(id), Some(bytes)) = (field("map_id:"), field("memlock:")) {
                maps.insert(id, bytes);
            }
        }
        Ok(maps.values().sum::<u64>() as f64 / f64::from(1 << 20))
    }

    /// What the agent says of itself, once it serves.
    fn is_ready(&self) -> Result<bool> {
        let mut stream = UnixStream::connect(self.folder.path().join("agent.sock"))?;
        stream.write_all(b"GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        Ok(serde_json::from_str::<serde_json::Value>(body)?["ready"] == true)
    }

    /// The agent's resident memory, in MiB.
    pub fn agent_memory(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.agent.id()))?;
        let line = status
            .lines()
            .find_map(|l| l.strip_prefix("VmRSS:"))
            .context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
    }
}

fn start_agent(
    name: &str,
    namespace: &TestNamespace,
    folder: &tempfile::TempDir,
    bpffs: &Bpffs,
    cni: &Cni,
    track_flows: bool,
) -> Result<Process> {
    let at = |name: &str| folder.path().join(name);
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(at("agent.log"))?;
    // In a mount namespace of its own, which a runtime can join: they must see the same pods' namespaces.
    let mut command = namespace.command("unshare");
    command
        .arg("--mount")
        .arg(own_program("tombolo")?)
        .args(["agent", "--node", name, "--metrics", METRICS])
        .args(["--kubeconfig".into(), at("kubeconfig")])
        .args(["--state-dir".into(), at("state")])
        .args(["--socket".into(), at("agent.sock")])
        .args(["--bpffs".into(), bpffs.path().join("tombolo")])
        .args(["--cni-bin-dir".into(), cni.bin_dir.clone()])
        .args(["--cni-conf-dir".into(), cni.conf_dir.clone()])
        .args(track_flows.then_some("--track-flows"))
        .stdin(Stdio::null())
        .stderr(log);
    Ok(Process::spawn(&mut command))
}

/// A node's own address, on the wire; nodes are counted from 1.
pub fn node_address(number: usize) -> String {
    format!("172.20.1.1{number}")
}

/// A way from a pod of the first node to one of the last.
pub fn pod_to_pod<'a>(cluster: &Cluster, [client, server]: [&'a Pod; 2]) -> Result<LoadPath<'a>> {
    let [first, .., last] = [&cluster.nodes[0], &cluster.nodes[cluster.nodes.len() - 1]];
    first.add(client)?;
    let address = last.add(server)?;
    LoadPath::new(&client.namespace, &server.namespace, address)
}

/// The server with a Network and the nodes, and a kubeconfig for each, which only it can use.
fn start_api(settings: Settings, namespaces: &[TestNamespace]) -> Result<(Api, Vec<String>)> {
    let bind = || TcpListener::bind("127.0.0.1:0");
    let mut listeners = namespaces
        .iter()
        .map(|n| n.run(bind))
        .collect::<std::io::Result<Vec<_>>>()?;
    listeners.push(bind()?);
    let pki = Pki::new(&["127.0.0.1"])?;
    let token = Token::generate("bench");
    let mut kubeconfigs = Vec::new();
    for listener in &listeners {
        let url = format!("https://{}", listener.local_addr()?);
        kubeconfigs.push(pki.kubeconfig(&url, &token.user, &token.secret));
    }
    let own = kubeconfigs.pop().context("a kubeconfig of our own")?;
    let mut resources = built_in_resources(&ServiceRanges::default())?;
    resources.push(Resource::from_crd(Network::crd())?);
    resources.push(Resource::from_crd(NodeNetwork::crd())?);
    let options = Options {
        listeners,
        tls: pki.server_config()?,
        tokens: vec![token],
        resources,
        logs: Arc::new(NoLogs),
        history: DEFAULT_HISTORY,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.spawn(async { serve(options, std::future::pending()).await });
    let client = runtime.block_on(async {
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(Kubeconfig::from_yaml(&own)?, &options);
        let client = Client::try_from(config.await?)?;
        create_objects(client.clone(), settings).await?;
        Ok::<_, anyhow::Error>(client)
    })?;
    Ok((Api { runtime, client }, kubeconfigs))
}

async fn create_objects(client: Client, settings: Settings) -> Result<()> {
    let network: Network = serde_json::from_value(json!({
        "apiVersion": "tombolo.dev/v1alpha1", "kind": "Network", "metadata": {"name": CLUSTER},
        "spec": {
            "routing": settings.routing,
            "pools": [{"cidr": "10.244.0.0/16", "blockSize": 20}],
            "nodeCIDRs": ["172.20.0.0/16"],
            "serviceCIDRs": ["10.96.0.0/16"],
        },
    }))?;
    KubeApi::all(client.clone())
        .create(&PostParams::default(), &network)
        .await?;
    for index in 1..=settings.nodes {
        let block = format!("10.244.{}.0/20", (index - 1) * 16);
        let node: NodeNetwork = serde_json::from_value(json!({
            "apiVersion": "tombolo.dev/v1alpha1", "kind": "NodeNetwork",
            "metadata": {"name": format!("node-{index}")},
            "spec": {"index": index, "blocks": [block]},
        }))?;
        KubeApi::all(client.clone())
            .create(&PostParams::default(), &node)
            .await?;
    }
    Ok(())
}
