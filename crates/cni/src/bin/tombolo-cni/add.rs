//! ADD: checks everything, asks the agent, prints the result. Until the agent is asked nothing is
//! touched, and what it made is undone if the runtime cannot be told.

use std::ffi::OsString;
use std::path::Path;

use tombolo_cni::agent::{AddRequest, AddResponse, ENDPOINTS_PATH, endpoint_path};
use tombolo_cni::error::{Error, Result, code};
use tombolo_cni::fault::{self, PluginStep};
use tombolo_cni::{Config, invalid};
use tombolo_netlink::Namespace;

use crate::client::{Client, Failure};
use crate::{print, stdout_failed};

/// The process's own environment.
pub type Environment = tombolo_cni::Environment<fn(&str) -> Option<OsString>>;

pub fn run(environment: &Environment, stdin: &[u8]) -> Result<()> {
    let container_id = environment.container_id()?;
    let if_name = environment.interface_name()?;
    let netns = environment.netns()?;
    let args = environment.args()?;
    let config = Config::parse(stdin)?;
    config.check_supported()?;
    let prev_result = config.prev_result()?;
    let dns = config.dns()?;
    let requested_ips = config.requested_ips(args.ip.as_deref())?;
    let host_ports = config.host_ports()?;
    let egress_limit = config.egress_limit()?;
    pod_namespace(&netns)?;
    fault::at(PluginStep::AddChecked)?;

    let sandbox = netns.to_string_lossy().into_owned();
    let request = AddRequest {
        container_id: container_id.to_string(),
        if_name: if_name.to_string(),
        netns: sandbox.clone(),
        network: Some(config.name.clone()),
        pod_namespace: args.pod_namespace,
        pod_name: args.pod_name,
        pod_uid: args.pod_uid,
        requested_ips,
        host_ports,
        egress_limit,
    };
    let client = Client::of(&config);
    let undo = |error: Error| {
        // Without success the runtime follows with a DEL, which reports what fails here.
        let path = endpoint_path(container_id.as_str(), if_name.as_str());
        let _ = client.exchange("DELETE", &path, &[]);
        error
    };

    let made = match ask(&client, &request) {
        Err(failure @ Failure::Nonsense { .. }) => return Err(undo(failure.into())),
        made => made?,
    };
    fault::at(PluginStep::AddAnswered).map_err(|fault| undo(fault.into()))?;
    let mut result = prev_result.unwrap_or_default();
    result.append(made, &sandbox);
    if dns != Default::default() {
        result.dns = dns;
    }
    print(&result.to_json(config.version)).map_err(|error| undo(stdout_failed(error)))
}

fn ask(client: &Client<'_>, request: &AddRequest) -> Result<AddResponse, Failure> {
    let answer = client.post(ENDPOINTS_PATH, request)?;
    serde_json::from_slice(&answer).map_err(|error| client.nonsense(error))
}

/// The specification leaves the namespace to the plugin; ours would lose its own connectivity.
pub fn pod_namespace(path: &Path) -> Result<Namespace> {
    let text = path.to_string_lossy();
    let unusable =
        |error: tombolo_netlink::Error| invalid("CNI_NETNS", &text, &format!("is not usable: {error}"));
    let namespace = Namespace::open(path).map_err(unusable)?;
    let own = Namespace::current().map_err(|error| {
        Error::new(
            code::KERNEL,
            "cannot tell the plugin's own network namespace",
            error.to_string(),
        )
    })?;
    if namespace.same_as(&own).map_err(unusable)? {
        return Err(invalid(
            "CNI_NETNS",
            &text,
            "is the node's own namespace, not a pod's",
        ));
    }
    Ok(namespace)
}
