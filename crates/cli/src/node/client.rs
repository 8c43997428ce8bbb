//! A client of the agent's API: HTTP over its unix socket.

use std::io;
use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tombolo_cni::agent::ErrorBody;

use crate::error::Error;

/// How long the agent may take to answer.
const DEADLINE: Duration = Duration::from_secs(10);

/// The agent behind a socket.
pub struct Agent<'a> {
    socket: &'a Path,
}

impl<'a> Agent<'a> {
    /// The agent that serves `socket`.
    pub fn new(socket: &'a Path) -> Self {
        Self { socket }
    }

    /// Asks for one of the collections of [`tombolo_cni::agent`].
    ///
    /// # Errors
    /// If nobody answers, or not with what the path promises.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        let nonsense = |reason: String| Error::Agreement {
            socket: self.socket.to_owned(),
            path: path.to_owned(),
            reason,
        };
        let no_agent = |source: io::Error| Error::NoAgent {
            socket: self.socket.to_owned(),
            source,
        };
        let stream = UnixStream::connect(self.socket).await.map_err(no_agent)?;
        let answered = tokio::time::timeout(DEADLINE, ask(stream, path)).await;
        let (status, body) = answered
            .map_err(|_| no_agent(io::Error::from(io::ErrorKind::TimedOut)))?
            .map_err(|error| nonsense(error.to_string()))?;
        if status == StatusCode::OK {
            return serde_json::from_slice(&body).map_err(|error| nonsense(error.to_string()));
        }
        let reason = match serde_json::from_slice::<ErrorBody>(&body) {
            Ok(error) if error.details.is_empty() => error.msg,
            Ok(error) => format!("{}: {}", error.msg, error.details),
            Err(_) => status.to_string(),
        };
        Err(Error::Refused {
            path: path.to_owned(),
            reason,
        })
    }
}

async fn ask(stream: UnixStream, path: &str) -> Result<(StatusCode, Bytes), hyper::Error> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = hyper::Uri::try_from(path).unwrap_or_default();
    request.headers_mut().insert(
        hyper::header::HOST,
        hyper::header::HeaderValue::from_static("agent"),
    );
    let answer = sender.send_request(request).await?;
    Ok((answer.status(), answer.into_body().collect().await?.to_bytes()))
}
