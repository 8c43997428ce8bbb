//! Agents that take each other's place on a node of a lab.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Background, Lab, TOMBOLO, eventually, run, succeed};

/// A build of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// What users run.
    This,
    /// Of the ABI version that there is none of yet.
    Next,
}

impl Build {
    /// The ABI version.
    pub fn version(self) -> u32 {
        match self {
            Self::This => 1,
            Self::Next => 2,
        }
    }

    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::This => Self::Next,
            Self::Next => Self::This,
        }
    }

    fn command(self) -> Vec<&'static str> {
        match self {
            Self::This => vec![TOMBOLO, "agent"],
            Self::Next => vec![next().to_str().unwrap()],
        }
    }
}

/// The agent of the next version, which is built here: no other build has its feature.
pub fn next() -> &'static Path {
    static NEXT: OnceLock<PathBuf> = OnceLock::new();
    NEXT.get_or_init(|| {
        let words = "build --quiet --features tombolo-agent/abi-next --bin tombolo-agent-next";
        // From the workspace's root: with the same dependencies, built with the same features, as all else.
        let built = Command::new(env!("CARGO"))
            .args(words.split(' '))
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
            .status()
            .unwrap();
        assert!(built.success(), "cargo cannot build the next version");
        Path::new(TOMBOLO).with_file_name("tombolo-agent-next")
    })
}

/// The agent of a node, whichever runs now.
pub struct Agent<'a> {
    lab: &'a Lab,
    node: &'static str,
    build: Build,
    process: Option<Background>,
    log: tempfile::NamedTempFile,
}

impl<'a> Agent<'a> {
    /// Ends the lab's own agent, and starts one that tracks flows.
    pub fn replace(lab: &'a Lab, node: &'static str) -> Self {
        let old = lab.process(node, "tombolo agent").expect("an agent");
        kill(Pid::from_raw(old as i32), Signal::SIGTERM).unwrap();
        eventually("the lab's agent to end", 20, || {
            (lab.process(node, "tombolo agent") != Some(old)).then_some(())
        });
        let mut agent = Self {
            lab,
            node,
            build: Build::This,
            process: None,
            log: tempfile::NamedTempFile::new().unwrap(),
        };
        agent.start(Build::This);
        agent.wait_ready();
        agent
    }

    /// Which build runs, or ran last.
    pub fn build(&self) -> Build {
        self.build
    }

    /// Starts one.
    pub fn start(&mut self, build: Build) {
        assert!(self.process.is_none(), "an agent runs");
        let mut words = build.command();
        words.extend([
            "--node",
            self.node,
            "--kubeconfig",
            "/run/tombolo/kubeconfig",
            "--track-flows",
            "--cgroup",
        ]);
        let mut command = self.lab.exec(self.node, &words);
        command.arg(self.lab.cgroup().join(self.node));
        let log = File::create(self.log.path()).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.process = Some(Background(command.spawn().unwrap()));
        self.build = build;
    }

    /// Ends it by a signal, and waits until it has ended.
    pub fn end(&mut self, signal: Signal) {
        let mut process = self.process.take().expect("an agent runs");
        kill(Pid::from_raw(process.0.id() as i32), signal).unwrap();
        eventually("the agent to end", 20, || process.0.try_wait().unwrap());
    }

    /// Waits until it serves, with the tables of its version and no others.
    #[track_caller]
    pub fn wait_ready(&mut self) {
        let process = self.process.as_mut().expect("an agent runs");
        let log = self.log.path();
        eventually("the agent to be ready", 30, || {
            let ended = process.0.try_wait().unwrap();
            let text = || fs::read_to_string(log).unwrap_or_default();
            assert!(ended.is_none(), "the agent ended: {}", text());
            run(&mut self.lab.exec(self.node, &[TOMBOLO, "status"]))
                .status
                .success()
                .then_some(())
        });
        let held = succeed(&mut self.lab.exec(self.node, &["ls", "/sys/fs/bpf/tombolo"]));
        let wanted = format!("links\nv{}\n", self.build.version());
        assert_eq!(held, wanted, "{}", self.node);
    }
}
