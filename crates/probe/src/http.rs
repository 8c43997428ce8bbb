//! The HTTP side: a server whose every page is a JSON report of the request, and the client's check.

use std::io;
use std::net::SocketAddr;

use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request};
use axum::serve::IncomingStream;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::check::{Check, Failure, Kind, Success};
use crate::sockopt::path_mtu;
use crate::tcp;
use crate::wire::Seen;

/// More than any page of the server has.
const LONGEST_ANSWER: u64 = 16 << 10;

/// What the server answers to every request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Page {
    /// The two ends as the server saw them.
    #[serde(flatten)]
    pub seen: Seen,
    /// The request's method.
    pub method: String,
    /// The request's path and query.
    pub path: String,
    /// The host that the client asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

#[derive(Clone)]
struct Ends(Option<Seen>);

impl Connected<IncomingStream<'_, TcpListener>> for Ends {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        let client: SocketAddr = *stream.remote_addr();
        Self(
            stream
                .io()
                .local_addr()
                .ok()
                .map(|server| Seen { client, server }),
        )
    }
}

async fn page(ConnectInfo(Ends(seen)): ConnectInfo<Ends>, request: Request) -> Json<Option<Page>> {
    let host = request
        .headers()
        .get("host")
        .and_then(|host| host.to_str().ok())
        .map(str::to_owned);
    Json(seen.map(|seen| Page {
        seen,
        method: request.method().to_string(),
        path: request.uri().to_string(),
        host,
    }))
}

/// Answers every request on `listener` with a [`Page`].
pub async fn serve(listener: TcpListener) -> io::Result<()> {
    let router: Router<()> = Router::new().fallback(page);
    axum::serve(listener, router.into_make_service_with_connect_info::<Ends>()).await
}

/// Asks for `/` and reads what the server saw.
pub async fn check(check: &Check) -> Result<Success, Failure> {
    let mut stream = tcp::connect(check).await?;
    let local = stream.local_addr()?;
    let host = SocketAddr::new(check.address, check.port());
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    (&mut stream)
        .take(LONGEST_ANSWER)
        .read_to_string(&mut answer)
        .await?;
    let page = answer
        .strip_prefix("HTTP/1.1 200 ")
        .and_then(|answer| answer.split_once("\r\n\r\n"))
        .and_then(|(_, body)| serde_json::from_str::<Page>(body).ok());
    match page {
        Some(Page { seen, .. }) => {
            let path_mtu = path_mtu(&stream, check.address).ok();
            Ok(Success {
                seen: Some(seen.client),
                server: seen.server,
                local,
                path_mtu,
            })
        }
        None => Err(Failure::new(
            Kind::Corrupted,
            format!("the answer is no probe's page: {answer:?}"),
        )),
    }
}
