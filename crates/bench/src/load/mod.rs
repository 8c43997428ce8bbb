//! The load generator: one server and one client process, each in its namespace, both on one CPU.
//!
//! A connection begins with a byte that says what it is for; see [`Mode`].

pub mod client;
pub mod server;

use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use tombolo_testkit::{Process, TestNamespace};

use crate::cgroup::Cgroup;

/// What every socket uses, whatever the machine's default is: figures of different algorithms do not compare.
pub const CONGESTION_CONTROL: &str = "cubic";

/// Where servers listen.
pub const PORT: u16 = 5201;

/// How long a server may take to listen, and a path to carry its first packet.
const DEADLINE: Duration = Duration::from_secs(30);

/// What goes over a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// As much as goes, one way; the server answers with how many bytes came.
    Stream,
    /// One byte there, one byte back, and again.
    RequestResponse,
    /// The same, with a new connection each time.
    ConnectRequestResponse,
}

impl Mode {
    /// The first byte of a connection.
    const fn byte(self) -> u8 {
        match self {
            Self::Stream => b's',
            Self::RequestResponse => b'r',
            Self::ConnectRequestResponse => b'c',
        }
    }
}

/// A way from a client to a server that runs at its end.
pub struct LoadPath<'a> {
    client: &'a TestNamespace,
    /// The control group that the client starts in, where it matters.
    cgroup: Option<&'a Cgroup>,
    address: SocketAddr,
    server: Arc<Process>,
}

impl<'a> LoadPath<'a> {
    /// Starts the server and waits until the client reaches it.
    pub fn new(client: &'a TestNamespace, server: &TestNamespace, address: IpAddr) -> Result<Self> {
        set_up_ports(server);
        let address = SocketAddr::new(address, PORT);
        let mut command = server.command(std::env::current_exe()?);
        command.args(["load-server", "--listen", &address.to_string()]);
        Self::begin(client, address, Arc::new(Process::spawn(&mut command)))
    }

    /// The way to the same server by another address, from wherever.
    pub fn by<'b>(&self, client: &'b TestNamespace, address: SocketAddr) -> Result<LoadPath<'b>> {
        LoadPath::begin(client, address, self.server.clone())
    }

    fn begin(client: &'a TestNamespace, address: SocketAddr, server: Arc<Process>) -> Result<Self> {
        set_up_ports(client);
        let path = Self {
            client,
            cgroup: None,
            address,
            server,
        };
        path.measure(Mode::ConnectRequestResponse, Duration::from_millis(10))?;
        Ok(path)
    }

    /// The same with a client of this control group.
    pub fn started_in(mut self, cgroup: &'a Cgroup) -> Self {
        self.cgroup = Some(cgroup);
        self
    }

    /// Where it leads.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Runs the client once. Gives bits or transactions in a second.
    pub fn measure(&self, mode: Mode, duration: Duration) -> Result<f64> {
        let mode = mode.to_possible_value().context("a mode without a name")?;
        let mut client = self.client.command(std::env::current_exe()?);
        if let Some(cgroup) = self.cgroup {
            cgroup.hold(&mut client)?;
        }
        let output = client
            .args([
                "load-client",
                "--mode",
                mode.get_name(),
                "--server",
                &self.address.to_string(),
            ])
            .args(["--milliseconds", &duration.as_millis().to_string()])
            .stderr(Stdio::inherit())
            .output()?;
        ensure!(output.status.success(), "the client of {} failed", self.address);
        let text = String::from_utf8(output.stdout)?;
        text.trim()
            .parse()
            .with_context(|| format!("the client printed {text:?}"))
    }
}

/// New connections follow each other faster than their ports are forgotten.
fn set_up_ports(namespace: &TestNamespace) {
    namespace.sysctl("net/ipv4/tcp_tw_reuse", "1");
    namespace.sysctl("net/ipv4/ip_local_port_range", "10240 65535");
}

/// Binds the process to the machine's last CPU.
fn pin() -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(std::thread::available_parallelism()?.get() - 1)?;
    sched_setaffinity(Pid::from_raw(0), &cpus).context("bind to one CPU")
}

/// Sets a socket up as both sides have it.
fn set_up(socket: &socket2::Socket) -> Result<()> {
    socket
        .set_tcp_congestion(CONGESTION_CONTROL.as_bytes())
        .with_context(|| format!("use congestion control {CONGESTION_CONTROL}: does the kernel have it?"))?;
    Ok(socket.set_tcp_nodelay(true)?)
}
