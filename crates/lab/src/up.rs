//! Bringing a lab up.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use crate::api::Api;
use crate::down;
use crate::error::{Error, Result};
use crate::fabric;
use crate::manifest::Manifest;
use crate::options::UpArgs;
use crate::place::{CONTROL, OUTSIDE, Place, tail};
use crate::plan::Plan;
use crate::state::{LabDir, NODE_CNI_BIN, NODE_CNI_CONF, NODE_KUBECONFIG};

/// How often what is waited for is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// The CNI plugin's program.
const PLUGIN_NAME: &str = "tombolo-cni";

/// Brings a lab up and waits until its nodes are ready and the pods of `manifests` run; tells of each step
/// through `progress`. If that fails or is interrupted by SIGINT or SIGTERM, everything is removed again.
///
/// # Errors
/// What went wrong, and if removing failed too, that.
pub async fn up(args: &UpArgs, progress: &mut dyn FnMut(String)) -> Result<LabDir> {
    let plan = Plan::new(args)?;
    let manifests = Manifest::read_all(&args.manifests)?;
    let plugin = plugin(args.cni_path.as_deref())?;
    let lab = LabDir::new(&plan.name);
    let lock = lab.create(&plan);
    // From here on there may be something to remove.
    let lock = match lock {
        Ok(lock) => lock,
        Err(error @ (Error::Exists(_) | Error::Busy(_))) => return Err(error),
        Err(error) => return Err(undo(&lab, None, error)),
    };
    let steps = steps(&lab, &plan, args, manifests, &plugin, progress);
    let result = tokio::select! {
        result = steps => result,
        result = interrupted() => result,
    };
    match result {
        Ok(()) => Ok(lab),
        Err(error) => Err(undo(&lab, Some(lock), error)),
    }
}

fn undo(lab: &LabDir, lock: Option<crate::state::Lock>, error: Error) -> Error {
    match down::remove(lab, lock) {
        Ok(()) => error,
        Err(also) => Error::Several(vec![error, also]),
    }
}

async fn interrupted() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let signals = signal(SignalKind::interrupt()).and_then(|int| Ok((int, signal(SignalKind::terminate())?)));
    match signals {
        Ok((mut interrupt, mut terminate)) => {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            Err(Error::Interrupted)
        }
        // Without handlers, the signals end the process, and `down` removes what it made.
        Err(_) => std::future::pending().await,
    }
}

async fn steps(
    lab: &LabDir,
    plan: &Plan,
    args: &UpArgs,
    manifests: Vec<Manifest>,
    plugin: &Path,
    progress: &mut dyn FnMut(String),
) -> Result<()> {
    let mut timer = Instant::now();
    let mut done = |what: String| {
        progress(format!("{what} ({} ms)", timer.elapsed().as_millis()));
        timer = Instant::now();
    };
    fabric::build(lab, plan)?;
    done(format!(
        "fabric: a router, {} L2 segment{}, an outside host, {} node{}",
        plan.segments.len(),
        plural(plan.segments.len()),
        plan.nodes.len(),
        plural(plan.nodes.len())
    ));
    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    let mut processes = Processes::default();
    processes.start_control(lab)?;
    processes.wait_for(&lab.kubeconfig(), deadline).await?;
    done("API server: it serves".to_owned());
    processes.start_nodes(lab, plan, plugin)?;
    let api = Api::connect(&lab.kubeconfig()).await?;
    wait(&mut processes, deadline, "for the nodes to be ready", || {
        api.unready_nodes()
    })
    .await?;
    done("nodes: all ready".to_owned());
    if !manifests.is_empty() {
        let pods = api.apply(&manifests).await?;
        wait(&mut processes, deadline, "for the pods to run", || {
            api.unready_pods(&pods)
        })
        .await?;
        done(format!("pods: {} running", pods.len()));
    }
    // A node that is ready may still have something to say.
    for network in api.node_networks().await? {
        let said = network.status.unwrap_or_default().health.message;
        if !said.is_empty() {
            progress(format!(
                "warning: {}: {said}",
                network.metadata.name.unwrap_or_default()
            ));
        }
    }
    Ok(())
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// Looks again and again until `missing` is empty.
async fn wait<F: Future<Output = Result<Vec<String>>>>(
    processes: &mut Processes,
    deadline: Instant,
    what: &str,
    mut missing: impl FnMut() -> F,
) -> Result<()> {
    let start = Instant::now();
    loop {
        let left = missing().await?;
        if left.is_empty() {
            return Ok(());
        }
        processes.check()?;
        if Instant::now() > deadline {
            return Err(Error::Deadline {
                waiting_for: format!("waiting {what}"),
                seconds: start.elapsed().as_secs(),
                state: format!("\n  - {}\n{}", left.join("\n  - "), processes.last_words()),
            });
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What the agents are to install.
fn plugin(folder: Option<&Path>) -> Result<PathBuf> {
    let plugin = match folder {
        // Nodes do not share this command's working folder.
        Some(folder) => std::path::absolute(folder)
            .map_err(crate::error::system("find", folder))?
            .join(PLUGIN_NAME),
        None => program()?.with_file_name(PLUGIN_NAME),
    };
    if plugin.is_file() {
        return Ok(plugin);
    }
    Err(Error::Missing {
        missing: format!("there is no CNI plugin {}", plugin.display()),
        remedy: "build it with `cargo build -p tombolo-cni`, or say with --cni-path where it is".to_owned(),
    })
}

/// This very program.
fn program() -> Result<PathBuf> {
    std::env::current_exe().map_err(crate::error::system(
        "find this program at",
        Path::new("/proc/self/exe"),
    ))
}

/// The processes that `up` started, which must not end while it waits.
#[derive(Default)]
struct Processes(Vec<Process>);

struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Processes {
    fn start(&mut self, lab: &LabDir, place: &Place, name: String, args: &[&str]) -> Result<()> {
        let log = lab.log(&name);
        let child = place.start(&program()?, args, &log)?;
        self.0.push(Process { name, child, log });
        Ok(())
    }

    fn start_control(&mut self, lab: &LabDir) -> Result<()> {
        let control = Place::control(lab)?;
        let args = ["lab-serve", "--name", lab.name()];
        self.start(lab, &control, CONTROL.to_owned(), &args)?;
        Ok(())
    }

    fn start_nodes(&mut self, lab: &LabDir, plan: &Plan, plugin: &Path) -> Result<()> {
        let kubeconfig = lab.kubeconfig();
        let kubeconfig = kubeconfig.to_string_lossy();
        let operator = ["operator", "--kubeconfig", &kubeconfig];
        self.start(lab, &Place::control(lab)?, "operator".to_owned(), &operator)?;
        for node in &plan.nodes {
            let (place, name) = (Place::node(lab, &node.name)?, &node.name);
            let plugin = plugin.to_string_lossy();
            let mut agent = vec!["agent", "--node", name, "--kubeconfig", NODE_KUBECONFIG];
            agent.extend(["--cni-bin-dir", NODE_CNI_BIN, "--cni-conf-dir", NODE_CNI_CONF]);
            agent.extend(["--cni-plugin", &plugin]);
            // Everything of the node starts in it, and in groups below.
            let cgroup = lab.cgroup()?.child(name);
            let cgroup = cgroup.path().to_string_lossy();
            if plan.socket_hooks {
                agent.extend(["--cgroup", &cgroup]);
            }
            self.start(lab, &place, format!("{name}-agent"), &agent)?;
            self.start(lab, &place, format!("{name}-probe"), &["probe", "serve"])?;
        }
        let outside = Place::beside(lab, OUTSIDE)?;
        self.start(lab, &outside, format!("{OUTSIDE}-probe"), &["probe", "serve"])
    }

    fn check(&mut self) -> Result<()> {
        for process in &mut self.0 {
            if let Ok(Some(status)) = process.child.try_wait() {
                return Err(Error::Ended {
                    name: process.name.clone(),
                    status: status.to_string(),
                    log: process.log.clone(),
                    tail: tail(&process.log),
                });
            }
        }
        Ok(())
    }

    async fn wait_for(&mut self, file: &Path, deadline: Instant) -> Result<()> {
        while !file.exists() {
            self.check()?;
            if Instant::now() > deadline {
                return Err(Error::Deadline {
                    waiting_for: "starting the API server".to_owned(),
                    seconds: 0,
                    state: self.last_words(),
                });
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// What each process said last: the logs themselves are removed with the lab.
    fn last_words(&self) -> String {
        let logs = self.0.iter().filter(|process| !tail(&process.log).is_empty());
        logs.map(|process| format!("{} said last:\n{}", process.name, tail(&process.log)))
            .collect()
    }
}
