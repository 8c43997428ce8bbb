//! The objects of the cluster that the node depends on, and the connection that they come by.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::{Api, Client, ResourceExt};
use tokio::sync::watch;
use tombolo_kube::{CLUSTER, ClientError, Network, NodeNetwork, Watch};

use crate::control::Trigger;

/// The objects, kept up to date by watches.
pub struct Objects {
    kubeconfig: Option<PathBuf>,
    trigger: Arc<Trigger>,
    watches: Mutex<Watches>,
    client: watch::Sender<Client>,
}

/// Those in use, and those that take their place once they have seen everything.
struct Watches {
    current: Connection,
    next: Option<Connection>,
}

struct Connection {
    networks: Watch<Network>,
    nodes: Watch<NodeNetwork>,
}

/// The objects at one time.
pub struct Snapshot {
    /// The cluster's settings.
    pub network: Arc<Network>,
    /// Every NodeNetwork.
    pub nodes: Vec<NodeNetwork>,
}

impl Objects {
    /// Starts to watch. Each change pulls the trigger.
    ///
    /// # Errors
    /// There is no client.
    pub async fn watch(kubeconfig: Option<PathBuf>, trigger: Arc<Trigger>) -> Result<Self, ClientError> {
        let client = tombolo_kube::client(kubeconfig.as_deref()).await?;
        let watches = Watches {
            current: Connection::start(&client, &trigger),
            next: None,
        };
        Ok(Self {
            kubeconfig,
            trigger,
            watches: Mutex::new(watches),
            client: watch::Sender::new(client),
        })
    }

    /// The client of now; its receiver hears of the next one.
    pub fn client(&self) -> watch::Receiver<Client> {
        self.client.subscribe()
    }

    /// Connects to the API server anew, by the addresses and routes of now. A connection whose own address has
    /// gone would hang until a timeout of minutes, since the kernel does not end it. The objects stay as they
    /// were last seen until the new connection has seen them all.
    pub async fn reconnect(&self) {
        match tombolo_kube::client(self.kubeconfig.as_deref()).await {
            Ok(client) => {
                self.lock().next = Some(Connection::start(&client, &self.trigger));
                self.client.send_replace(client);
            }
            Err(error) => tracing::error!(%error, "cannot connect to the API server anew"),
        }
    }

    /// Whether a new connection has not seen everything yet.
    pub fn is_connecting(&self) -> bool {
        let watches = self.lock();
        watches.next.is_some() || !watches.current.is_complete()
    }

    /// The objects of now, or what is missing.
    pub fn snapshot(&self) -> Result<Snapshot, String> {
        let watches = self.lock();
        let (Some(networks), Some(nodes)) = (
            watches.current.networks.objects(),
            watches.current.nodes.objects(),
        ) else {
            return Err(
                "the API server has not been read yet; see that it is reachable, and the kubeconfig".into(),
            );
        };
        drop(watches);
        let network = networks.into_iter().find(|n| n.name_any() == CLUSTER);
        let network = network.ok_or_else(|| format!("there is no Network {CLUSTER}; apply one"))?;
        Ok(Snapshot {
            network,
            nodes: nodes.iter().map(|n| NodeNetwork::clone(n)).collect(),
        })
    }

    /// The NodeNetwork of a node.
    pub fn node(&self, name: &str) -> Option<Arc<NodeNetwork>> {
        let nodes = self.lock().current.nodes.objects()?;
        nodes.into_iter().find(|n| n.name_any() == name)
    }

    fn lock(&self) -> MutexGuard<'_, Watches> {
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(next) = watches.next.take_if(|next| next.is_complete()) {
            watches.current = next;
        }
        watches
    }
}

impl Connection {
    fn start(client: &Client, trigger: &Arc<Trigger>) -> Self {
        let pull = || {
            let trigger = trigger.clone();
            move || trigger.pull()
        };
        Self {
            networks: Watch::start(Api::all(client.clone()), pull()),
            nodes: Watch::start(Api::all(client.clone()), pull()),
        }
    }

    fn is_complete(&self) -> bool {
        self.networks.objects().is_some() && self.nodes.objects().is_some()
    }
}
