//! A CNI plugin, run as a runtime does, and timed.

use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tombolo_testkit::TestNamespace;

/// A plugin with its configuration.
#[derive(Debug)]
pub struct Plugin {
    pub program: PathBuf,
    /// Where it finds others that it calls.
    pub path: PathBuf,
    pub config: Value,
}

/// A pod to be: an id and a namespace.
#[derive(Debug)]
pub struct Pod {
    pub id: String,
    pub namespace: TestNamespace,
}

impl Pod {
    /// A namespace with nothing in it.
    pub fn new(id: &str) -> Self {
        Self {
            id: id.into(),
            namespace: TestNamespace::new(id),
        }
    }

    /// As many.
    pub fn several(count: usize) -> Vec<Self> {
        (0..count).map(|n| Self::new(&format!("pod-{n}"))).collect()
    }
}

/// What a runtime asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Add,
    Del,
}

impl Plugin {
    /// Runs it for a pod, in the calling thread's namespace. Gives the milliseconds from just before its start to
    /// its end, and what it printed.
    pub fn run(&self, operation: Operation, pod: &Pod) -> Result<(f64, String)> {
        let start = Instant::now();
        let printed = self.finish(self.start(operation, pod)?)?;
        Ok((milliseconds(start), printed))
    }

    /// The same for all pods at once: milliseconds from before the first start to the last end.
    pub fn run_all(&self, operation: Operation, pods: &[Pod]) -> Result<f64> {
        let start = Instant::now();
        let started: Result<Vec<Child>> = pods.iter().map(|pod| self.start(operation, pod)).collect();
        for child in started? {
            self.finish(child)?;
        }
        Ok(milliseconds(start))
    }

    /// ADD, for the address that the pod gets.
    pub fn add(&self, pod: &Pod) -> Result<IpAddr> {
        let (_, printed) = self.run(Operation::Add, pod)?;
        let result: Value = serde_json::from_str(&printed)?;
        let address = result["ips"][0]["address"]
            .as_str()
            .and_then(|a| a.split_once('/'));
        let (address, _) = address.with_context(|| format!("no address in the result: {printed}"))?;
        Ok(address.parse()?)
    }

    fn start(&self, operation: Operation, pod: &Pod) -> Result<Child> {
        let operation = match operation {
            Operation::Add => "ADD",
            Operation::Del => "DEL",
        };
        let mut child = Command::new(&self.program)
            .env_clear()
            .env("CNI_COMMAND", operation)
            .env("CNI_CONTAINERID", &pod.id)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_NETNS", pod.namespace.path())
            .env("CNI_PATH", &self.path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .with_context(|| format!("start {}", self.program.display()))?;
        let mut stdin = child.stdin.take().context("a child without stdin")?;
        stdin.write_all(self.config.to_string().as_bytes())?;
        Ok(child)
    }

    fn finish(&self, child: Child) -> Result<String> {
        let output = child.wait_with_output()?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!("{} failed: {printed}", self.program.display());
        }
        Ok(printed)
    }
}

/// One of our own programs, which lies beside this one.
pub fn own_program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let path = own.parent().unwrap_or(Path::new(".")).join(name);
    if !path.exists() {
        bail!("{} is not there: `make bench` builds it", path.display());
    }
    Ok(path)
}

fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1000.0
}
