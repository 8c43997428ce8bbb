//! DEL: through the agent, and without it when it is down. Needs neither `CNI_NETNS` nor
//! `prevResult`, and succeeds when everything is gone already.

use tombolo_cni::agent::endpoint_path;
use tombolo_cni::error::{Error, Result, code};
use tombolo_cni::fault::{self, PluginStep};
use tombolo_cni::released::{self, Released};
use tombolo_cni::{Config, ContainerId, InterfaceName, host_link_name};
use tombolo_netlink::Netlink;

use crate::add::Environment;
use crate::client::{Client, Failure};

pub fn run(environment: &Environment, stdin: &[u8]) -> Result<()> {
    let container_id = environment.container_id()?;
    let if_name = environment.interface_name()?;
    let config = Config::parse(stdin)?;
    fault::at(PluginStep::DelChecked)?;

    match ask(&config, &container_id, &if_name) {
        Err(Failure::Down { .. }) => without_agent(&config, &container_id, &if_name),
        other => {
            other?;
            Ok(fault::at(PluginStep::DelAnswered)?)
        }
    }
}

fn ask(config: &Config, container_id: &ContainerId, if_name: &InterfaceName) -> Result<(), Failure> {
    let path = endpoint_path(container_id.as_str(), if_name.as_str());
    Client::of(config).exchange("DELETE", &path, &[]).map(drop)
}

/// The order is that of [`released`].
fn without_agent(config: &Config, container_id: &ContainerId, if_name: &InterfaceName) -> Result<()> {
    released::write(&config.state_dir, container_id, if_name).map_err(|error| {
        Error::new(
            code::IO,
            "cannot record that the pod's addresses are free, and no agent is there to free them",
            format!(
                "folder {}: {error}; see that its disk is writable and not full, or start the agent",
                released::folder(&config.state_dir).display()
            ),
        )
    })?;
    fault::at(PluginStep::DelRecorded)?;
    match ask(config, container_id, if_name) {
        Err(Failure::Down { .. }) => {
            fault::at(PluginStep::DelAskedAgain)?;
            remove_link(&host_link_name(container_id.as_str(), if_name.as_str()))?;
            Ok(fault::at(PluginStep::DelLinkRemoved)?)
        }
        other => {
            let record = Released {
                container_id: container_id.to_string(),
                if_name: if_name.to_string(),
            };
            released::remove(&config.state_dir, &record).map_err(|error| {
                Error::new(
                    code::IO,
                    "cannot take back the record that the pod's addresses are free",
                    format!(
                        "folder {}: {error}",
                        released::folder(&config.state_dir).display()
                    ),
                )
            })?;
            Ok(other?)
        }
    }
}

fn remove_link(name: &str) -> Result<()> {
    Netlink::open()
        .and_then(|mut netlink| netlink.delete_link(name))
        .map(drop)
        .map_err(|error| {
            Error::new(
                code::KERNEL,
                format!("cannot remove the pod's link {name}"),
                error.to_string(),
            )
        })
}
