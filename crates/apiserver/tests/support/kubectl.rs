//! The real kubectl.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;

use super::TestServer;

/// How long a command may take.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// kubectl with a home and a cache of its own.
pub struct Kubectl {
    program: PathBuf,
    home: TempDir,
}

/// The kubectl to test with: `$KUBECTL`, or else the one on the path.
fn program() -> PathBuf {
    if let Some(program) = std::env::var_os("KUBECTL") {
        return program.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join("kubectl"))
        .find(|p| p.is_file());
    found.expect("this test needs kubectl 1.27 or newer: install it (https://kubernetes.io/docs/tasks/tools/) or name it in $KUBECTL")
}

impl Kubectl {
    pub fn new(server: &TestServer) -> Self {
        let home = TempDir::new().unwrap();
        std::fs::write(home.path().join("config"), &server.kubeconfig).unwrap();
        Self {
            program: program(),
            home,
        }
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env("KUBECONFIG", self.home.path().join("config"))
            .env("HOME", self.home.path())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    pub async fn run(&self, arguments: &[&str]) -> Output {
        let ended = timeout(DEADLINE, self.command(arguments).output()).await;
        ended
            .unwrap_or_else(|_| panic!("kubectl {arguments:?} hangs"))
            .unwrap()
    }

    /// Runs a command that must succeed, and gives what it printed.
    pub async fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert!(
            output.status.success(),
            "kubectl {arguments:?} failed: {stdout}{stderr}"
        );
        stdout
    }

    /// Runs a command that must fail, and gives what it said.
    pub async fn fails(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        assert!(
            !output.status.success(),
            "kubectl {arguments:?} succeeded: {}",
            text(&output.stdout)
        );
        text(&output.stderr)
    }

    pub fn file(&self, name: &str, content: &str) -> String {
        let path: &Path = &self.home.path().join(name);
        std::fs::write(path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
pub fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
}
