//! Calls of the real plugin, as a runtime makes them.

use std::io::{Read, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};
use tombolo_cni::fault;
use tombolo_testkit::Process;

use super::{DEADLINE, Node, Pod};

/// One call of the plugin.
pub struct Call<'a> {
    pub command: &'a str,
    pub container: &'a str,
    pub netns: &'a Path,
    /// The version of the configuration.
    pub version: &'a str,
    /// Keys that are added to the configuration, or replaced.
    pub config: Value,
    /// `CNI_ARGS`.
    pub args: &'a str,
}

impl<'a> Call<'a> {
    pub fn new(command: &'a str, container: &'a str, netns: &'a Path) -> Self {
        Self {
            command,
            container,
            netns,
            version: "1.0.0",
            config: json!({}),
            args: "",
        }
    }
}

/// What a runtime adds to the configuration for a pod with host ports.
pub fn with_host_ports(ports: &[(u16, u16, &str, &str)]) -> Value {
    let mapping = |&(host_port, container_port, host_ip, protocol): &(u16, u16, &str, &str)| json!({"hostPort": host_port, "containerPort": container_port, "hostIP": host_ip, "protocol": protocol});
    json!({"runtimeConfig": {"portMappings": ports.iter().map(mapping).collect::<Vec<_>>()}})
}

/// What the plugin has printed: a result, or an error.
pub fn answer(output: &Output) -> Result<Value, Value> {
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
        panic!(
            "{e}: {} {:?}",
            output.status,
            String::from_utf8_lossy(&output.stdout)
        )
    });
    if output.status.success() {
        Ok(printed)
    } else {
        assert!(printed["code"].is_u64(), "{printed}");
        Err(printed)
    }
}

/// What the plugin has printed where a success has nothing to say.
pub fn silence(output: &Output) -> Result<(), Value> {
    if output.status.success() {
        assert_eq!(String::from_utf8_lossy(&output.stdout), "");
        return Ok(());
    }
    answer(output).map(drop)
}

/// What an ADD has given.
#[derive(Clone, Debug)]
pub struct Added {
    pub addresses: Vec<IpAddr>,
    pub printed: Value,
}

impl Added {
    /// What a result says.
    pub fn of(printed: Value) -> Self {
        let ips = printed["ips"].as_array().unwrap().iter();
        let address = |ip: &Value| {
            let text = ip["address"].as_str().unwrap();
            text.split_once('/').unwrap().0.parse().unwrap()
        };
        Self {
            addresses: ips.map(address).collect(),
            printed,
        }
    }

    pub fn address(&self, v4: bool) -> IpAddr {
        *self
            .addresses
            .iter()
            .find(|a| a.is_ipv4() == v4)
            .expect("an address of the family")
    }
}

impl Node {
    /// Starts the plugin, as a runtime does.
    pub fn start_plugin(&self, call: &Call<'_>) -> Process {
        let mut config = json!({
            "cniVersion": call.version, "name": "tombolo", "type": "tombolo-cni",
            "socket": self.socket(), "stateDir": self.state_dir(),
        });
        let more = call.config.as_object().cloned().unwrap_or_default();
        config.as_object_mut().unwrap().extend(more);
        let mut command = self.namespace.command(plugin());
        command
            .env_clear()
            .env("CNI_COMMAND", call.command)
            .env("CNI_CONTAINERID", call.container)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_NETNS", call.netns)
            .env("CNI_ARGS", call.args)
            .env("CNI_PATH", plugin().parent().unwrap())
            .env(fault::FILE, self.fault_file())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let mut process = Process::spawn(&mut command);
        let mut stdin = process.child().stdin.take().unwrap();
        // One that is killed does not read.
        let _ = stdin.write_all(config.to_string().as_bytes());
        process
    }

    /// Runs the plugin to its end.
    pub fn call(&self, call: &Call<'_>) -> Output {
        self.finish(self.start_plugin(call))
    }

    /// Reads what a plugin prints until it has ended.
    pub fn finish(&self, mut plugin: Process) -> Output {
        let mut stdout = Vec::new();
        let mut pipe = plugin.child().stdout.take().unwrap();
        pipe.read_to_end(&mut stdout).unwrap();
        Output {
            status: plugin.wait(DEADLINE),
            stdout,
            stderr: Vec::new(),
        }
    }

    /// Runs the plugin in the usual way.
    pub fn plugin(&self, command: &str, container: &str, netns: &Path) -> Output {
        self.call(&Call::new(command, container, netns))
    }

    /// ADD for a pod: the result, or the error.
    pub fn add(&self, pod: &Pod) -> Result<Added, Value> {
        self.add_by(&Call::new("ADD", &pod.id, &pod.namespace.path()))
    }

    /// ADD for a pod with host ports, as runtimes pass them: the node's, the pod's, the node's address, the protocol.
    pub fn add_with(&self, pod: &Pod, ports: &[(u16, u16, &str, &str)]) -> Result<Added, Value> {
        let path = pod.namespace.path();
        self.add_by(&Call {
            config: with_host_ports(ports),
            args: &format!("K8S_POD_NAMESPACE=shop;K8S_POD_NAME={};IgnoreUnknown=1", pod.id),
            ..Call::new("ADD", &pod.id, &path)
        })
    }

    /// ADD by a call of a kind of its own.
    pub fn add_by(&self, call: &Call<'_>) -> Result<Added, Value> {
        answer(&self.call(call)).map(Added::of)
    }

    /// CHECK for a pod whose runtime has this result of its ADD.
    pub fn check(&self, pod: &Pod, result: &Value) -> Result<(), Value> {
        let path = pod.namespace.path();
        silence(&self.call(&Call {
            config: json!({ "prevResult": result }),
            ..Call::new("CHECK", &pod.id, &path)
        }))
    }

    /// GC of the network `tombolo`, whose runtime has these pods.
    pub fn gc(&self, valid: &[&Pod]) -> Result<(), Value> {
        let valid: Vec<Value> = valid
            .iter()
            .map(|pod| json!({ "containerID": pod.id, "ifname": "eth0" }))
            .collect();
        silence(&self.call(&Call {
            config: json!({ "cni.dev/valid-attachments": valid, "cni.dev/attachments": valid }),
            version: "1.1.0",
            ..Call::new("GC", "", Path::new(""))
        }))
    }

    /// STATUS.
    pub fn status(&self) -> Result<(), Value> {
        silence(&self.call(&Call {
            version: "1.1.0",
            ..Call::new("STATUS", "", Path::new(""))
        }))
    }

    /// DEL for a pod, which must succeed.
    pub fn del(&self, pod: &Pod) {
        let output = self.plugin("DEL", &pod.id, &pod.namespace.path());
        assert!(
            output.status.success(),
            "DEL {}: {}",
            pod.id,
            String::from_utf8_lossy(&output.stdout)
        );
    }
}

/// The plugin, built as a runtime would find it.
pub fn plugin() -> &'static Path {
    static PLUGIN: OnceLock<PathBuf> = OnceLock::new();
    PLUGIN.get_or_init(|| {
        // Cargo builds no programs of other packages for a test.
        let built = Command::new(env!("CARGO"))
            .args([
                "build",
                "--quiet",
                "--package",
                "tombolo-cni",
                "--bin",
                "tombolo-cni",
            ])
            // As the agent here has them, too.
            .args(["--features", "fault-points"])
            .status()
            .unwrap();
        assert!(built.success(), "cargo cannot build the plugin");
        let agent = Path::new(env!("CARGO_BIN_EXE_tombolo-agent"));
        agent.with_file_name("tombolo-cni")
    })
}
