//! Does what the plan says: writes addresses into the Services' status, and Events about what cannot be had.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Event, Service};
use k8s_openapi::jiff::Timestamp;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tombolo_kube::{NetworkSpec, Watch};

use super::plan::{Assignment, Plan, Problem, plan};

/// Keeps the addresses of Services of type LoadBalancer.
pub(crate) struct Balancer {
    client: Client,
    services: Watch<Service>,
    /// The problems that stand and have been told, by the uid of their Service.
    told: BTreeSet<(String, String)>,
}

impl Balancer {
    /// Starts to watch; `changed` is called after each change.
    pub fn start(client: Client, changed: impl Fn() + Send + 'static) -> Self {
        Self {
            services: Watch::start(Api::all(client.clone()), changed),
            client,
            told: BTreeSet::new(),
        }
    }

    /// Looks at the Services as the watch has them, and acts on fresh ones if there is something to do: what the
    /// watch does not show yet must not be handed out twice.
    pub async fn once(&mut self, network: &NetworkSpec) -> Result<(), kube::Error> {
        let Some(services) = self.services.objects() else {
            return Ok(());
        };
        let pools = &network.load_balancer_pools;
        let Plan {
            assignments,
            problems,
        } = plan(pools, &services);
        self.tell(problems).await?;
        if assignments.is_empty() {
            return Ok(());
        }
        let services = Api::<Service>::all(self.client.clone())
            .list(&ListParams::default())
            .await?
            .items;
        for assignment in plan(pools, &services).assignments {
            self.assign(assignment).await?;
        }
        Ok(())
    }

    async fn assign(&self, assignment: Assignment) -> Result<(), kube::Error> {
        let Assignment { service, addresses } = assignment;
        let ingress: Vec<_> = addresses
            .iter()
            .map(|ip| json!({"ip": ip, "ipMode": "VIP"}))
            .collect();
        // Only as it was decided on: a conflict is an error, and the next run decides anew.
        let patch = json!({
            "metadata": {"uid": service.uid(), "resourceVersion": service.resource_version()},
            "status": {"loadBalancer": {"ingress": ingress}},
        });
        let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
        let api: Api<Service> = Api::namespaced(self.client.clone(), &namespace);
        let patched = api
            .patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch))
            .await;
        match patched {
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            other => drop(other?),
        }
        tracing::info!(
            namespace,
            name,
            ?addresses,
            "gave the Service its load balancer addresses"
        );
        Ok(())
    }

    /// Says what is wrong on the Service that it is about, once for as long as it is so.
    async fn tell(&mut self, problems: Vec<Problem>) -> Result<(), kube::Error> {
        let key = |problem: &Problem| (problem.service.uid().unwrap_or_default(), problem.message.clone());
        let now: BTreeSet<_> = problems.iter().map(key).collect();
        self.told.retain(|told| now.contains(told));
        for problem in problems {
            if self.told.insert(key(&problem)) {
                self.write_event(&problem).await?;
            }
        }
        Ok(())
    }

    async fn write_event(&self, problem: &Problem) -> Result<(), kube::Error> {
        let Problem { service, message } = problem;
        let namespace = service.namespace().unwrap_or_default();
        tracing::warn!(namespace, name = service.name_any(), "{message}");
        let now = Timestamp::now();
        let time = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let event = json!({
            "metadata": {"name": format!("{}.{:x}", service.name_any(), now.as_nanosecond()), "namespace": namespace},
            "involvedObject": {
                "apiVersion": "v1", "kind": "Service", "namespace": namespace,
                "name": service.name_any(), "uid": service.uid(), "resourceVersion": service.resource_version(),
            },
            "type": "Warning",
            "reason": "AllocationFailed",
            "message": message,
            "source": {"component": "tombolo-operator"},
            "reportingComponent": "tombolo-operator",
            "firstTimestamp": time,
            "lastTimestamp": time,
            "count": 1,
        });
        let event: Event = serde_json::from_value(event).map_err(kube::Error::SerdeError)?;
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        match api.create(&PostParams::default(), &event).await {
            // Its namespace is going, and the Service with it.
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_forbidden() => Ok(()),
            other => other.map(drop),
        }
    }
}
