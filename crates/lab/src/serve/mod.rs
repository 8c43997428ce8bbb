//! `tombolo lab-serve`: the one process that stands for a lab's control plane and for what runs containers.
//!
//! It serves the API on 127.0.0.1 (for kubectl) and on the fabric (for nodes); makes the first objects; places pods
//! ([`scheduler`]); runs them ([`runner`]), for which it reads the configuration that the node's agent has installed
//! ([`conflist`]) and calls the CNI plugin ([`plugin`]) as a container runtime does; says which pods are behind each
//! Service ([`endpoint_slices`]); routes load balancer addresses to nodes ([`load_balancers`]); and reports each
//! node's readiness ([`nodes`]).

mod bootstrap;
mod conflist;
mod containers;
mod endpoint_slices;
mod handlers;
mod load_balancers;
mod logs;
mod nodes;
mod plugin;
mod readiness;
mod runner;
mod sandbox;
mod scheduler;
mod status;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use kube::CustomResourceExt;
use tombolo_apiserver::{DEFAULT_HISTORY, Options, Pki, Resource, ServiceRanges, Token};
use tombolo_kube::{Network, NodeNetwork};
use tombolo_netlink::Namespace;

use crate::api::{Api, failed};
use crate::error::{Error, Result, system};
use crate::place::ROUTER;
use crate::plan::{API_PORT, Plan};
use crate::state::LabDir;

/// The options of `tombolo lab-serve`.
#[derive(Clone, Debug, clap::Args)]
pub struct ServeArgs {
    /// Name of the lab
    #[arg(long)]
    name: String,
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// What keeps the API server from serving.
pub async fn serve(args: ServeArgs) -> Result<()> {
    let lab = LabDir::find(Some(&args.name))?;
    let plan = lab.plan()?;
    let local = listen(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0))?;
    let local_address = local
        .local_addr()
        .map_err(system("look at", std::path::Path::new("the API server's socket")))?;
    let mut listeners = vec![local];
    let router = Namespace::open(&lab.netns(ROUTER))?;
    for address in &plan.api {
        listeners.push(router.run(|| listen(SocketAddr::new(*address, API_PORT)))??);
    }
    let pki = pki(&plan)?;
    let admin = Token::generate("admin");
    let nodes: Vec<(String, Token)> = plan
        .nodes
        .iter()
        .map(|node| {
            (
                node.name.clone(),
                Token::generate(&format!("system:node:{}", node.name)),
            )
        })
        .collect();
    let logs = Arc::new(logs::Logs::new(lab.clone()));
    let options = Options {
        listeners,
        tls: pki.server_config().map_err(failed("making its certificate"))?,
        tokens: nodes
            .iter()
            .map(|(_, token)| token.clone())
            .chain([admin.clone()])
            .collect(),
        resources: resources(&plan)?,
        logs: logs.clone(),
        history: DEFAULT_HISTORY,
    };
    let api_server = tokio::spawn(tombolo_apiserver::serve(options, ended()));

    let kubeconfig = pki.kubeconfig(&format!("https://{local_address}"), &admin.user, &admin.secret);
    // Under another name until the first objects exist: commands take the file as the sign that they do.
    let early = lab.state().join("kubeconfig.early");
    write(&early, &kubeconfig)?;
    let api = Api::connect(&early).await?;
    bootstrap::run(&api, &plan).await?;
    for (node, token) in &nodes {
        let address = plan
            .api
            .first()
            .copied()
            .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let url = format!("https://{}", SocketAddr::new(address, API_PORT));
        write(
            &lab.node_kubeconfig(node),
            &pki.kubeconfig(&url, &token.user, &token.secret),
        )?;
    }
    std::fs::rename(&early, lab.kubeconfig()).map_err(system("rename to", &lab.kubeconfig()))?;

    tokio::spawn(scheduler::run(api.clone()));
    tokio::spawn(endpoint_slices::run(api.clone()));
    tokio::spawn(load_balancers::run(api.clone(), lab.clone(), plan));
    tokio::spawn(nodes::run(api.clone()));
    tokio::spawn(runner::run(api, lab, logs));
    match api_server.await {
        Ok(served) => served.map_err(failed("serving")),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).map_err(|error| Error::Api {
        operation: format!("listening on {address}"),
        reason: error.to_string(),
    })
}

fn pki(plan: &Plan) -> Result<Pki> {
    let mut names = vec![
        "127.0.0.1".to_owned(),
        "localhost".to_owned(),
        "kubernetes.default.svc".to_owned(),
    ];
    names.extend(plan.api.iter().map(ToString::to_string));
    names.extend(plan.service_api().map(|ip| ip.to_string()));
    Pki::new(&names).map_err(failed("making its certificate"))
}

fn resources(plan: &Plan) -> Result<Vec<Resource>> {
    let ranges = ServiceRanges {
        cidrs: plan.network.service_cidrs.clone(),
        ..ServiceRanges::default()
    };
    let mut resources =
        tombolo_apiserver::built_in_resources(&ranges).map_err(failed("registering its kinds"))?;
    for definition in [Network::crd(), NodeNetwork::crd()] {
        resources.push(Resource::from_crd(definition).map_err(failed("registering its kinds"))?);
    }
    Ok(resources)
}

fn write(path: &std::path::Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(system("write", path))
}

async fn ended() {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        // Without handlers, the signals end the process by themselves.
        _ => std::future::pending().await,
    }
}
