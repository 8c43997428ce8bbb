//! Services of a cluster, by its API server.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::cluster;
use crate::load::PORT;

/// So many requests are under way at once.
const AT_ONCE: usize = 16;

/// Where a Service is found.
#[derive(Debug)]
pub struct Place {
    pub cluster_ip: IpAddr,
    /// 0: none.
    pub node_port: u16,
}

/// Makes a Service of a type for the load generator's servers at these addresses.
pub fn create_service(api: &cluster::Api, name: &str, kind: &str, backends: &[IpAddr]) -> Result<Place> {
    let client = api.client.clone();
    let service = api
        .runtime
        .block_on(create(client, name.into(), kind.into(), backends.to_vec(), PORT))?;
    let spec = service.spec.context("a Service without a spec")?;
    let port = spec.ports.as_ref().and_then(|ports| ports.first()?.node_port);
    Ok(Place {
        cluster_ip: spec.cluster_ip.context("a Service without an address")?.parse()?,
        node_port: port.unwrap_or_default().try_into()?,
    })
}

/// Has a Service lead elsewhere.
pub fn move_service(api: &cluster::Api, name: &str, backends: &[IpAddr]) -> Result<()> {
    let slices: Api<EndpointSlice> = Api::default_namespaced(api.client.clone());
    let patch = Patch::Merge(json!({ "endpoints": endpoints(backends) }));
    api.runtime
        .block_on(async { slices.patch(name, &PatchParams::default(), &patch).await })?;
    Ok(())
}

/// Makes as many more Services, counted from `first`, with two endpoints each that are nowhere.
pub fn fill(api: &cluster::Api, first: usize, count: usize) -> Result<()> {
    api.runtime.block_on(async {
        let permits = Arc::new(Semaphore::new(AT_ONCE));
        let mut tasks = JoinSet::new();
        for number in first..first + count {
            let permit = permits.clone().acquire_owned().await?;
            let client = api.client.clone();
            tasks.spawn(async move {
                let _permit = permit;
                let backends = [2 * number, 2 * number + 1].map(nowhere);
                // The addresses come round; the ports make them others.
                let port = 10_000 + u16::try_from(2 * number / NOWHERE)?;
                create(
                    client,
                    format!("other-{number}"),
                    "ClusterIP".into(),
                    backends.to_vec(),
                    port,
                )
                .await
            });
        }
        while let Some(created) = tasks.join_next().await {
            created??;
        }
        Ok(())
    })
}

/// How many addresses of the pool no node has.
const NOWHERE: usize = 1 << 15;

fn nowhere(number: usize) -> IpAddr {
    let number = number % NOWHERE;
    [10, 244, 128 + (number >> 8) as u8, number as u8].into()
}

async fn create(
    client: kube::Client,
    name: String,
    kind: String,
    backends: Vec<IpAddr>,
    port: u16,
) -> Result<Service> {
    let service = json!({
        "metadata": {"name": name},
        "spec": {"type": kind, "ports": [{"port": PORT, "targetPort": port}]},
    });
    let slice = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"name": "", "port": port, "protocol": "TCP"}],
        "endpoints": endpoints(&backends),
    });
    let slice: EndpointSlice = serde_json::from_value(slice)?;
    let slices = Api::default_namespaced(client.clone());
    slices.create(&PostParams::default(), &slice).await?;
    let service: Service = serde_json::from_value(service)?;
    Ok(Api::default_namespaced(client)
        .create(&PostParams::default(), &service)
        .await?)
}

fn endpoints(backends: &[IpAddr]) -> serde_json::Value {
    let endpoint = |address: &IpAddr| json!({"addresses": [address], "conditions": {"ready": true}});
    backends.iter().map(endpoint).collect()
}
