//! What a kubelet asks a runtime for.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tokio::runtime::Runtime;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use crate::error::Error;
use crate::image;
use crate::messages::{
    ContainerConfig, ContainerId, ContainerMetadata, CreateContainerRequest, Empty, ExecSyncRequest,
    ExecSyncResponse, ImageSpec, ImageStatusRequest, ImageStatusResponse, LinuxPodSandboxConfig,
    LinuxSandboxSecurityContext, ListPodSandboxResponse, NamespaceMode, NamespaceOption, PodSandboxConfig,
    PodSandboxId, PodSandboxMetadata, PodSandboxStatusResponse, PortMapping, RunPodSandboxRequest,
    StatusResponse,
};

/// How long a request may take: the kubelet's own limit.
const DEADLINE: Duration = Duration::from_secs(120);

/// How long a command inside a container may take, in seconds.
const COMMAND_SECONDS: i64 = 20;

/// A connection to a runtime. Cheap to clone; each clone may wait for an answer of its own.
#[derive(Clone, Debug)]
pub struct Client {
    runtime: Arc<Runtime>,
    channel: Channel,
    cgroup: String,
}

/// A pod to be.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its name, of which there is one at a time.
    pub name: String,
    /// Where it is in the network.
    pub network: Network,
    /// Ports of the node that are to lead to it.
    pub port_mappings: Vec<PortMapping>,
}

/// Where a pod is in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// In a namespace of its own, connected by the CNI plugins.
    Pod,
    /// In that of the node.
    Node,
}

/// A pod's sandbox.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// The runtime's id, which is the plugins' container id.
    pub id: String,
    config: PodSandboxConfig,
}

impl Pod {
    /// A pod in the pod network.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            network: Network::Pod,
            port_mappings: Vec::new(),
        }
    }
}

impl Client {
    pub(crate) fn new(socket: &Path, cgroup: &str) -> Result<Self, Error> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(Error::file(socket))?;
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()));
        let endpoint = endpoint.map_err(|error| Error::file(socket)(std::io::Error::other(error)))?;
        let channel = runtime.block_on(async { endpoint.timeout(DEADLINE).connect_lazy() });
        Ok(Self {
            runtime: Arc::new(runtime),
            channel,
            cgroup: cgroup.into(),
        })
    }

    /// Why pods cannot be connected; none when they can.
    pub fn network_problem(&self) -> Result<Option<String>, Error> {
        let answer: StatusResponse = self.call("RuntimeService/Status", Empty {})?;
        let conditions = answer.status.unwrap_or_default().conditions;
        let network = conditions.into_iter().find(|one| one.kind == "NetworkReady");
        Ok(match network {
            Some(one) if one.status => None,
            Some(one) => Some(one.message),
            None => Some("the runtime does not say".into()),
        })
    }

    /// Whether the image is there.
    pub(crate) fn has_image(&self) -> Result<bool, Error> {
        let image = Some(ImageSpec {
            image: image::NAME.into(),
        });
        let answer: ImageStatusResponse =
            self.call("ImageService/ImageStatus", ImageStatusRequest { image })?;
        Ok(answer.image.is_some())
    }

    /// Makes a pod's sandbox, which connects it.
    pub fn run_sandbox(&self, pod: &Pod) -> Result<Sandbox, Error> {
        let network = match pod.network {
            Network::Pod => NamespaceMode::Pod,
            Network::Node => NamespaceMode::Node,
        };
        let namespaces = NamespaceOption {
            network: network.into(),
            pid: NamespaceMode::Container.into(),
            ipc: NamespaceMode::Pod.into(),
        };
        let linux = LinuxPodSandboxConfig {
            cgroup_parent: self.cgroup.clone(),
            security_context: Some(LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces),
            }),
        };
        let metadata = PodSandboxMetadata {
            name: pod.name.clone(),
            uid: format!("uid-of-{}", pod.name),
            namespace: "default".into(),
            attempt: 0,
        };
        let config = PodSandboxConfig {
            metadata: Some(metadata),
            linux: Some(linux),
            // A pod of the node's network has the node's name.
            hostname: if pod.network == Network::Pod {
                pod.name.clone()
            } else {
                String::new()
            },
            port_mappings: pod.port_mappings.clone(),
            ..PodSandboxConfig::default()
        };
        let request = RunPodSandboxRequest {
            config: Some(config.clone()),
            ..RunPodSandboxRequest::default()
        };
        let PodSandboxId { id } = self.call("RuntimeService/RunPodSandbox", request)?;
        Ok(Sandbox { id, config })
    }

    /// The addresses that a runtime tells the kubelet of.
    pub fn addresses(&self, sandbox: &Sandbox) -> Result<Vec<IpAddr>, Error> {
        let answer: PodSandboxStatusResponse =
            self.call("RuntimeService/PodSandboxStatus", sandbox.name())?;
        let network = answer.status.unwrap_or_default().network.unwrap_or_default();
        let more = network.additional_ips.into_iter().map(|one| one.ip);
        Ok([network.ip]
            .into_iter()
            .chain(more)
            .filter_map(|ip| ip.parse().ok())
            .collect())
    }

    /// The ids of all sandboxes that there are.
    pub fn sandboxes(&self) -> Result<Vec<String>, Error> {
        let answer: ListPodSandboxResponse = self.call("RuntimeService/ListPodSandbox", Empty {})?;
        Ok(answer.items.into_iter().map(|one| one.id).collect())
    }

    /// Ends what runs in a sandbox and disconnects it.
    pub fn stop_sandbox(&self, sandbox: &Sandbox) -> Result<(), Error> {
        self.call("RuntimeService/StopPodSandbox", sandbox.name())
            .map(|Empty {}| ())
    }

    /// Does the same, and removes what is left.
    pub fn remove_sandbox(&self, sandbox: &Sandbox) -> Result<(), Error> {
        self.stop_sandbox(sandbox)?;
        self.call("RuntimeService/RemovePodSandbox", sandbox.name())
            .map(|Empty {}| ())
    }

    /// Starts a container of the one image that there is. Gives its id.
    pub fn start_container(&self, sandbox: &Sandbox, name: &str, command: &[&str]) -> Result<String, Error> {
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: name.into() }),
            image: Some(ImageSpec {
                image: image::NAME.into(),
            }),
            command: words(command),
        };
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox.id.clone(),
            config: Some(config),
            sandbox_config: Some(sandbox.config.clone()),
        };
        let made: ContainerId = self.call("RuntimeService/CreateContainer", request)?;
        self.call("RuntimeService/StartContainer", made.clone())
            .map(|Empty {}| made.id)
    }

    /// Runs a command inside a container. Gives what it printed.
    pub fn exec(&self, container: &str, command: &[&str]) -> Result<String, Error> {
        let request = ExecSyncRequest {
            container_id: container.into(),
            cmd: words(command),
            timeout: COMMAND_SECONDS,
        };
        let done: ExecSyncResponse = self.call("RuntimeService/ExecSync", request)?;
        if done.exit_code != 0 {
            return Err(Error::Command {
                command: command.join(" "),
                status: done.exit_code,
                said: String::from_utf8_lossy(&done.stderr).into_owned(),
            });
        }
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }

    fn call<Q, A>(&self, method: &'static str, request: Q) -> Result<A, Error>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let failed = |status| Error::Request {
            method,
            status: Box::new(status),
        };
        let path = PathAndQuery::try_from(format!("/runtime.v1.{method}"));
        let path = path.map_err(|error| failed(tonic::Status::from_error(error.into())))?;
        let mut service = tonic::client::Grpc::new(self.channel.clone());
        let answered = self.runtime.block_on(async {
            service
                .ready()
                .await
                .map_err(|error| tonic::Status::from_error(error.into()))?;
            let codec = ProstCodec::<Q, A>::default();
            service.unary(tonic::Request::new(request), path, codec).await
        });
        answered.map(tonic::Response::into_inner).map_err(failed)
    }
}

impl Sandbox {
    fn name(&self) -> PodSandboxId {
        PodSandboxId { id: self.id.clone() }
    }
}

fn words(command: &[&str]) -> Vec<String> {
    command.iter().map(|word| (*word).into()).collect()
}
