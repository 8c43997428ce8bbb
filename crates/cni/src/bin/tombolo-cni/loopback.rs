//! The plugin `loopback`: this program, when it is executed by that name. containerd 1.x and CRI-O run it in each
//! pod beside the network's own plugins, and start no pod without it.
//!
//! It brings `lo` up and says which addresses the kernel gave it. Nothing is undone at DEL: the device goes with
//! the namespace, and what is left of a pod until then may still talk to itself.

use std::ffi::OsStr;
use std::path::Path;

use tombolo_cni::error::{Error, Result, code};
use tombolo_cni::{AddResult, Command, Config, Interface, Ip};
use tombolo_netlink::{LinkChange, Netlink};

use crate::add::{Environment, pod_namespace};
use crate::{print, stdout_failed};

/// The device's name, whatever `CNI_IFNAME` says.
const DEVICE: &str = "lo";

/// Whether that is the plugin meant, by the path that was executed.
pub fn is_meant(program: &OsStr) -> bool {
    Path::new(program).file_name() == Some(OsStr::new("loopback"))
}

/// Runs every command but VERSION.
pub fn run(command: Command, environment: &Environment, stdin: &[u8]) -> Result<()> {
    let config = Config::parse(stdin)?;
    match command {
        Command::Add => {
            let netns = environment.netns()?;
            let earlier = config.prev_result()?;
            pod_namespace(&netns)?.enter().map_err(failed)?;
            let made = bring_up(&netns.to_string_lossy()).map_err(failed)?;
            let result = earlier.unwrap_or(made);
            print(&result.to_json(config.version)).map_err(stdout_failed)
        }
        Command::Check => {
            pod_namespace(&environment.netns()?)?.enter().map_err(failed)?;
            let up = Netlink::open().and_then(|mut netlink| Ok(netlink.require_link(DEVICE)?.up));
            if up.map_err(failed)? {
                return Ok(());
            }
            Err(Error::new(
                code::DIFFERS,
                "the pod's loopback device is down",
                "somebody in the pod took it down; containers cannot reach each other over localhost",
            ))
        }
        Command::Del | Command::Gc | Command::Status | Command::Version => Ok(()),
    }
}

/// The calling thread is inside.
fn bring_up(sandbox: &str) -> tombolo_netlink::Result<AddResult> {
    let mut netlink = Netlink::open()?;
    let device = netlink.require_link(DEVICE)?;
    if !device.up {
        let up = LinkChange {
            up: Some(true),
            ..LinkChange::default()
        };
        netlink.set_link(device.index, &up)?;
    }
    let addresses = netlink.addresses()?.into_iter();
    let ips = addresses.filter(|a| a.ifindex == device.index).map(|a| Ip {
        address: a.address,
        gateway: None,
        interface: Some(0),
    });
    Ok(AddResult {
        ips: ips.collect(),
        interfaces: vec![Interface {
            name: DEVICE.to_owned(),
            mac: Some("00:00:00:00:00:00".to_owned()),
            sandbox: Some(sandbox.to_owned()),
            ..Interface::default()
        }],
        ..AddResult::default()
    })
}

fn failed(error: tombolo_netlink::Error) -> Error {
    Error::new(
        code::KERNEL,
        "cannot bring up the pod's loopback device",
        error.to_string(),
    )
}
