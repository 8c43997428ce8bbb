//! What a pod's spec has the kubelet do to a container from outside: commands inside, connections and requests.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tombolo_netlink::Namespace;

use crate::place::Place;

/// The container that it is done to.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where its processes run.
    pub place: Place,
    /// The file of its node's network namespace, which connections come from.
    pub node: PathBuf,
    /// Its pod's first address.
    pub address: Option<IpAddr>,
    /// Its named ports.
    pub ports: Vec<core::ContainerPort>,
}

/// One thing to do.
#[derive(Clone, Debug)]
pub enum Action {
    /// Run a command inside; well if it exits with 0.
    Exec(Vec<String>),
    /// Connect.
    Connect(IntOrString, Option<String>),
    /// Ask for a page; well if the status is 200 to 399.
    Get(core::HTTPGetAction),
    /// Wait for so many seconds.
    Sleep(u64),
}

impl Action {
    /// What a probe asks for; none if the lab cannot do it.
    pub fn of_probe(probe: &core::Probe) -> Option<Self> {
        Self::new(
            probe.exec.as_ref(),
            probe.tcp_socket.as_ref(),
            probe.http_get.as_ref(),
        )
    }

    /// What a handler asks for; none if the lab cannot do it.
    pub fn of_handler(handler: &core::LifecycleHandler) -> Option<Self> {
        let sleep = handler.sleep.as_ref();
        let sleep = sleep.map(|sleep| Self::Sleep(u64::try_from(sleep.seconds).unwrap_or(0)));
        sleep.or_else(|| {
            Self::new(
                handler.exec.as_ref(),
                handler.tcp_socket.as_ref(),
                handler.http_get.as_ref(),
            )
        })
    }

    fn new(
        exec: Option<&core::ExecAction>,
        tcp: Option<&core::TCPSocketAction>,
        http: Option<&core::HTTPGetAction>,
    ) -> Option<Self> {
        if let Some(exec) = exec {
            return exec
                .command
                .clone()
                .filter(|words| !words.is_empty())
                .map(Self::Exec);
        }
        if let Some(tcp) = tcp {
            return Some(Self::Connect(tcp.port.clone(), tcp.host.clone()));
        }
        let is_plain = |http: &&core::HTTPGetAction| http.scheme.as_deref() != Some("HTTPS");
        http.filter(is_plain).cloned().map(Self::Get)
    }

    /// Does it; whether all was well within `timeout`.
    pub async fn perform(&self, target: &Target, timeout: Duration) -> bool {
        match self {
            Self::Exec(words) => exec(target, words, timeout).await,
            Self::Sleep(seconds) => {
                tokio::time::sleep(Duration::from_secs(*seconds)).await;
                true
            }
            Self::Connect(port, host) => {
                let address = target.socket(port, host.as_deref());
                from_node(target, address, timeout, |_| true).await
            }
            Self::Get(get) => {
                let address = target.socket(&get.port, get.host.as_deref());
                let request = request(get, address);
                from_node(target, address, timeout, move |stream| {
                    status(stream, &request).is_some_and(|status| (200..400).contains(&status))
                })
                .await
            }
        }
    }
}

impl Target {
    fn socket(&self, port: &IntOrString, host: Option<&str>) -> Option<SocketAddr> {
        let number = match port {
            IntOrString::Int(number) => *number,
            IntOrString::String(name) => {
                let named = self.ports.iter().find(|port| port.name.as_ref() == Some(name));
                named?.container_port
            }
        };
        let address = match host.filter(|host| !host.is_empty()) {
            Some(host) => host.parse().ok()?,
            None => self.address?,
        };
        Some(SocketAddr::new(address, u16::try_from(number).ok()?))
    }
}

async fn exec(target: &Target, words: &[String], timeout: Duration) -> bool {
    let mut command = target.place.command(&words[0]);
    command.args(&words[1..]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let child = tokio::process::Command::from(command).kill_on_drop(true).spawn();
    let Ok(mut child) = child else { return false };
    let ended = tokio::time::timeout(timeout, child.wait()).await;
    matches!(ended, Ok(Ok(status)) if status.success())
}

/// Connects from the node, as the kubelet does, and goes on with the connection.
async fn from_node(
    target: &Target,
    address: Option<SocketAddr>,
    timeout: Duration,
    go_on: impl FnOnce(TcpStream) -> bool + Send + 'static,
) -> bool {
    let (node, Some(address)) = (target.node.clone(), address) else {
        return false;
    };
    let done = tokio::task::spawn_blocking(move || {
        let Ok(node) = Namespace::open(&node) else {
            return false;
        };
        let stream = node.run(|| TcpStream::connect_timeout(&address, timeout));
        let Ok(Ok(stream)) = stream else { return false };
        let is_timed =
            stream.set_read_timeout(Some(timeout)).is_ok() && stream.set_write_timeout(Some(timeout)).is_ok();
        is_timed && go_on(stream)
    });
    // A server that sends a byte now and then must not hold the probe up.
    matches!(tokio::time::timeout(timeout * 2, done).await, Ok(Ok(true)))
}

fn request(get: &core::HTTPGetAction, address: Option<SocketAddr>) -> String {
    let path = get.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
    let host = address.map(|address| address.to_string()).unwrap_or_default();
    let headers: String = get
        .http_headers
        .iter()
        .flatten()
        .map(|header| format!("{}: {}\r\n", header.name, header.value))
        .collect();
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: kube-probe/tombolo\r\nConnection: close\r\n{headers}\r\n"
    )
}

/// The status of the answer (RFC 9112, section 4).
fn status(mut stream: TcpStream, request: &str) -> Option<u16> {
    stream.write_all(request.as_bytes()).ok()?;
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < 256 && byte[0] != b'\n' {
        stream.read_exact(&mut byte).ok()?;
        line.push(byte[0]);
    }
    let line = String::from_utf8_lossy(&line).into_owned();
    let mut words = line.split_whitespace();
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    words.next()?.parse().ok()
}
