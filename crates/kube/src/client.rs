use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

/// How long the API server may take to answer a request that is no watch.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(300);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The kubeconfig cannot be used.
    #[error("cannot use the kubeconfig {}: {source}; see that the file exists and is complete", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: KubeconfigError,
    },
    /// The process does not run in a pod.
    #[error("no --kubeconfig is given, and this is no pod of a cluster: {0}")]
    InCluster(#[source] InClusterError),
    /// The configuration is complete and yet unusable, such as a certificate that cannot be read.
    #[error("cannot speak to the API server: {0}; see the kubeconfig's certificates")]
    Setup(#[source] kube::Error),
}

/// A client of the API server that the kubeconfig names, or of the cluster that this pod runs in.
/// It does not connect yet, so it is fine if the server is away.
///
/// # Errors
/// The configuration is missing or wrong.
pub async fn client(kubeconfig: Option<&Path>) -> Result<Client, ClientError> {
    let mut config = match kubeconfig {
        Some(path) => {
            let failed = |source| ClientError::Kubeconfig {
                path: path.to_owned(),
                source,
            };
            let file = Kubeconfig::read_from(path).map_err(failed)?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .map_err(failed)?
        }
        None => Config::incluster().map_err(ClientError::InCluster)?,
    };
    // Longer than a watch lasts without a word (the watcher asks for 290 s), so that it ends none.
    config.read_timeout = Some(ANSWER_TIMEOUT);
    Client::try_from(config).map_err(ClientError::Setup)
}
