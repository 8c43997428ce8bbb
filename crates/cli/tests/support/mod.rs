//! Labs for tests: real ones, by the binary, each with a name of its own, and gone with the test.

#![allow(dead_code, reason = "every test binary uses another part")]

pub mod agents;
pub mod asking;
pub mod attacks;
pub mod connections;
pub mod floods;
pub mod load;
pub mod sandbox;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tombolo_testkit::TestNamespace;

/// The program under test.
pub const TOMBOLO: &str = env!("CARGO_BIN_EXE_tombolo");

/// A lab that is taken down when dropped.
pub struct Lab {
    pub name: String,
    folder: tempfile::TempDir,
}

/// A name that no other test has.
pub fn unique_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "test-{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Output {
    command
        .output()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"))
}

/// Its standard output, if it succeeded.
#[track_caller]
pub fn succeed(command: &mut Command) -> String {
    let output = run(command);
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "{command:?} ended with {}\n{out}\n{err}",
        output.status
    );
    out.into_owned()
}

/// Looks until `look` gives something.
#[track_caller]
pub fn eventually<T>(what: &str, seconds: u64, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {seconds} s");
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Lab {
    /// A lab that is not up yet.
    pub fn named(name: String) -> Self {
        Self {
            name,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// A lab with `nodes` nodes and two pods on each: `a1` and `b1` on node1, and so on; `b1` has two
    /// containers. Each has its name as the label `name`, and its letter
    /// as `letter`.
    #[track_caller]
    pub fn up(nodes: usize, options: &[&str]) -> Self {
        let lab = Self::named(unique_name());
        succeed(&mut lab.up_command(nodes, options));
        lab
    }

    /// The command that brings it up.
    pub fn up_command(&self, nodes: usize, options: &[&str]) -> Command {
        let manifest = self.folder.path().join("pods.json");
        fs::write(&manifest, pods(nodes)).unwrap();
        let mut command = Command::new(TOMBOLO);
        command.args([
            "lab",
            "up",
            "--name",
            &self.name,
            "--nodes",
            &nodes.to_string(),
            "-f",
        ]);
        command.arg(manifest).args(options);
        command
    }

    /// `tombolo lab ... --name`.
    pub fn lab(&self, words: &[&str]) -> Command {
        let mut command = Command::new(TOMBOLO);
        command
            .args(["lab", words[0], "--name", &self.name])
            .args(&words[1..]);
        command
    }

    /// A command inside a node, a pod or the outside host.
    pub fn exec(&self, place: &str, words: &[&str]) -> Command {
        let mut command = self.lab(&["exec", place, "--"]);
        command.args(words);
        command
    }

    /// `kubectl` against the lab.
    pub fn kubectl(&self, words: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.env("KUBECONFIG", self.kubeconfig()).args(words);
        command
    }

    /// Applies a list of objects.
    #[track_caller]
    pub fn apply(&self, objects: &[Value]) {
        let mut file = tempfile::NamedTempFile::new_in(self.folder.path()).unwrap();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        serde_json::to_writer(&mut file, &list).unwrap();
        succeed(&mut self.kubectl(&["apply", "-f", file.path().to_str().unwrap()]));
    }

    /// An object as the API server has it.
    #[track_caller]
    pub fn object(&self, kind: &str, name: &str) -> Value {
        serde_json::from_str(&succeed(&mut self.kubectl(&["get", kind, name, "-o", "json"]))).unwrap()
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.folder_of_lab().join("state/kubeconfig")
    }

    pub fn folder_of_lab(&self) -> PathBuf {
        Path::new("/run/tombolo/lab").join(&self.name)
    }

    /// The network of a node, or of the outside host.
    #[track_caller]
    pub fn namespace(&self, place: &str) -> TestNamespace {
        let file = format!("state/ns/{place}.net");
        TestNamespace::open(place, &self.folder_of_lab().join(file))
    }

    pub fn cgroup(&self) -> PathBuf {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let mount = mounts
            .lines()
            .find(|line| line.split(' ').nth(2) == Some("cgroup2"))
            .unwrap();
        Path::new(mount.split(' ').nth(1).unwrap()).join(format!("tombolo-lab-{}", self.name))
    }

    /// `tombolo lab status --json`.
    #[track_caller]
    pub fn status(&self) -> Value {
        serde_json::from_str(&succeed(&mut self.lab(&["status", "--json"]))).unwrap()
    }

    /// The addresses of a pod.
    #[track_caller]
    pub fn addresses(&self, pod: &str) -> Vec<String> {
        let status = self.status();
        let pods = status["pods"].as_array().unwrap();
        let found = pods
            .iter()
            .find(|one| one["name"] == pod)
            .unwrap_or_else(|| panic!("no pod {pod}: {status}"));
        found["addresses"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one.as_str().unwrap().to_owned())
            .collect()
    }

    /// The process of a place whose command line has all of `words`.
    #[track_caller]
    pub fn process(&self, place: &str, words: &str) -> Option<u32> {
        let status = self.status();
        let processes = status["processes"].as_array().unwrap();
        let is_it = |one: &&Value| one["place"] == place && one["command"].as_str().unwrap().contains(words);
        Some(processes.iter().find(is_it)?["pid"].as_u64().unwrap() as u32)
    }

    /// The whole matrix, which must be good.
    #[track_caller]
    pub fn assert_connected(&self) -> Value {
        let output = run(Command::new(TOMBOLO).args(["connectivity", "--json", "--name", &self.name]));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("no report ({error}): {}", String::from_utf8_lossy(&output.stderr))
        });
        let wrong: Vec<&Value> = report["checks"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|check| check["ok"] != true)
            .collect();
        if !output.status.success() || !wrong.is_empty() || report["ok"] != true {
            let shown: Vec<String> = wrong.iter().take(20).map(|one| one.to_string()).collect();
            panic!(
                "{} checks failed:\n{}\n{}",
                wrong.len(),
                shown.join("\n"),
                self.datapath()
            );
        }
        report
    }

    /// Makes checks from a place; returns the report.
    #[track_caller]
    pub fn check(&self, place: &str, checks: &Value) -> Value {
        let mut command = self.exec(place, &[TOMBOLO, "probe", "check"]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        serde_json::to_writer(child.stdin.take().unwrap(), checks).unwrap();
        serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap()
    }

    /// What the nodes' datapaths hold and have dropped, for failed assertions.
    pub fn datapath(&self) -> String {
        let Ok(output) = self.lab(&["status", "--json"]).output() else {
            return String::new();
        };
        let Ok(status) = serde_json::from_slice::<Value>(&output.stdout) else {
            return String::new();
        };
        let mut text = String::new();
        for node in status["nodes"].as_array().unwrap() {
            for table in ["endpoints", "routes", "services", "drops"] {
                let name = node["name"].as_str().unwrap();
                let output = run(&mut self.exec(name, &[TOMBOLO, "get", table]));
                text += &format!("{name} {table}:\n{}\n", String::from_utf8_lossy(&output.stdout));
            }
        }
        text
    }

    /// Takes it down, which must succeed and leave nothing.
    #[track_caller]
    pub fn down(&self) {
        succeed(&mut self.lab(&["down"]));
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let output = self.lab(&["down"]).output();
        if !std::thread::panicking() {
            let output = output.unwrap();
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
}

/// A process that ends with the test.
pub struct Background(pub Child);

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn pods(nodes: usize) -> String {
    let mut items = Vec::new();
    for node in 1..=nodes {
        for letter in ["a", "b"] {
            let name = format!("{letter}{node}");
            let mut containers = vec![json!({"name": "probe", "image": "tombolo/probe"})];
            if name == "b1" {
                containers.push(json!({
                    "name": "second",
                    "image": "tombolo/probe",
                    "args": ["--port", "7071", "--http-port", "8081"],
                }));
            }
            items.push(json!({
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "labels": {"name": name, "letter": letter}},
                "spec": {
                    "containers": containers,
                    "terminationGracePeriodSeconds": 2,
                    "nodeSelector": {"kubernetes.io/hostname": format!("node{node}")},
                },
            }));
        }
    }
    items.iter().map(|item| format!("---\n{item}\n")).collect()
}
