//! A server for one test, on ports of its own, that ends with the test.

#![allow(clippy::unwrap_used, reason = "a test fails where its server cannot be made")]
#![allow(dead_code, reason = "each test binary uses its part")]

pub mod kubectl;

use std::net::TcpListener;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{StreamExt, stream};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, CustomResourceExt};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tombolo_apiserver::{
    LogError, LogRequest, LogSource, LogStream, Options, Pki, Resource, ServiceRanges, Token,
    built_in_resources, serve,
};

pub struct TestServer {
    pub kubeconfig: String,
    pub url: String,
    pub authority: String,
    pub token: String,
    shutdown: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

/// Gives three lines for every container, or as many of the last ones as are asked for.
pub struct ThreeLines;

impl LogSource for ThreeLines {
    fn open(&self, request: LogRequest) -> BoxFuture<'_, Result<LogStream, LogError>> {
        let skip = 3 - request.tail_lines.map_or(3, |n| n.min(3) as usize);
        let time = if request.timestamps {
            "2026-01-01T00:00:00Z "
        } else {
            ""
        };
        let LogRequest { pod, container, .. } = request;
        let lines: Vec<_> = (1..=3)
            .map(|n| Ok(format!("{time}{pod}/{container} {n}\n").into()))
            .collect();
        Box::pin(async move { Ok(stream::iter(lines).skip(skip).boxed()) })
    }
}

impl TestServer {
    pub async fn start() -> Self {
        Self::with_history(tombolo_apiserver::DEFAULT_HISTORY).await
    }

    pub async fn with_history(history: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let pki = Pki::new(&["127.0.0.1"]).unwrap();
        let token = Token::generate("test");
        let mut resources = built_in_resources(&ServiceRanges::default()).unwrap();
        resources.push(Resource::from_crd(tombolo_kube::Network::crd()).unwrap());
        resources.push(Resource::from_crd(tombolo_kube::NodeNetwork::crd()).unwrap());
        let (shutdown, ended) = oneshot::channel();
        let options = Options {
            listeners: vec![listener],
            tls: pki.server_config().unwrap(),
            tokens: vec![token.clone()],
            resources,
            logs: Arc::new(ThreeLines),
            history,
        };
        let task = tokio::spawn(async move {
            let ended = async {
                let _ = ended.await;
            };
            serve(options, ended).await.unwrap();
        });
        Self {
            kubeconfig: pki.kubeconfig(&url, &token.user, &token.secret),
            authority: pki.authority().to_owned(),
            url,
            token: token.secret,
            shutdown: Some(shutdown),
            task,
        }
    }

    pub async fn client(&self) -> Client {
        // A process has one provider, whichever test comes first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let kubeconfig = Kubeconfig::from_yaml(&self.kubeconfig).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .unwrap();
        Client::try_from(config).unwrap()
    }

    /// Ends the server and waits until it has ended.
    pub async fn stop(mut self) {
        if let Some(shutdown) = self.shutdown.take() {
            let _ = shutdown.send(());
        }
        (&mut self.task).await.unwrap();
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
