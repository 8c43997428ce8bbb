//! How it all begins, is wired together, and ends.

use std::net::IpAddr;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use axum::extract::connect_info::MockConnectInfo;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tombolo_abi::{RouteKind, Way};
use tombolo_datapath::{Datapath, Options};
use tombolo_ipam::AddressStore;
use tombolo_netlink::Namespace;

use crate::caller::Caller;
use crate::claim::Claim;
use crate::control::{Control, Outcome, Trigger};
use crate::endpoints::{Endpoints, PodSettings};
use crate::error::Error;
use crate::install::Installer;
use crate::journal::Journal;
use crate::metrics::{self, Metrics};
use crate::monitor::AddressEvents;
use crate::network_namespaces::NetworkNamespaces;
use crate::objects::Objects;
use crate::server::{self, Server};
use crate::services::{Message, Services, Start};
use crate::socket;
use crate::turns::Turns;
use crate::{Args, monitor, restore, status};

/// How long a freed address rests before it is given again.
const REST: Duration = Duration::from_secs(30);

/// How long requests under way may take to finish at the end.
const FINISH: Duration = Duration::from_secs(10);

/// An async runtime of the size that the agent needs. Whatever blocks has threads of its own, few enough
/// that a storm of ADDs costs no memory.
///
/// # Errors
/// The system refuses threads.
pub fn runtime() -> std::io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(16)
        .thread_stack_size(512 << 10)
        .thread_name("agent")
        .enable_all()
        .build()
}

/// Runs until SIGTERM or SIGINT. What it has made in the kernel stays, and traffic flows on.
///
/// # Errors
/// Only what keeps it from starting; it waits for an API server that is away.
pub async fn run(args: Args) -> Result<(), Error> {
    let signals = |source| Error::Start {
        what: "signal handlers",
        source,
    };
    let mut terminate = signal(SignalKind::terminate()).map_err(signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(signals)?;
    let trigger = Arc::new(Trigger::default());
    let objects = Arc::new(Objects::watch(args.kubeconfig.clone(), trigger.clone()).await?);
    let (settings, settings_seen) = watch::channel(None);
    let takeover = {
        let args = args.clone();
        tokio::task::spawn_blocking(move || take_over(&args, settings_seen))
    };
    let TakenOver {
        listener,
        endpoints,
        services,
        messages,
        claim,
        known,
        installer,
    } = takeover.await.map_err(|panic| Error::Start {
        what: "the agent",
        source: panic.into(),
    })??;
    settings.send_replace(known);
    // Only now, since an agent that is being replaced has it until it ends.
    let prometheus = TcpListener::bind(args.metrics).await;
    let prometheus = prometheus.map_err(|source| Error::Metrics {
        address: args.metrics,
        source,
    })?;

    let metrics = Arc::new(Metrics::new());
    let (outcome, outcomes) = watch::channel(Outcome::default());
    let (addresses, addresses_seen) = watch::channel(AddressEvents::default());
    monitor::start(trigger.clone(), endpoints.clone(), addresses)?;
    tokio::spawn(monitor::reconnect(objects.clone(), addresses_seen));
    let start = Start {
        node: args.node.clone(),
        clients: objects.client(),
        health: args.health,
        metrics: metrics.clone(),
    };
    services.start(messages, start)?;
    let control = Control {
        node: args.node.clone(),
        claim: claim.clone(),
        devices: args.devices,
        cgroup: args.cgroup,
        objects: objects.clone(),
        endpoints: endpoints.clone(),
        services: services.clone(),
        settings,
        outcome,
        metrics: metrics.clone(),
    };
    control.start(trigger, installer)?;
    tokio::spawn(status::publish(
        claim,
        args.node.clone(),
        objects,
        outcomes.clone(),
    ));
    let scrapes = axum::serve(prometheus, metrics::router(&metrics, endpoints.clone()));
    tokio::spawn(scrapes.into_future());

    let server = Arc::new(Server {
        node: args.node,
        endpoints,
        services,
        outcome: outcomes,
        metrics,
    });
    let listener = tokio::net::UnixListener::from_std(listener).map_err(Error::Serve)?;
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let service = server::router(server).into_make_service_with_connect_info::<Caller>();
    let serve = axum::serve(listener, service).with_graceful_shutdown(async {
        let _ = ended.await;
    });
    let mut serve = tokio::spawn(serve.into_future());
    tracing::info!(socket = %args.socket.display(), "serving");
    tokio::select! {
        served = &mut serve => {
            served.map_err(|panic| Error::Serve(panic.into()))?.map_err(Error::Serve)?;
        }
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("ending; pods stay connected");
    let _ = end.send(());
    let _ = tokio::time::timeout(FINISH, serve).await;
    Ok(())
}

/// The local API of an agent that has taken up what is there, and knows of no cluster: for tests that send it
/// requests.
///
/// # Errors
/// What keeps the agent from starting.
#[doc(hidden)]
pub fn local_api(args: &Args) -> Result<axum::Router, Error> {
    let (_, settings) = watch::channel(None);
    let (_, outcome) = watch::channel(Outcome::default());
    let TakenOver {
        endpoints, services, ..
    } = take_over(args, settings)?;
    let server = Server {
        node: args.node.clone(),
        endpoints,
        services,
        outcome,
        metrics: Arc::new(Metrics::new()),
    };
    Ok(server::router(Arc::new(server)).layer(MockConnectInfo(Caller::always_there())))
}

/// What the agent has, once it has taken up what is there.
struct TakenOver {
    listener: UnixListener,
    endpoints: Arc<Endpoints>,
    services: Arc<Services>,
    /// For [`Services::start`].
    messages: Receiver<Message>,
    claim: Arc<Claim>,
    known: Option<PodSettings>,
    installer: Installer,
}

/// Becomes the node's agent; blocks. Listens before it settles what plugins left while there was no
/// agent, and accepts nobody before that (see `tombolo_cni::released`).
fn take_over(args: &Args, settings: watch::Receiver<Option<PodSettings>>) -> Result<TakenOver, Error> {
    let lock = socket::lock(&args.state_dir, socket::TAKE_OVER_DEADLINE)?;
    let claim = Arc::new(Claim::open(&args.state_dir)?);
    let mut installer = Installer::new(args)?;
    if let Err(error) = installer.install_plugin() {
        // Pods that are there do not need it, and the control loop tries again.
        tracing::error!("{error}");
    }
    let store = AddressStore::open(&args.state_dir.join("addresses.redb"), REST)?;
    let options = Options {
        directory: args.bpffs.clone(),
        attach: args.attach.into(),
        track_flows: args.track_flows,
        ..Options::default()
    };
    let datapath = Arc::new(Datapath::load(&options)?);
    let (services, messages) = Services::adopt(datapath.clone())?;
    let namespaces = Arc::new(NetworkNamespaces::new(datapath.clone())?);
    let endpoints = Arc::new(Endpoints {
        store: Arc::new(store),
        datapath,
        namespaces,
        services: services.clone(),
        journal: Journal::open(&args.state_dir).map_err(Error::file("make a folder in", &args.state_dir))?,
        state_dir: args.state_dir.clone(),
        settings,
        turns: Turns::new(),
        own_namespace: Namespace::current()?,
        _lock: lock,
    });
    let known = known_settings(&endpoints)?;
    let listener = socket::listen(&args.socket)?;
    let sources = known.clone().unwrap_or_default();
    restore::restore(&endpoints, &args.state_dir, &sources)?;
    Ok(TakenOver {
        listener,
        endpoints,
        services,
        messages,
        claim,
        known,
        installer,
    })
}

/// What an earlier agent left in the tables of what pods need, so that they can be served before the API
/// server is read; none after a reboot.
fn known_settings(endpoints: &Endpoints) -> Result<Option<PodSettings>, Error> {
    let config = endpoints.datapath.config()?;
    let rows = endpoints.datapath.routes().entries()?;
    let own = rows
        .values()
        .find(|r| r.kind == RouteKind::Pods as u8 && r.way == Way::Local as u8);
    let sources = [config.node_v4, config.node_v6];
    let node_addresses: Vec<IpAddr> = sources
        .into_iter()
        .filter(|a| !a.is_unspecified())
        .map(IpAddr::from)
        .collect();
    Ok(own.map(|row| PodSettings {
        mtu: row.mtu,
        node_addresses,
    }))
}
