//! Failures of requests, as the Status objects that Kubernetes clients know.

use http::StatusCode;
use serde_json::{Value, json};
use thiserror::Error;

use crate::cause::Cause;
use crate::resource::Resource;

/// The object that a failure is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    group: String,
    kind: String,
    plural: String,
    name: String,
}

impl Subject {
    /// The object of `resource` that is named `name`.
    pub fn new(resource: &Resource, name: &str) -> Self {
        Self {
            group: resource.group.clone(),
            kind: resource.kind.clone(),
            plural: resource.plural.clone(),
            name: name.to_owned(),
        }
    }

    fn qualified(&self, word: &str) -> String {
        if self.group.is_empty() {
            word.to_owned()
        } else {
            format!("{word}.{}", self.group)
        }
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} \"{}\"", self.qualified(&self.plural), self.name)
    }
}

/// Why a request failed. The texts are those of Kubernetes' API server, since clients match on some.
#[derive(Debug, Error)]
pub enum ApiError {
    /// The object does not exist.
    #[error("{0} not found")]
    NotFound(Subject),
    /// The path leads to nothing that this server serves.
    #[error("the server could not find the requested resource")]
    NoSuchPath,
    /// An object of that name is already there.
    #[error("{0} already exists")]
    AlreadyExists(Subject),
    /// The object has changed since the client read it, or is not the one that the client means.
    #[error("Operation cannot be fulfilled on {0}: {1}")]
    Conflict(Subject, String),
    /// The object breaks rules of its kind.
    #[error("{}", invalid_text(.0, .1))]
    Invalid(Subject, Vec<Cause>),
    /// The request cannot be understood.
    #[error("{0}")]
    BadRequest(String),
    /// No or an unknown bearer token.
    #[error("Unauthorized")]
    Unauthorized,
    /// Understood, and refused.
    #[error("{0} is forbidden: {1}")]
    Forbidden(Subject, String),
    /// The resource does not offer this verb.
    #[error("the server does not allow this method on the requested resource")]
    MethodNotAllowed,
    /// The client takes none of the media types on offer.
    #[error(
        "only the following media types are accepted: application/json, application/json;as=Table;v=v1;g=meta.k8s.io"
    )]
    NotAcceptable,
    /// The body is in a media type that is not understood here.
    #[error("the body of the request was in an unknown format - accepted media types include: {0}")]
    UnsupportedMediaType(&'static str),
    /// The body is larger than the server takes.
    #[error("Request entity too large: limit is {0}")]
    TooLarge(usize),
    /// The client asks for changes that are no longer remembered.
    #[error("{0}")]
    Expired(String),
    /// The client was too slow to send its request.
    #[error("the request did not arrive within {0} seconds")]
    Timeout(u64),
    /// The server itself failed.
    #[error("Internal error occurred: {0}")]
    Internal(String),
}

fn invalid_text(subject: &Subject, causes: &[Cause]) -> String {
    let each: Vec<String> = causes
        .iter()
        .map(|c| format!("{}: {}", c.field, c.message))
        .collect();
    let what = match each.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    };
    format!(
        "{} \"{}\" is invalid: {what}",
        subject.qualified(&subject.kind),
        subject.name
    )
}

impl ApiError {
    /// The HTTP status code.
    pub fn code(&self) -> StatusCode {
        match self {
            Self::NotFound(_) | Self::NoSuchPath => StatusCode::NOT_FOUND,
            Self::AlreadyExists(_) | Self::Conflict(..) => StatusCode::CONFLICT,
            Self::Invalid(..) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden(..) => StatusCode::FORBIDDEN,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
            Self::UnsupportedMediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Expired(_) => StatusCode::GONE,
            Self::Timeout(_) => StatusCode::REQUEST_TIMEOUT,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::NotFound(_) | Self::NoSuchPath => "NotFound",
            Self::AlreadyExists(_) => "AlreadyExists",
            Self::Conflict(..) => "Conflict",
            Self::Invalid(..) => "Invalid",
            Self::BadRequest(_) => "BadRequest",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden(..) => "Forbidden",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::NotAcceptable => "NotAcceptable",
            Self::UnsupportedMediaType(_) => "UnsupportedMediaType",
            Self::TooLarge(_) => "RequestEntityTooLarge",
            Self::Expired(_) => "Expired",
            Self::Timeout(_) => "Timeout",
            Self::Internal(_) => "InternalError",
        }
    }

    /// The Status object that says it to the client (meta/v1 Status).
    pub fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.to_string(),
            "reason": self.reason(),
            "code": self.code().as_u16(),
        });
        let (subject, causes) = match self {
            Self::Invalid(subject, causes) => (Some(subject), causes.as_slice()),
            Self::NotFound(s) | Self::AlreadyExists(s) | Self::Conflict(s, _) | Self::Forbidden(s, _) => {
                (Some(s), [].as_slice())
            }
            _ => (None, [].as_slice()),
        };
        if let Some(subject) = subject {
            // An Invalid names the kind, every other failure the resource, as Kubernetes does.
            let kind = if causes.is_empty() {
                &subject.plural
            } else {
                &subject.kind
            };
            status["details"] = json!({"name": subject.name, "group": subject.group, "kind": kind});
        }
        if !causes.is_empty() {
            status["details"]["causes"] = causes
                .iter()
                .map(|c| json!({"reason": c.reason.name(), "message": c.message, "field": c.field}))
                .collect();
        }
        status
    }
}
