//! CHECK: has the agent compare what there is with what the runtime's `prevResult` lists. Prints nothing where
//! nothing differs.

use tombolo_cni::Config;
use tombolo_cni::agent::check_path;
use tombolo_cni::error::{Error, Result, code};

use crate::add::{Environment, pod_namespace};
use crate::client::Client;

pub fn run(environment: &Environment, stdin: &[u8]) -> Result<()> {
    let container_id = environment.container_id()?;
    let if_name = environment.interface_name()?;
    let netns = environment.netns()?;
    let config = Config::parse(stdin)?;
    let result = config.prev_result()?.ok_or_else(|| {
        Error::new(
            code::INVALID_CONFIG,
            "CHECK needs \"prevResult\" in the network configuration",
            "the container runtime must pass the result of the ADD (CNI SPEC, section 2, CHECK)",
        )
    })?;
    let sandbox = netns.to_string_lossy();
    let expected = result.expected(if_name.as_str(), &sandbox).ok_or_else(|| {
        Error::new(
            code::DIFFERS,
            format!("\"prevResult\" does not list interface {if_name} in the pod"),
            format!("no interface of that name with sandbox {sandbox:?} is in it; it is not the result of this attachment's ADD"),
        )
    })?;
    pod_namespace(&netns)?;
    let path = check_path(container_id.as_str(), if_name.as_str());
    Ok(Client::of(&config).post(&path, &expected).map(drop)?)
}
