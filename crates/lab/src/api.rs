//! The lab's API server, as the lab's own commands ask it.

use std::path::Path;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::discovery::{ApiResource, Scope, pinned_kind};
use kube::{Client, Config};
use tombolo_kube::NodeNetwork;

use crate::error::{Error, Result};
use crate::manifest::Manifest;

/// A client of a lab's API server.
#[derive(Clone)]
pub struct Api(Client);

/// A pod's namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Makes [`Error::Api`] of a client's error.
pub(crate) fn failed<E: std::fmt::Display>(operation: impl Into<String>) -> impl FnOnce(E) -> Error {
    let operation = operation.into();
    move |error| Error::Api {
        operation,
        reason: error.to_string(),
    }
}

impl Api {
    /// Reads a kubeconfig; connects when first asked something.
    pub async fn connect(kubeconfig: &Path) -> Result<Self> {
        let operation = || format!("reading {}", kubeconfig.display());
        let read = Kubeconfig::read_from(kubeconfig).map_err(failed(operation()))?;
        let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
            .await
            .map_err(failed(operation()))?;
        Ok(Self(Client::try_from(config).map_err(failed(operation()))?))
    }

    /// The client itself.
    pub fn client(&self) -> &Client {
        &self.0
    }

    /// Creates the objects, or changes those that exist. Returns the pods among them.
    pub async fn apply(&self, manifests: &[Manifest]) -> Result<Vec<PodName>> {
        let mut pods = Vec::new();
        let mut kinds: Vec<(GroupVersionKind, ApiResource, Scope)> = Vec::new();
        for Manifest { path, object } in manifests {
            let wrong = |reason: String| Error::Manifest {
                path: path.clone(),
                reason,
            };
            let (Some(types), Some(name)) = (&object.types, &object.metadata.name) else {
                continue;
            };
            let kind = GroupVersionKind::try_from(types).map_err(|error| wrong(error.to_string()))?;
            let (resource, scope) = match kinds.iter().find(|(known, ..)| *known == kind) {
                Some((_, resource, scope)) => (resource.clone(), scope.clone()),
                None => {
                    let (resource, capabilities) = pinned_kind(&self.0, &kind)
                        .await
                        .map_err(|error| wrong(format!("the lab has no kind {}: {error}", kind.kind)))?;
                    kinds.push((kind.clone(), resource.clone(), capabilities.scope.clone()));
                    (resource, capabilities.scope)
                }
            };
            let namespace = object.metadata.namespace.as_deref().unwrap_or("default");
            let api: kube::Api<DynamicObject> = match scope {
                Scope::Namespaced => kube::Api::namespaced_with(self.0.clone(), namespace, &resource),
                Scope::Cluster => kube::Api::all_with(self.0.clone(), &resource),
            };
            let applied = match api.create(&PostParams::default(), object).await {
                Err(kube::Error::Api(status)) if status.is_already_exists() => {
                    api.patch(name, &PatchParams::default(), &Patch::Merge(object))
                        .await
                }
                created => created,
            };
            applied.map_err(|error| wrong(format!("{} {name}: {error}", kind.kind)))?;
            if kind.kind == "Pod" && kind.group.is_empty() {
                pods.push(PodName {
                    namespace: namespace.to_owned(),
                    name: name.clone(),
                });
            }
        }
        Ok(pods)
    }

    /// All pods.
    pub async fn pods(&self) -> Result<Vec<Pod>> {
        list(&kube::Api::all(self.0.clone()), "listing pods").await
    }

    /// All Services.
    pub async fn services(&self) -> Result<Vec<Service>> {
        list(&kube::Api::all(self.0.clone()), "listing Services").await
    }

    /// All EndpointSlices.
    pub async fn endpoint_slices(&self) -> Result<Vec<EndpointSlice>> {
        list(&kube::Api::all(self.0.clone()), "listing EndpointSlices").await
    }

    /// All nodes.
    pub async fn nodes(&self) -> Result<Vec<Node>> {
        list(&kube::Api::all(self.0.clone()), "listing nodes").await
    }

    /// What the agents and the operator say of all nodes.
    pub async fn node_networks(&self) -> Result<Vec<NodeNetwork>> {
        list(&kube::Api::all(self.0.clone()), "listing nodenetworks").await
    }

    /// The nodes whose network is not ready, each with the reason.
    pub async fn unready_nodes(&self) -> Result<Vec<String>> {
        let not_ready = |node: Node| {
            let status = node.status.unwrap_or_default();
            let name = node.metadata.name.unwrap_or_default();
            let ready = status
                .conditions
                .into_iter()
                .flatten()
                .find(|condition| condition.type_ == "Ready");
            match ready {
                Some(ready) if ready.status == "True" => None,
                Some(ready) => Some(format!("{name}: {}", ready.message.unwrap_or_default())),
                None => Some(format!("{name}: nothing is known of it yet")),
            }
        };
        Ok(self.nodes().await?.into_iter().filter_map(not_ready).collect())
    }

    /// Those of the given pods that are not ready, each with the reason.
    pub async fn unready_pods(&self, wanted: &[PodName]) -> Result<Vec<String>> {
        let pods = self.pods().await?;
        let mut missing = Vec::new();
        for PodName { namespace, name } in wanted {
            let pod = pods.iter().find(|pod| {
                pod.metadata.namespace.as_ref() == Some(namespace) && pod.metadata.name.as_ref() == Some(name)
            });
            if let Some(why) = pod.map_or(Some("it is gone".to_owned()), why_not_ready) {
                missing.push(format!("{namespace}/{name}: {why}"));
            }
        }
        Ok(missing)
    }
}

/// Why a pod is not ready; `None` if it is, or has come to a good end.
fn why_not_ready(pod: &Pod) -> Option<String> {
    let status = pod.status.clone().unwrap_or_default();
    if status.phase.as_deref() == Some("Succeeded") {
        return None;
    }
    let conditions = status.conditions.unwrap_or_default();
    if conditions
        .iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
    {
        return None;
    }
    let waiting = status
        .container_statuses
        .into_iter()
        .flatten()
        .find_map(|container| {
            let waiting = container.state?.waiting?;
            Some(format!(
                "container {}: {} {}",
                container.name,
                waiting.reason.unwrap_or_default(),
                waiting.message.unwrap_or_default()
            ))
        });
    let unmet = conditions
        .into_iter()
        .find(|condition| condition.status != "True");
    let reason = waiting.or_else(|| unmet.and_then(|condition| condition.message));
    Some(reason.unwrap_or_else(|| format!("phase {}", status.phase.unwrap_or_default())))
}

async fn list<K>(api: &kube::Api<K>, operation: &str) -> Result<Vec<K>>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    Ok(api
        .list(&kube::api::ListParams::default())
        .await
        .map_err(failed(operation))?
        .items)
}
