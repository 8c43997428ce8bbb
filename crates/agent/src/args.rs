use std::net::SocketAddr;
use std::path::PathBuf;

use tombolo_cni::agent::{DEFAULT_SOCKET, DEFAULT_STATE_DIR};

/// Connect the pods of this node.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The name of this node's Node object
    #[arg(long, env = "NODE_NAME")]
    pub node: String,
    /// How to reach the API server; left out: as a pod of its cluster
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Where addresses in use are kept
    #[arg(long, value_name = "DIR", default_value = DEFAULT_STATE_DIR)]
    pub state_dir: PathBuf,
    /// Where to serve the CNI plugin and the command line
    #[arg(long, value_name = "FILE", default_value = DEFAULT_SOCKET)]
    pub socket: PathBuf,
    /// Where programs and tables are pinned; on a bpffs
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf/tombolo")]
    pub bpffs: PathBuf,
    /// Where to serve metrics, for Prometheus
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9440")]
    pub metrics: SocketAddr,
    /// Where to answer /healthz and /livez, for load balancers: whether to send this node anything
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "[::]:10256")]
    pub health: SocketAddr,
    /// The devices that join the node to the network around the cluster; left out: those that hold one
    /// of the node's addresses, or the default route
    #[arg(long, value_name = "DEVICE", value_delimiter = ',')]
    pub devices: Vec<String>,
    /// How programs are attached to devices
    #[arg(long, value_enum, default_value_t)]
    pub attach: Attach,
    /// The control group (cgroup v2) whose processes, and those of all groups below, reach Services and host ports by
    /// their sockets: usually /sys/fs/cgroup; left out: pods reach them by packets, the node's own processes do not
    #[arg(long, value_name = "DIR")]
    pub cgroup: Option<PathBuf>,
    /// The form of log lines
    #[arg(long, value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// What to install for the container runtime
    #[command(flatten)]
    pub install: InstallArgs,
    /// Keep a table of flows, which nothing needs yet
    #[arg(long, hide = true)]
    pub track_flows: bool,
}

/// What to install for the container runtime; nothing where no folder is named.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct InstallArgs {
    /// Install the plugin here, where the container runtime looks for plugins: usually /opt/cni/bin
    #[arg(long, value_name = "DIR")]
    pub cni_bin_dir: Option<PathBuf>,
    /// Install the plugin's configuration here once pods can be served: usually /etc/cni/net.d
    #[arg(long, value_name = "DIR")]
    pub cni_conf_dir: Option<PathBuf>,
    /// The plugin to install; left out: tombolo-cni in the folder of this program
    #[arg(long, value_name = "FILE", requires = "cni_bin_dir")]
    pub cni_plugin: Option<PathBuf>,
}

/// What to take away again.
#[derive(Clone, Debug, clap::Args)]
pub struct UninstallArgs {
    /// The agent's state folder, which tells what it has installed
    #[arg(long, value_name = "DIR", default_value = DEFAULT_STATE_DIR)]
    pub state_dir: PathBuf,
}

/// How programs are attached to devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Attach {
    /// By tcx links where the kernel has them, or else by clsact filters.
    #[default]
    Auto,
    /// By tcx links (Linux 6.6).
    Tcx,
    /// By clsact filters.
    Clsact,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For programs: one JSON object a line.
    Json,
}

impl From<Attach> for tombolo_datapath::Attach {
    fn from(attach: Attach) -> Self {
        match attach {
            Attach::Auto => Self::Auto,
            Attach::Tcx => Self::Tcx,
            Attach::Clsact => Self::Clsact,
        }
    }
}
