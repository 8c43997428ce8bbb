use std::path::PathBuf;

/// Hand out node indexes, blocks of pod addresses, and addresses of load balancers.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// How to reach the API server; left out: as a pod of its cluster
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}
