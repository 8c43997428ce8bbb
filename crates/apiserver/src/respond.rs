//! Bodies in and out: what the client accepts, what it sent, and how it is answered.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use http::header::{ACCEPT, CONTENT_TYPE, WARNING};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use serde_json::Value;

use crate::error::ApiError;
use crate::table::IncludeObject;

/// The body of a response.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The largest body that a request may have, in bytes, as Kubernetes' own limit.
pub const MAX_BODY: usize = 3 * 1024 * 1024;
/// How long a body may take to arrive.
const BODY_DEADLINE: Duration = Duration::from_secs(30);

/// The form in which objects go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As they are.
    Objects,
    /// As a table for people.
    Table,
}

/// The first form in the Accept header that this server can give.
pub fn accepted_form(headers: &HeaderMap) -> Result<Form, ApiError> {
    let Some(accept) = headers.get(ACCEPT) else {
        return Ok(Form::Objects);
    };
    let accept = accept.to_str().unwrap_or_default();
    accept.split(',').find_map(form).ok_or(ApiError::NotAcceptable)
}

fn form(media_type: &str) -> Option<Form> {
    let mut parts = media_type.split(';').map(str::trim);
    if !matches!(parts.next()?, "application/json" | "application/*" | "*/*" | "") {
        return None;
    }
    let parameters: Vec<(&str, &str)> = parts.filter_map(|p| p.split_once('=')).collect();
    let parameter = |name: &str| {
        parameters
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, value)| *value)
    };
    match parameter("as") {
        None => Some(Form::Objects),
        Some("Table") if parameter("v") == Some("v1") && parameter("g") == Some("meta.k8s.io") => {
            Some(Form::Table)
        }
        Some(_) => None,
    }
}

/// The parameter `includeObject` of a request for a table.
pub fn include_object(text: &str) -> Result<IncludeObject, ApiError> {
    match text {
        "None" => Ok(IncludeObject::None),
        "" | "Metadata" => Ok(IncludeObject::Metadata),
        "Object" => Ok(IncludeObject::Object),
        other => Err(ApiError::BadRequest(format!(
            "invalid value {other:?} of parameter includeObject: must be None, Metadata or Object"
        ))),
    }
}

/// The media type of a request's body, without parameters; empty when it is not given.
pub fn content_type(headers: &HeaderMap) -> &str {
    let given = headers
        .get(CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    given.split(';').next().unwrap_or_default().trim()
}

/// Reads the body of a request, within the limits of size and time.
pub async fn read_body(body: Incoming) -> Result<Bytes, ApiError> {
    let collected = tokio::time::timeout(BODY_DEADLINE, Limited::new(body, MAX_BODY).collect()).await;
    match collected {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ApiError::TooLarge(MAX_BODY)),
        Ok(Err(error)) => Err(ApiError::BadRequest(format!("the body broke off: {error}"))),
        Err(_) => Err(ApiError::Timeout(BODY_DEADLINE.as_secs())),
    }
}

/// Reads the JSON object that a request carries.
pub fn parse_object(headers: &HeaderMap, body: &Bytes) -> Result<Value, ApiError> {
    if !matches!(content_type(headers), "" | "application/json") {
        return Err(ApiError::UnsupportedMediaType("application/json"));
    }
    match serde_json::from_slice(body) {
        Ok(object @ Value::Object(_)) => Ok(object),
        Ok(_) => Err(ApiError::BadRequest("the body must be a JSON object".to_owned())),
        Err(error) => Err(ApiError::BadRequest(format!(
            "the body is not valid JSON: {error}"
        ))),
    }
}

/// An answer in JSON.
pub fn json(code: StatusCode, value: &Value) -> Response<Body> {
    with_type(code, "application/json", full(value.to_string()))
}

/// An answer in JSON, with warnings (RFC 7234, section 5.5) that kubectl shows.
pub fn json_with_warnings(code: StatusCode, value: &Value, warnings: &[String]) -> Response<Body> {
    let mut response = json(code, value);
    for warning in warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
    response
}

/// An answer in plain text.
pub fn text(text: &'static str) -> Response<Body> {
    with_type(StatusCode::OK, "text/plain; charset=utf-8", full(text.to_owned()))
}

/// An answer that arrives bit by bit.
pub fn stream(
    media_type: &'static str,
    chunks: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> Response<Body> {
    use futures::StreamExt;
    let body = StreamBody::new(chunks.map(|chunk| chunk.map(Frame::data)));
    with_type(StatusCode::OK, media_type, body.boxed_unsync())
}

fn full(text: String) -> Body {
    Full::new(Bytes::from(text))
        .map_err(|never| match never {})
        .boxed_unsync()
}

fn with_type(code: StatusCode, media_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}
