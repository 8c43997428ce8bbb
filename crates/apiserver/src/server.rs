//! Listeners, TLS and connections.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::api::Api;
use crate::auth::Token;
use crate::closing::{Closing, closing};
use crate::logs::LogSource;
use crate::resource::{RegistrationError, Registry, Resource};

/// How many changes a server remembers for watchers, when nothing else is wanted.
pub const DEFAULT_HISTORY: usize = 4096;

/// How long a client may take for its TLS handshake.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// How long a client may take to send the head of a request, and how long a connection may be silent.
const HEAD_DEADLINE: Duration = Duration::from_secs(30);
/// How often a peer on HTTP/2 is asked whether it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// How long open requests may take to end after the server was told to.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(5);
/// How long to wait before accepting again when it failed, as it does when descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a server is made of.
pub struct Options {
    /// Where to listen; each may belong to another network namespace.
    pub listeners: Vec<TcpListener>,
    /// The certificate and what goes with it: [`crate::Pki::server_config`].
    pub tls: rustls::ServerConfig,
    /// Who is let in.
    pub tokens: Vec<Token>,
    /// The kinds: [`crate::built_in_resources`] and others.
    pub resources: Vec<Resource>,
    /// Where the logs of containers come from.
    pub logs: Arc<dyn LogSource>,
    /// How many changes are remembered for watchers that fall behind; [`DEFAULT_HISTORY`].
    pub history: usize,
}

/// Why a server cannot serve.
#[derive(Debug, Error)]
pub enum Error {
    /// The resources cannot be registered.
    #[error(transparent)]
    Registration(#[from] RegistrationError),
    /// A listener cannot be used.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Its address, where it is known.
        address: String,
        /// What failed.
        source: io::Error,
    },
    /// The first objects could not be made.
    #[error("cannot make the first namespaces: {0}")]
    Start(String),
}

/// Serves until `shutdown` is ready, then lets open requests end for at most five seconds.
///
/// # Errors
/// When the listeners or the resources cannot be used; never once it serves.
pub async fn serve(options: Options, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    let registry = Registry::new(options.resources)?;
    let (closer, closing) = closing();
    let api = Api::new(
        registry,
        options.history,
        options.tokens,
        options.logs,
        closing.clone(),
    )
    .map_err(|error| Error::Start(error.to_string()))?;
    let api = Arc::new(api);
    let acceptor = TlsAcceptor::from(Arc::new(options.tls));
    let mut listeners = JoinSet::new();
    for listener in options.listeners {
        let address = listener
            .local_addr()
            .map_or_else(|_| "?".to_owned(), |a| a.to_string());
        let failed = |source| Error::Listen {
            address: address.clone(),
            source,
        };
        listener.set_nonblocking(true).map_err(failed)?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
        listeners.spawn(accept(listener, acceptor.clone(), api.clone(), closing.clone()));
    }
    shutdown.await;
    closer.close();
    while listeners.join_next().await.is_some() {}
    Ok(())
}

/// Accepts connections until the server closes, then waits for those that are open.
async fn accept(
    listener: tokio::net::TcpListener,
    acceptor: TlsAcceptor,
    api: Arc<Api>,
    mut closing: Closing,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = closing.wait() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let (acceptor, api, closing) = (acceptor.clone(), api.clone(), closing.clone());
                    connections.spawn(async move {
                        if let Err(error) = converse(stream, acceptor, api, closing).await {
                            tracing::debug!(%peer, error, "connection ended");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection; trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(SHUTDOWN_DEADLINE, all).await.is_err() {
        tracing::debug!("some requests did not end in time and were cut off");
    }
}

/// One connection, from its handshake to its end.
async fn converse(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    api: Arc<Api>,
    closing: Closing,
) -> Result<(), String> {
    stream.set_nodelay(true).map_err(|e| e.to_string())?;
    let tls = tokio::time::timeout(HANDSHAKE_DEADLINE, acceptor.accept(stream)).await;
    let tls = tls
        .map_err(|_| "no TLS handshake in time".to_owned())?
        .map_err(|e| e.to_string())?;
    speak(tls, api, closing).await.map_err(|e| e.to_string())
}

/// Speaks the version of HTTP that the handshake has settled on.
async fn speak(tls: TlsStream<TcpStream>, api: Arc<Api>, mut closing: Closing) -> Result<(), hyper::Error> {
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let api = api.clone();
        async move { Ok::<_, Infallible>(api.answer(request).await) }
    });
    if tls.get_ref().1.alpn_protocol() == Some(b"h2") {
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE)
            .serve_connection(TokioIo::new(tls), service);
        let mut connection = pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = closing.wait() => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    } else {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_DEADLINE)
            .serve_connection(TokioIo::new(tls), service);
        let mut connection = pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = closing.wait() => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    }
}
