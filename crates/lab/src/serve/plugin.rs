//! Calls of the CNI plugin, as libcni makes them: the operation in the environment, the configuration on
//! standard input, the result or the error on standard output (CNI SPEC.md 1.1.0, "Protocol").

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::place::Place;
use crate::pod::PodRecord;

/// The version of the specification that the lab speaks.
const CNI_VERSION: &str = "1.0.0";
/// The pod's interface.
const INTERFACE: &str = "eth0";
/// How long one call may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// The plugin that gives pods their network.
#[derive(Clone, Debug)]
pub struct Plugin {
    folder: PathBuf,
}

#[derive(Deserialize)]
struct AddResult {
    #[serde(default)]
    ips: Vec<Ip>,
}

#[derive(Deserialize)]
struct Ip {
    address: IpNet,
}

#[derive(Deserialize)]
struct ErrorResult {
    code: u32,
    msg: String,
    #[serde(default)]
    details: String,
}

impl Plugin {
    /// The plugin `tombolo-cni` in `folder`.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Connects the pod; returns its addresses, and the result as DEL wants it back.
    ///
    /// # Errors
    /// In words, what the plugin answered. DEL must follow all the same.
    pub async fn add(&self, node: &Place, pod: &PodRecord) -> Result<(Vec<IpAddr>, Value), String> {
        let output = self.call(node, "ADD", pod, None).await?;
        let result: Value = serde_json::from_slice(&output)
            .map_err(|error| format!("the result of tombolo-cni is not valid: {error}"))?;
        let parsed = AddResult::deserialize(&result)
            .map_err(|error| format!("the result of tombolo-cni is not valid: {error}"))?;
        if parsed.ips.is_empty() {
            return Err("tombolo-cni gave the pod no address".to_owned());
        }
        Ok((parsed.ips.iter().map(|ip| ip.address.addr()).collect(), result))
    }

    /// Disconnects the pod; succeeds if it is not connected.
    ///
    /// # Errors
    /// In words, what the plugin answered.
    pub async fn delete(
        &self,
        node: &Place,
        pod: &PodRecord,
        previous: Option<&Value>,
    ) -> Result<(), String> {
        self.call(node, "DEL", pod, previous).await.map(drop)
    }

    async fn call(
        &self,
        node: &Place,
        operation: &str,
        pod: &PodRecord,
        previous: Option<&Value>,
    ) -> Result<Vec<u8>, String> {
        let mut config = json!({"cniVersion": CNI_VERSION, "name": "tombolo", "type": "tombolo-cni"});
        if let Some(previous) = previous {
            config["prevResult"] = previous.clone();
        }
        let PodRecord {
            namespace, name, uid, ..
        } = pod;
        let mut command = node.command(self.folder.join("tombolo-cni"));
        command
            .env_clear()
            .env("CNI_COMMAND", operation)
            .env("CNI_CONTAINERID", pod.sandbox())
            .env("CNI_NETNS", &pod.netns)
            .env("CNI_IFNAME", INTERFACE)
            .env("CNI_PATH", &self.folder)
            .env(
                "CNI_ARGS",
                format!(
                    "IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};\
                     K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={uid}",
                    pod.sandbox()
                ),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut command = tokio::process::Command::from(command);
        command.kill_on_drop(true);
        let called = async {
            let mut child = command.spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                stdin.write_all(config.to_string().as_bytes()).await?;
            }
            child.wait_with_output().await
        };
        let output = match tokio::time::timeout(DEADLINE, called).await {
            Ok(Ok(output)) => output,
            Ok(Err(error)) => {
                return Err(format!(
                    "cannot run {}/tombolo-cni: {error}",
                    self.folder.display()
                ));
            }
            Err(_) => {
                return Err(format!(
                    "tombolo-cni did not finish {operation} within {} s",
                    DEADLINE.as_secs()
                ));
            }
        };
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(match serde_json::from_slice::<ErrorResult>(&output.stdout) {
            Ok(ErrorResult { code, msg, details }) if details.is_empty() => {
                format!("tombolo-cni {operation}: {msg} (code {code})")
            }
            Ok(ErrorResult { code, msg, details }) => {
                format!("tombolo-cni {operation}: {msg}: {details} (code {code})")
            }
            Err(_) => format!(
                "tombolo-cni {operation} ended with {} and said {:?} {:?}",
                output.status,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            ),
        })
    }
}
