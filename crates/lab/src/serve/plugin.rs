//! One call of a CNI plugin, as libcni makes it: the operation in the environment, the configuration on standard
//! input, the result or the error on standard output (CNI SPEC.md 1.1.0, section 2).

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use crate::place::Place;
use crate::pod::PodRecord;
use crate::state::NODE_CNI_BIN;

/// The pod's interface.
const INTERFACE: &str = "eth0";
/// How long one call may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// What a plugin is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Connect the pod.
    Add,
    /// Disconnect it.
    Del,
}

#[derive(Deserialize)]
struct ErrorResult {
    code: u32,
    msg: String,
    #[serde(default)]
    details: String,
}

/// Runs the plugin `kind` of a node with `config`; returns what it printed.
///
/// # Errors
/// In words, what the plugin answered.
pub async fn call(
    node: &Place,
    operation: Operation,
    kind: &str,
    config: &Value,
    pod: &PodRecord,
) -> Result<Vec<u8>, String> {
    let operation = match operation {
        Operation::Add => "ADD",
        Operation::Del => "DEL",
    };
    let PodRecord {
        namespace, name, uid, ..
    } = pod;
    let mut command = node.command(Path::new(NODE_CNI_BIN).join(kind));
    command
        .env_clear()
        .env("CNI_COMMAND", operation)
        .env("CNI_CONTAINERID", pod.sandbox())
        .env("CNI_NETNS", &pod.netns)
        .env("CNI_IFNAME", INTERFACE)
        .env("CNI_PATH", NODE_CNI_BIN)
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
            return Err(format!("cannot run {kind} in the node's {NODE_CNI_BIN}: {error}"));
        }
        Err(_) => {
            return Err(format!(
                "{kind} did not finish {operation} within {} s",
                DEADLINE.as_secs()
            ));
        }
    };
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(match serde_json::from_slice::<ErrorResult>(&output.stdout) {
        Ok(ErrorResult { code, msg, details }) if details.is_empty() => {
            format!("{kind} {operation}: {msg} (code {code})")
        }
        Ok(ErrorResult { code, msg, details }) => {
            format!("{kind} {operation}: {msg}: {details} (code {code})")
        }
        Err(_) => format!(
            "{kind} {operation} ended with {} and said {:?} {:?}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ),
    })
}
