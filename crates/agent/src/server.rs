//! The agent's API on its unix socket: HTTP and JSON, as `tombolo_cni::agent` has it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{ConnectInfo, DefaultBodyLimit, FromRequestParts, Path, Query, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tombolo_cni::CONFIG_MAX;
use tombolo_cni::agent::{self, AddRequest, CheckRequest, CollectRequest, ErrorBody};
use tombolo_cni::error::{Error as CniError, code};

use crate::caller::Caller;
use crate::control::Outcome;
use crate::endpoints::Endpoints;
use crate::metrics::Metrics;
use crate::services::Services;
use crate::{kube_proxy, views};

/// The longest request taken, in bytes: a GC lists all of a node's attachments, and its plugin reads no more.
const REQUEST_MAX: usize = CONFIG_MAX;

/// All that the handlers work with.
pub struct Server {
    pub node: String,
    pub endpoints: Arc<Endpoints>,
    pub services: Arc<Services>,
    pub outcome: watch::Receiver<Outcome>,
    pub metrics: Arc<Metrics>,
}

/// The attachment that a path names: container id and interface, not checked yet.
struct Attachment(String, String);

impl<S: Send + Sync> FromRequestParts<S> for Attachment {
    /// An error that the plugin can read, as every other.
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        match Path::<(String, String)>::from_request_parts(parts, state).await {
            Ok(Path((id, interface))) => Ok(Self(id, interface)),
            Err(error) => Err(failure(CniError::new(
                code::DECODING,
                "the request's path is not what it should be",
                error.body_text(),
            ))),
        }
    }
}

/// The routes.
pub fn router(server: Arc<Server>) -> Router {
    let one = format!("{}/{{container_id}}/{{if_name}}", agent::ENDPOINTS_PATH);
    Router::new()
        .route(agent::ENDPOINTS_PATH, get(endpoints).post(add))
        .route(&one, delete(remove))
        .route(&format!("{one}/check"), post(check))
        .route(agent::COLLECT_PATH, post(collect))
        .route(agent::READY_PATH, get(ready))
        .route(agent::ADDRESSES_PATH, get(addresses))
        .route(agent::ROUTES_PATH, get(routes))
        .route(agent::SERVICES_PATH, get(services))
        .route(agent::DROPS_PATH, get(drops))
        .route(agent::STATUS_PATH, get(status))
        .fallback(unknown)
        .method_not_allowed_fallback(unknown)
        .layer(DefaultBodyLimit::max(REQUEST_MAX))
        .with_state(server)
}

async fn add(
    State(server): State<Arc<Server>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    body: Bytes,
) -> Response {
    let request: AddRequest = match parse(&body) {
        Ok(request) => request,
        Err(error) => return failure(error),
    };
    blocking(move || {
        let start = Instant::now();
        let (id, interface) = (request.container_id.clone(), request.if_name.clone());
        let result = server.endpoints.add(request, &caller);
        server.metrics.operation("add", start, result.is_ok());
        match &result {
            Ok(made) => {
                let addresses: Vec<_> = made.addresses.iter().map(|a| a.address.addr()).collect();
                tracing::info!(container = id, interface, ?addresses, took = ?start.elapsed(), "connected a pod");
            }
            Err(error) => tracing::warn!(container = id, interface, %error, "cannot connect a pod"),
        }
        result
    })
    .await
}

async fn remove(
    State(server): State<Arc<Server>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Attachment(id, interface): Attachment,
) -> Response {
    blocking(move || {
        let start = Instant::now();
        let result = server.endpoints.delete(&id, &interface, &caller);
        server.metrics.operation("del", start, result.is_ok());
        match &result {
            Ok(()) => {
                tracing::info!(container = id, interface, took = ?start.elapsed(), "disconnected a pod")
            }
            Err(error) => tracing::warn!(container = id, interface, %error, "cannot disconnect a pod"),
        }
        result.map(|()| nothing())
    })
    .await
}

async fn check(
    State(server): State<Arc<Server>>,
    Attachment(id, interface): Attachment,
    body: Bytes,
) -> Response {
    let request: CheckRequest = match parse(&body) {
        Ok(request) => request,
        Err(error) => return failure(error),
    };
    blocking(move || {
        let start = Instant::now();
        let result = server.endpoints.check(&id, &interface, &request);
        server.metrics.operation("check", start, result.is_ok());
        if let Err(error) = &result {
            tracing::warn!(container = id, interface, %error, "a pod is not as its ADD has made it");
        }
        result.map(|()| nothing())
    })
    .await
}

async fn collect(State(server): State<Arc<Server>>, body: Bytes) -> Response {
    let request: CollectRequest = match parse(&body) {
        Ok(request) => request,
        Err(error) => return failure(error),
    };
    blocking(move || {
        let start = Instant::now();
        let result = server.endpoints.collect(&request);
        server.metrics.operation("gc", start, result.is_ok());
        match &result {
            Ok(removed) => tracing::info!(network = request.network, ?removed, "removed what no valid attachment holds"),
            Err(error) => tracing::warn!(network = request.network, %error, "cannot remove all that no valid attachment holds"),
        }
        result
    })
    .await
}

async fn ready(State(server): State<Arc<Server>>) -> Response {
    blocking(move || {
        let outcome = server.outcome.borrow().clone();
        server.endpoints.readiness(&outcome).map(|()| nothing())
    })
    .await
}

async fn endpoints(State(server): State<Arc<Server>>) -> Response {
    blocking(move || views::endpoints(&server.endpoints)).await
}

async fn addresses(State(server): State<Arc<Server>>) -> Response {
    blocking(move || views::addresses(&server.endpoints)).await
}

async fn routes(State(server): State<Arc<Server>>) -> Response {
    blocking(move || {
        let names = server.outcome.borrow().names.clone();
        views::routes(&server.endpoints, &names)
    })
    .await
}

/// The query of [`agent::SERVICES_PATH`].
#[derive(Deserialize)]
struct ServicesQuery {
    client: Option<IpAddr>,
}

async fn services(
    State(server): State<Arc<Server>>,
    query: Result<Query<ServicesQuery>, QueryRejection>,
) -> Response {
    match query {
        Ok(Query(query)) => blocking(move || server.services.view(query.client)).await,
        Err(error) => failure(CniError::new(
            code::DECODING,
            "the request's query is not what it should be",
            error.body_text(),
        )),
    }
}

async fn drops(State(server): State<Arc<Server>>) -> Response {
    blocking(move || views::drops(&server.endpoints)).await
}

async fn status(State(server): State<Arc<Server>>) -> Response {
    blocking(move || {
        let outcome = server.outcome.borrow().clone();
        let mut status = views::status(&server.node, &server.endpoints, &outcome)?;
        status.messages.extend(server.services.problems());
        status.messages.extend(kube_proxy::notice());
        Ok::<_, crate::Error>(status)
    })
    .await
}

async fn unknown() -> Response {
    let details = "see that plugin, command line and agent are of the same release";
    let error = CniError::new(
        code::UNSUPPORTED_FIELD,
        "the agent knows no such request",
        details,
    );
    (StatusCode::NOT_FOUND, Json(body(error))).into_response()
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, CniError> {
    serde_json::from_slice(body).map_err(|error| {
        CniError::new(
            code::DECODING,
            "the request is not what it should be",
            error.to_string(),
        )
    })
}

/// The answer where there is nothing to say but that all is well.
fn nothing() -> serde_json::Value {
    serde_json::Value::Object(serde_json::Map::new())
}

/// Answers with what `work` returns, which runs where it may block. It runs to its end even if nobody waits
/// for the answer any more.
async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Response
where
    T: Serialize + Send + 'static,
    E: Into<CniError> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(answer)) => Json(answer).into_response(),
        Ok(Err(error)) => failure(error.into()),
        Err(panic) => {
            tracing::error!(%panic, "a request failed in a way it should not");
            let details = "please report it, with the agent's log";
            failure(CniError::new(
                code::AGENT_ANSWER,
                "the agent failed by a defect",
                details,
            ))
        }
    }
}

/// What the caller sent is wrong, or what this node can do is.
fn failure(error: CniError) -> Response {
    let status = match error.code {
        code::INVALID_ENVIRONMENT | code::DECODING | code::INVALID_CONFIG => StatusCode::BAD_REQUEST,
        code::EXISTS | code::DIFFERS => StatusCode::CONFLICT,
        code::UNKNOWN_CONTAINER => StatusCode::NOT_FOUND,
        code::TRY_AGAIN | code::NO_ADDRESS | code::NOT_AVAILABLE | code::LIMITED_CONNECTIVITY => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, Json(body(error))).into_response()
}

fn body(error: CniError) -> ErrorBody {
    ErrorBody {
        code: error.code,
        msg: error.msg,
        details: error.details,
    }
}

impl From<crate::Error> for CniError {
    fn from(error: crate::Error) -> Self {
        Self::new(
            code::KERNEL,
            "the node's state could not be read",
            error.to_string(),
        )
    }
}
