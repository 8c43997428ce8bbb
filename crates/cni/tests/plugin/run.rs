//! Executing the plugin.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use serde_json::{Value, json};
use tombolo_testkit::TestNamespace;

/// A node's folders and a pod's namespace.
pub struct Node {
    pub folder: tempfile::TempDir,
    pub pod: TestNamespace,
}

/// How the plugin ended.
#[derive(Debug)]
pub struct Outcome {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Node {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            pod: TestNamespace::new("pod"),
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("agent.sock")
    }

    pub fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// A configuration of that version; `more` adds keys or replaces them.
    pub fn config(&self, version: &str, more: Value) -> String {
        let mut config = json!({
            "cniVersion": version, "name": "tombolo", "type": "tombolo-cni",
            "socket": self.socket(), "stateDir": self.state_dir(),
        });
        config
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        config.to_string()
    }

    /// The environment of a runtime that means well.
    pub fn environment(&self, command: &str) -> Vec<(&'static str, String)> {
        vec![
            ("CNI_COMMAND", command.into()),
            ("CNI_CONTAINERID", "3f1c0de".into()),
            ("CNI_IFNAME", "eth0".into()),
            ("CNI_NETNS", self.pod.path().display().to_string()),
            (
                "CNI_ARGS",
                "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;X=y".into(),
            ),
            ("CNI_PATH", "/opt/cni/bin".into()),
        ]
    }

    /// Executes the plugin with a good environment and configuration.
    pub fn run(&self, command: &str, version: &str) -> Outcome {
        run(
            plugin(),
            &self.environment(command),
            self.config(version, json!({})).as_bytes(),
        )
    }

    /// What is in the state folder.
    pub fn state(&self) -> Vec<String> {
        files(&self.state_dir())
    }
}

fn files(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| {
            if path.is_dir() {
                files(&path)
            } else {
                vec![path.display().to_string()]
            }
        })
        .collect()
}

/// The plugin, in the test's own namespace.
pub fn plugin() -> Command {
    Command::new(env!("CARGO_BIN_EXE_tombolo-cni"))
}

pub fn run(mut command: Command, environment: &[(&str, String)], stdin: &[u8]) -> Outcome {
    let mut child = command
        .env_clear()
        .envs(environment.iter().map(|(name, value)| (*name, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let bytes = stdin.to_vec();
    // The plugin need not read all of it.
    let writer = thread::spawn(move || drop(pipe.write_all(&bytes)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    Outcome {
        status: output.status.code().expect("the plugin was killed"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Executes it with stdout at a device that is always full.
pub fn run_with_full_stdout(
    mut command: Command,
    environment: &[(&str, String)],
    stdin: &[u8],
) -> Option<i32> {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut child = command
        .env_clear()
        .envs(environment.iter().map(|(name, value)| (*name, value)))
        .stdin(Stdio::piped())
        .stdout(full)
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(stdin).unwrap();
    child.wait().unwrap().code()
}

impl Outcome {
    /// The one JSON document of a success.
    #[track_caller]
    pub fn success(&self) -> Value {
        assert_eq!((self.status, self.stderr.as_str()), (0, ""), "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// A success that has nothing to say.
    #[track_caller]
    pub fn silent_success(&self) {
        assert_eq!(
            (self.status, self.stdout.as_str(), self.stderr.as_str()),
            (0, "", ""),
            "{self:?}"
        );
    }

    /// The specified error and nothing else; gives its message and details.
    #[track_caller]
    pub fn error(&self, code: u32, version: &str) -> String {
        assert_eq!((self.status, self.stderr.as_str()), (1, ""), "{self:?}");
        let error: Value =
            serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        assert_eq!(error["code"], code, "{self:?}");
        assert_eq!(error["cniVersion"], version, "{self:?}");
        let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
        assert!(!text("msg").is_empty(), "{self:?}");
        format!("{}: {}", text("msg"), text("details"))
    }
}
