//! What load balancers ask of a node, answered as kube-proxy does: at each Service's `healthCheckNodePort` whether the
//! node has endpoints of it, and at one port of the node's whether to send anything here at all.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tombolo_services::ServiceName;

/// How many local endpoints a Service has, for those who weigh nodes by it.
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

/// How long to wait before a port is tried again that another process has.
const AGAIN: Duration = Duration::from_secs(5);

/// What there is to answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// By `healthCheckNodePort`.
    pub answers: BTreeMap<u16, Answer>,
    /// Whether the node is about to be taken away.
    pub node_is_going: bool,
    /// Whether the kernel has not taken what is to be programmed.
    pub kernel_refuses: bool,
}

/// What there is to answer for one Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub service: Arc<ServiceName>,
    pub local_endpoints: u32,
}

/// Answers for ever.
pub fn start(address: SocketAddr, vitals: watch::Receiver<Vitals>) {
    let node = Router::new()
        .route("/healthz", get(healthz))
        .route("/livez", get(livez))
        .with_state(vitals.clone());
    let addresses = match address.ip() {
        ip if ip == Ipv6Addr::UNSPECIFIED => any(address.port()),
        _ => vec![address],
    };
    tokio::spawn(serve(addresses, node, "this node's health"));
    tokio::spawn(node_ports(vitals));
}

/// Has a server at each port that is wanted.
async fn node_ports(mut vitals: watch::Receiver<Vitals>) {
    let mut servers: BTreeMap<u16, AbortHandle> = BTreeMap::new();
    loop {
        let wanted: Vec<u16> = vitals.borrow_and_update().answers.keys().copied().collect();
        servers.retain(|port, server| {
            let stays = wanted.contains(port);
            if !stays {
                server.abort();
            }
            stays
        });
        for port in wanted {
            let vitals = vitals.clone();
            servers.entry(port).or_insert_with(|| {
                let service = Router::new().fallback(service).with_state((port, vitals));
                tokio::spawn(serve(any(port), service, "a Service's health")).abort_handle()
            });
        }
        if vitals.changed().await.is_err() {
            return;
        }
    }
}

/// All addresses of the node, of one family where the kernel has no other.
fn any(port: u16) -> Vec<SocketAddr> {
    vec![
        (Ipv6Addr::UNSPECIFIED, port).into(),
        (Ipv4Addr::UNSPECIFIED, port).into(),
    ]
}

/// Serves at the first of these addresses that the node has, once it is free.
async fn serve(addresses: Vec<SocketAddr>, router: Router, what: &'static str) {
    let mut told = false;
    loop {
        match TcpListener::bind(&addresses[..]).await {
            Ok(listener) => {
                if told {
                    tracing::info!(address = %addresses[0], "serving {what} now");
                }
                let ended = axum::serve(listener, router.clone()).await;
                tracing::warn!(address = %addresses[0], ?ended, "serving {what} ended");
            }
            Err(error) if !std::mem::replace(&mut told, true) => {
                tracing::warn!(address = %addresses[0], %error, "cannot serve {what} yet; is it another process's port?");
            }
            Err(_) => {}
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn service(State((port, vitals)): State<(u16, watch::Receiver<Vitals>)>) -> Response {
    let (answer, healthy) = {
        let vitals = vitals.borrow();
        (vitals.answers.get(&port).cloned(), !vitals.kernel_refuses)
    };
    let Some(Answer {
        service,
        local_endpoints,
    }) = answer
    else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let body = json!({
        "service": {"namespace": service.namespace, "name": service.name},
        "localEndpoints": local_endpoints,
        "serviceProxyHealthy": healthy,
    });
    let mut response = answer_json(healthy && local_endpoints > 0, &body);
    response.headers_mut().insert(WEIGHT, local_endpoints.into());
    response
}

async fn healthz(State(vitals): State<watch::Receiver<Vitals>>) -> Response {
    let (healthy, going) = {
        let vitals = vitals.borrow();
        (!vitals.kernel_refuses, vitals.node_is_going)
    };
    let now = Timestamp::now().to_string();
    let body = json!({"lastUpdated": now, "currentTime": now, "nodeEligible": !going});
    answer_json(healthy && !going, &body)
}

async fn livez(State(vitals): State<watch::Receiver<Vitals>>) -> Response {
    let now = Timestamp::now().to_string();
    let body = json!({"lastUpdated": now, "currentTime": now});
    answer_json(!vitals.borrow().kernel_refuses, &body)
}

fn answer_json(good: bool, body: &serde_json::Value) -> Response {
    let status = if good {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (status, headers, body.to_string()).into_response()
}
