//! The agent's API on its unix socket: HTTP and JSON, as `tombolo_cni::agent` has it.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use axum::{Json, Router};
use serde::Serialize;
use tokio::sync::watch;
use tombolo_cni::agent::{self, AddRequest, ErrorBody};
use tombolo_cni::error::{Error as CniError, code};

use crate::control::Outcome;
use crate::endpoints::Endpoints;
use crate::metrics::Metrics;
use crate::views;

/// The longest request taken, in bytes.
const REQUEST_MAX: usize = 64 << 10;

/// All that the handlers work with.
pub struct Server {
    pub node: String,
    pub endpoints: Arc<Endpoints>,
    pub outcome: watch::Receiver<Outcome>,
    pub metrics: Arc<Metrics>,
}

/// The routes.
pub fn router(server: Arc<Server>) -> Router {
    let one = format!("{}/{{container_id}}/{{if_name}}", agent::ENDPOINTS_PATH);
    Router::new()
        .route(agent::ENDPOINTS_PATH, get(endpoints).post(add))
        .route(&one, delete(remove))
        .route(agent::ADDRESSES_PATH, get(addresses))
        .route(agent::ROUTES_PATH, get(routes))
        .route(agent::DROPS_PATH, get(drops))
        .route(agent::STATUS_PATH, get(status))
        .fallback(unknown)
        .method_not_allowed_fallback(unknown)
        .layer(DefaultBodyLimit::max(REQUEST_MAX))
        .with_state(server)
}

async fn add(State(server): State<Arc<Server>>, body: Bytes) -> Response {
    let request: AddRequest = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => {
            let error = CniError::new(
                code::DECODING,
                "the request is not what it should be",
                error.to_string(),
            );
            return failure(error);
        }
    };
    blocking(move || {
        let start = Instant::now();
        let (id, interface) = (request.container_id.clone(), request.if_name.clone());
        let result = server.endpoints.add(request);
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
    Path((id, interface)): Path<(String, String)>,
) -> Response {
    blocking(move || {
        let start = Instant::now();
        let result = server.endpoints.delete(&id, &interface);
        server.metrics.operation("del", start, result.is_ok());
        match &result {
            Ok(()) => {
                tracing::info!(container = id, interface, took = ?start.elapsed(), "disconnected a pod")
            }
            Err(error) => tracing::warn!(container = id, interface, %error, "cannot disconnect a pod"),
        }
        result.map(|()| serde_json::Value::Object(serde_json::Map::new()))
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

async fn drops(State(server): State<Arc<Server>>) -> Response {
    blocking(move || views::drops(&server.endpoints)).await
}

async fn status(State(server): State<Arc<Server>>) -> Response {
    blocking(move || {
        let outcome = server.outcome.borrow().clone();
        views::status(&server.node, &server.endpoints, &outcome)
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
        code::EXISTS => StatusCode::CONFLICT,
        code::TRY_AGAIN | code::NO_ADDRESS => StatusCode::SERVICE_UNAVAILABLE,
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
