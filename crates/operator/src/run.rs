//! Watches objects, and does what the plan says.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tombolo_kube::{CLUSTER, Network, NetworkSpec, NodeNetwork, Watch};

use crate::Args;
use crate::load_balancer::Balancer;
use crate::plan::{Action, Plan, plan};

/// Changes that come together are worked on together.
const GATHER: Duration = Duration::from_millis(10);

/// How long to wait before trying again what the API server refused: at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// Why the operator cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no client.
    #[error(transparent)]
    Client(#[from] tombolo_kube::ClientError),
    /// Signals cannot be waited for.
    #[error("cannot wait for signals: {0}")]
    Signals(#[source] std::io::Error),
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// Only what keeps it from starting; it waits for an API server that is away.
pub async fn run(args: Args) -> Result<(), Error> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
    let client = tombolo_kube::client(args.kubeconfig.as_deref()).await?;
    let mut operator = Operator::start(client);
    tokio::select! {
        () = operator.work() => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("ending");
    Ok(())
}

struct Operator {
    client: Client,
    changed: Arc<Notify>,
    networks: Watch<Network>,
    nodes: Watch<Node>,
    node_networks: Watch<NodeNetwork>,
    balancer: Balancer,
    problems: BTreeSet<String>,
}

impl Operator {
    fn start(client: Client) -> Self {
        let changed = Arc::new(Notify::new());
        let notify = || {
            let changed = changed.clone();
            move || changed.notify_one()
        };
        Self {
            networks: Watch::start(Api::all(client.clone()), notify()),
            nodes: Watch::start(Api::all(client.clone()), notify()),
            node_networks: Watch::start(Api::all(client.clone()), notify()),
            balancer: Balancer::start(client.clone(), notify()),
            client,
            changed,
            problems: BTreeSet::new(),
        }
    }

    async fn work(&mut self) {
        let mut wait = None;
        loop {
            match wait {
                None => self.changed.notified().await,
                Some(wait) => drop(tokio::time::timeout(wait, self.changed.notified()).await),
            }
            tokio::time::sleep(GATHER).await;
            wait = match self.once().await {
                Ok(()) => None,
                Err(error) => {
                    let again = wait.map_or(RETRY.0, |w: Duration| (w * 2).min(RETRY.1));
                    tracing::warn!(%error, ?again, "the API server refused; trying again");
                    Some(again)
                }
            };
        }
    }

    /// Looks at the objects as the watches have them, and acts on fresh ones if there is something to do:
    /// a watch may be behind, and what it does not show yet must not be handed out twice.
    async fn once(&mut self) -> Result<(), kube::Error> {
        let (Some(networks), Some(nodes), Some(node_networks)) = (
            self.networks.objects(),
            self.nodes.objects(),
            self.node_networks.objects(),
        ) else {
            return Ok(());
        };
        let Some(network) = networks.iter().find(|n| n.name_any() == CLUSTER) else {
            let hint = format!("there is no Network {CLUSTER}; apply one to give nodes their blocks");
            self.report(BTreeSet::from([hint]));
            return Ok(());
        };
        let Plan { actions, problems } = plan(&network.spec, &nodes, &node_networks);
        self.report(problems);
        if !actions.is_empty() {
            self.act_on_fresh(&network.spec).await?;
        }
        self.balancer.once(&network.spec).await
    }

    async fn act_on_fresh(&self, network: &NetworkSpec) -> Result<(), kube::Error> {
        // In this order, a NodeNetwork in the list has its Node in the other.
        let api: Api<NodeNetwork> = Api::all(self.client.clone());
        let node_networks = api.list(&ListParams::default()).await?.items;
        let nodes = Api::<Node>::all(self.client.clone())
            .list(&ListParams::default())
            .await?
            .items;
        for action in plan(network, &nodes, &node_networks).actions {
            act(&api, action).await?;
        }
        Ok(())
    }

    /// Says what is wrong, once.
    fn report(&mut self, problems: BTreeSet<String>) {
        for problem in problems.difference(&self.problems) {
            tracing::error!("{problem}");
        }
        self.problems = problems;
    }
}

/// Does one thing. A conflict is an error like others: the next run decides on what is there then.
async fn act(api: &Api<NodeNetwork>, action: Action) -> Result<(), kube::Error> {
    match action {
        Action::Create(new) => {
            api.create(&PostParams::default(), &new).await?;
            tracing::info!(node = new.name_any(), index = new.spec.index, blocks = ?new.spec.blocks, "made a NodeNetwork");
        }
        Action::Replace(new) => {
            api.replace(&new.name_any(), &PostParams::default(), &new).await?;
            tracing::info!(node = new.name_any(), index = new.spec.index, blocks = ?new.spec.blocks, "changed a NodeNetwork");
        }
        Action::Delete { name, uid } => {
            let only_this = Preconditions {
                uid,
                resource_version: None,
            };
            match api
                .delete(&name, &DeleteParams::default().preconditions(only_this))
                .await
            {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                other => drop(other?),
            }
            tracing::info!(node = name, "deleted the NodeNetwork of a Node that is gone");
        }
    }
    Ok(())
}
