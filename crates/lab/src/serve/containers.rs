//! Containers: processes of this machine inside a pod's network namespace and control group.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::Child;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::handlers::{Action, Target};
use super::readiness;
use super::status::now;

/// The one image: this very program, as a probe server unless the container has a command.
const IMAGE: &str = "tombolo/probe";
/// The pause before the first restart; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause before a restart.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// No hook takes longer: its pod is out of time before.
const LONGEST_HOOK: Duration = Duration::from_secs(24 * 60 * 60);

/// What is known of a container.
#[derive(Clone, Debug)]
pub struct Container {
    /// Its name in the pod.
    pub name: String,
    /// Its image.
    pub image: String,
    /// Its id, unique in the lab.
    pub id: String,
    /// What it does now.
    pub state: State,
    /// What it did before it was started again.
    pub last_state: Option<State>,
    /// How often it was started again.
    pub restarts: i32,
    /// Whether it is started again after it ended.
    pub will_restart: bool,
}

/// What a container does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It has not started, or waits to be started again.
    Waiting {
        /// In one word.
        reason: String,
        /// For people.
        message: String,
    },
    /// It runs.
    Running {
        /// Since when.
        since: String,
        /// Whether it does its work already.
        ready: bool,
    },
    /// It has ended.
    Terminated {
        /// Its exit status; 128 and the signal's number if it was killed.
        code: i32,
        /// When it began.
        since: String,
        /// When it ended.
        until: String,
    },
}

impl Container {
    /// A container that has not been started.
    pub fn new(spec: &core::Container, pod_uid: &str) -> Self {
        Self {
            name: spec.name.clone(),
            image: spec.image.clone().unwrap_or_default(),
            id: format!("{pod_uid}-{}", spec.name),
            state: State::Waiting {
                reason: "ContainerCreating".to_owned(),
                message: String::new(),
            },
            last_state: None,
            restarts: 0,
            will_restart: false,
        }
    }

    /// Whether it does its work.
    pub fn is_ready(&self) -> bool {
        matches!(self.state, State::Running { ready: true, .. })
    }
}

/// What a container is started from.
pub struct Start {
    /// Where it runs, and is asked from outside.
    pub target: Target,
    /// Its part of the pod's spec.
    pub spec: core::Container,
    /// The pod's name, which is its host name.
    pub pod_name: String,
    /// The pod's restart policy.
    pub restart_policy: String,
    /// Where its output goes, each line behind its time.
    pub log: PathBuf,
}

/// Runs a container until it ends for good or `stop` turns true, and reports each change of its state.
pub async fn run(
    start: Start,
    mut container: Container,
    changes: mpsc::UnboundedSender<Container>,
    mut stop: watch::Receiver<bool>,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        let since = now();
        let code = match start.spawn() {
            Ok((child, serves)) => {
                let status = watch_over(&start, &mut container, &changes, child, serves, &mut stop).await;
                status.map_or(255, exit_code)
            }
            Err(Refusal {
                reason,
                message,
                is_final,
            }) => {
                container.state = State::Waiting { reason, message };
                let _ = changes.send(container.clone());
                if is_final {
                    return;
                }
                128
            }
        };
        container.state = State::Terminated {
            code,
            since,
            until: now(),
        };
        container.will_restart = !*stop.borrow()
            && match start.restart_policy.as_str() {
                "Never" => false,
                "OnFailure" => code != 0,
                _ => true,
            };
        let _ = changes.send(container.clone());
        if !container.will_restart {
            return;
        }
        container.last_state = Some(container.state.clone());
        container.state = State::Waiting {
            reason: "CrashLoopBackOff".to_owned(),
            message: format!(
                "it ended with {code}; back-off {} s before it is started again",
                pause.as_secs()
            ),
        };
        let _ = changes.send(container.clone());
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
        container.restarts += 1;
    }
}

struct Refusal {
    reason: String,
    message: String,
    is_final: bool,
}

impl Start {
    /// Starts the process; also says whether it is a probe server, which tells when it serves.
    fn spawn(&self) -> Result<(Child, bool), Refusal> {
        let image = self.spec.image.as_deref().unwrap_or_default();
        let name = image.strip_prefix("docker.io/").unwrap_or(image);
        if name != IMAGE && !name.starts_with(&format!("{IMAGE}:")) {
            return Err(Refusal {
                reason: "ErrImageNeverPull".to_owned(),
                message: format!(
                    "the lab has no image {image:?}; use {IMAGE:?}, whose containers may run any command of this machine"
                ),
                is_final: true,
            });
        }
        let program = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
        let mut words = self.spec.command.clone().unwrap_or_default().into_iter();
        let (program, mut args, serves) = match words.next() {
            Some(first) => (PathBuf::from(first), words.collect(), false),
            None => (program, vec!["probe".to_owned(), "serve".to_owned()], true),
        };
        args.extend(self.spec.args.clone().unwrap_or_default());
        let mut command = self.target.place.command(&program);
        command.args(args).env_clear();
        command.env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        );
        command.env("HOSTNAME", &self.pod_name);
        for variable in self.spec.env.iter().flatten() {
            command.env(&variable.name, variable.value.as_deref().unwrap_or_default());
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = tokio::process::Command::from(command).spawn();
        child.map(|child| (child, serves)).map_err(|error| Refusal {
            reason: "RunContainerError".to_owned(),
            message: format!("cannot start {}: {error}", program.display()),
            is_final: false,
        })
    }
}

async fn watch_over(
    start: &Start,
    container: &mut Container,
    changes: &mpsc::UnboundedSender<Container>,
    mut child: Child,
    serves: bool,
    stop: &mut watch::Receiver<bool>,
) -> std::io::Result<ExitStatus> {
    let (tell, mut told) = mpsc::channel(1);
    // What is done beside, until the process has ended.
    let mut beside = JoinSet::new();
    let probe = start.spec.readiness_probe.clone();
    let probe = probe.and_then(|probe| Some((Action::of_probe(&probe)?, probe)));
    let mut first_words = None;
    let mut ready = false;
    match probe {
        Some((action, probe)) => {
            beside.spawn(readiness::watch(start.target.clone(), probe, action, tell));
        }
        // A probe server's first words say that it serves.
        None if serves => first_words = Some(tell),
        None => ready = true,
    }
    if let Some(out) = child.stdout.take() {
        tokio::spawn(keep(out, start.log.clone(), first_words));
    }
    if let Some(err) = child.stderr.take() {
        tokio::spawn(keep(err, start.log.clone(), None));
    }
    let since = now();
    let mut report = |ready: bool| {
        container.state = State::Running {
            since: since.clone(),
            ready,
        };
        let _ = changes.send(container.clone());
    };
    report(ready);
    let mut stopping = false;
    loop {
        tokio::select! {
            status = child.wait() => return status,
            Some(ready) = told.recv() => report(ready),
            _ = stop.wait_for(|stop| *stop), if !stopping => {
                stopping = true;
                beside.spawn(end(start.spec.lifecycle.clone(), start.target.clone(), child.id()));
            }
        }
    }
}

/// Has a container end: what its spec wants done before, then SIGTERM. It serves on until it ends by itself, or its
/// pod is out of time.
async fn end(lifecycle: Option<core::Lifecycle>, target: Target, pid: Option<u32>) {
    let before = lifecycle.and_then(|lifecycle| Action::of_handler(&lifecycle.pre_stop?));
    if let Some(before) = before {
        // Whatever comes of it; only the pod's time bounds it.
        before.perform(&target, LONGEST_HOOK).await;
    }
    if let Some(pid) = pid {
        // It may have ended by itself meanwhile.
        let _ = kill(Pid::from_raw(pid as i32), Signal::SIGTERM);
    }
}

/// Appends each line of `output` to the log, behind its time, as container runtimes do.
async fn keep(output: impl AsyncRead + Unpin, log: PathBuf, mut spoke: Option<mpsc::Sender<bool>>) {
    let Ok(mut log) = open(&log).await else { return };
    let mut lines = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        line.clear();
        match lines.read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if line.last() != Some(&b'\n') {
            line.push(b'\n');
        }
        let stamped = [
            k8s_openapi::jiff::Timestamp::now().to_string().as_bytes(),
            b" ",
            &line,
        ]
        .concat();
        if log.write_all(&stamped).await.and(log.flush().await).is_err() {
            return;
        }
        if let Some(spoke) = spoke.take() {
            let _ = spoke.try_send(true);
        }
    }
}

async fn open(log: &Path) -> std::io::Result<tokio::fs::File> {
    tokio::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .await
}

fn exit_code(status: ExitStatus) -> i32 {
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}
