//! The way of a request: who sends it, what it is about, which handler answers.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::Value;

use crate::auth::{self, Token};
use crate::closing::Closing;
use crate::discovery;
use crate::error::ApiError;
use crate::handlers;
use crate::lifecycle::{self, PERMANENT_NAMESPACES};
use crate::logs::LogSource;
use crate::openapi;
use crate::query::Query;
use crate::resource::{Registry, Resource};
use crate::respond::{self, Body};
use crate::route::{Route, Subresource, Target, route};
use crate::store::{Claims, Key, Store};

/// All that requests are answered from.
pub struct Api {
    /// The kinds.
    pub registry: Registry,
    /// The objects.
    pub store: Store,
    /// The logs of containers.
    pub logs: Arc<dyn LogSource>,
    tokens: Vec<Token>,
    /// Ends long answers when the server ends.
    pub closing: Closing,
}

/// A request about objects.
pub struct Call {
    /// What answers it.
    pub api: Arc<Api>,
    /// The objects.
    pub target: Target,
    /// Its parameters.
    pub query: Query,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Api {
    /// An API with the namespaces that always exist, and nothing else.
    pub fn new(
        registry: Registry,
        history: usize,
        tokens: Vec<Token>,
        logs: Arc<dyn LogSource>,
        closing: Closing,
    ) -> Result<Self, ApiError> {
        let claims = Claims::new(registry.all().iter().map(|r| r.rules.claims));
        let store = Store::new(history, claims);
        if let Some(namespaces) = registry.namespaces() {
            store.transact(false, |transaction| {
                for name in PERMANENT_NAMESPACES {
                    let object = serde_json::json!({
                        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}, "spec": {},
                    });
                    lifecycle::create(&registry, transaction, namespaces, "", object)?;
                }
                Ok::<_, ApiError>(())
            })?;
        }
        Ok(Self {
            registry,
            store,
            logs,
            tokens,
            closing,
        })
    }

    /// Answers a request. Every failure is a Status object.
    pub async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let response = self.try_answer(request).await.unwrap_or_else(|error| {
            if matches!(error, ApiError::Internal(_)) {
                tracing::error!(%method, path, %error, "request failed");
            }
            respond::json(error.code(), &error.status())
        });
        tracing::debug!(%method, path, status = response.status().as_u16(), "request");
        response
    }

    async fn try_answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, ApiError> {
        let (parts, body) = request.into_parts();
        let route = route(&self.registry, parts.uri.path());
        if route == Some(Route::Live) {
            return Ok(respond::text("ok"));
        }
        auth::user(&self.tokens, &parts.headers).ok_or(ApiError::Unauthorized)?;
        let target = match route.ok_or(ApiError::NoSuchPath)? {
            Route::Objects(target) => target,
            _ if parts.method != Method::GET => return Err(ApiError::MethodNotAllowed),
            Route::Live | Route::Healthy => return Ok(respond::text("ok")),
            Route::Version => return document(discovery::version()),
            Route::CoreVersions => return document(discovery::core_versions()),
            Route::Groups => return document(discovery::groups(&self.registry)),
            Route::Group(group) => return document_or_404(discovery::group(&self.registry, &group)),
            Route::Resources(group, version) => {
                return document(discovery::resources(&self.registry, &group, &version));
            }
            Route::OpenApiV2 => {
                return Ok(respond::bytes(
                    openapi::V2_MEDIA_TYPE,
                    openapi::v2(&self.registry),
                ));
            }
            Route::OpenApiIndex => return document(openapi::index(&self.registry)),
            Route::OpenApi(group, version) => {
                return document_or_404(openapi::document(&self.registry, &group, &version));
            }
        };
        let body = match parts.method {
            Method::GET => Bytes::new(),
            _ => respond::read_body(body).await?,
        };
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let call = Call {
            api: self,
            target,
            query,
            headers: parts.headers,
            body,
        };
        call.answer(&parts.method).await
    }
}

impl Call {
    async fn answer(self, method: &Method) -> Result<Response<Body>, ApiError> {
        let one = self.target.name.is_some();
        if self.target.subresource == Subresource::Log {
            return if *method == Method::GET {
                handlers::log(&self).await
            } else {
                Err(ApiError::MethodNotAllowed)
            };
        }
        match *method {
            Method::GET if self.query.flag("watch") => handlers::watch(self),
            Method::GET if one => handlers::get(&self),
            Method::GET => handlers::list(&self),
            Method::POST if !one => handlers::create(&self),
            Method::PUT if one => handlers::update(&self),
            Method::PATCH if one => handlers::patch(&self),
            Method::DELETE if one && self.target.subresource == Subresource::None => handlers::delete(&self),
            _ => Err(ApiError::MethodNotAllowed),
        }
    }

    /// What is known of the kind.
    pub fn resource(&self) -> &Resource {
        self.api.registry.get(self.target.resource)
    }

    /// The key of the one object that this is about.
    pub fn key(&self) -> Key {
        Key {
            resource: self.target.resource,
            namespace: self.target.namespace.clone().unwrap_or_default(),
            name: self.target.name.clone().unwrap_or_default(),
        }
    }
}

fn document(value: Value) -> Result<Response<Body>, ApiError> {
    Ok(respond::json(StatusCode::OK, &value))
}

fn document_or_404(value: Option<Value>) -> Result<Response<Body>, ApiError> {
    document(value.ok_or(ApiError::NoSuchPath)?)
}
