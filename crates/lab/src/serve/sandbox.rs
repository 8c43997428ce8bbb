//! A pod's sandbox: its network namespace, connected by the plugin, and its record.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tombolo_netlink::Namespace;

use super::conflist::Conflist;
use crate::mount_namespace::MountNamespace;
use crate::place::Place;
use crate::pod::PodRecord;
use crate::state::{LabDir, NODE_NETNS};

/// A pod's place in the network, from its creation to its removal.
#[derive(Debug)]
pub struct Sandbox {
    /// The pod, with the addresses it got.
    pub record: PodRecord,
    lab: LabDir,
    node: Place,
    conflist: Conflist,
    result: Option<Value>,
}

impl Sandbox {
    /// Makes the namespace and has it connected.
    ///
    /// # Errors
    /// In words; nothing of the sandbox is left then.
    pub async fn create(lab: &LabDir, mut record: PodRecord) -> Result<Self, String> {
        let conflist = Conflist::read(&lab.node_cni_conf(&record.node))?;
        record.netns = Path::new(NODE_NETNS).join(record.sandbox());
        let node = Place::node(lab, &record.node).map_err(|error| error.to_string())?;
        in_node(lab, &record.node, record.netns.clone(), |path| {
            Namespace::create(path).map(drop)
        })
        .await?;
        let mut sandbox = Self {
            record,
            lab: lab.clone(),
            node,
            conflist,
            result: None,
        };
        match sandbox.connect().await {
            Ok(()) => Ok(sandbox),
            Err(error) => match sandbox.remove().await {
                Ok(()) => Err(error),
                Err(also) => Err(format!("{error}; and then: {also}")),
            },
        }
    }

    async fn connect(&mut self) -> Result<(), String> {
        let (addresses, result) = self.conflist.add(&self.node, &self.record).await?;
        self.record.addresses = addresses;
        self.result = Some(result);
        self.record.write(&self.lab).map_err(|error| error.to_string())
    }

    /// Ends what still runs, disconnects and removes it. Can be repeated until it succeeds.
    ///
    /// # Errors
    /// In words.
    pub async fn remove(&self) -> Result<(), String> {
        let cgroup = self.record.cgroup(&self.lab).map_err(|error| error.to_string())?;
        let ended = tokio::task::spawn_blocking(move || cgroup.remove()).await;
        ended
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())?;
        self.conflist
            .delete(&self.node, &self.record, self.result.as_ref())
            .await?;
        in_node(
            &self.lab,
            &self.record.node,
            self.record.netns.clone(),
            Namespace::remove,
        )
        .await?;
        self.record.remove(&self.lab).map_err(|error| error.to_string())
    }
}

/// Does something to a file in the mount namespace of a node.
async fn in_node(
    lab: &LabDir,
    node: &str,
    path: PathBuf,
    act: impl FnOnce(&Path) -> tombolo_netlink::Result<()> + Send + 'static,
) -> Result<(), String> {
    let mounts = lab.mountns(node);
    let done =
        tokio::task::spawn_blocking(move || MountNamespace::open(&mounts)?.run(&mounts, || Ok(act(&path)?)));
    done.await
        .map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())
}
