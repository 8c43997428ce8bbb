//! The configuration that tells a container runtime to call the plugin (CNI SPEC.md 1.1.0, section 1).

use std::path::Path;

use serde_json::{Value, json};
use tombolo_cni::{PLUGIN_NAME, Version};

/// The network's name.
const NETWORK: &str = "tombolo";

/// The file's text. In `cniVersion` it is of a version that every runtime in use reads (containerd 1.6 knows
/// nothing newer); those that know `cniVersions` choose the newest that they speak, too.
pub fn text(socket: &Path, state_dir: &Path) -> Vec<u8> {
    let list = json!({
        "cniVersion": Version::V1_0_0,
        "cniVersions": Version::ALL,
        "name": NETWORK,
        "plugins": [{
            "type": PLUGIN_NAME,
            "capabilities": {"ips": true, "portMappings": true},
            "socket": socket,
            "stateDir": state_dir,
        }],
    });
    format!("{list:#}\n").into_bytes()
}

/// Whether a file is one of ours, of whatever release.
pub fn is_ours(path: &Path) -> bool {
    let list: Value = match std::fs::read(path).map(|text| serde_json::from_slice(&text)) {
        Ok(Ok(list)) => list,
        _ => return false,
    };
    let plugins = list["plugins"].as_array();
    list["name"] == NETWORK
        && plugins.is_some_and(|all| all.iter().any(|plugin| plugin["type"] == PLUGIN_NAME))
}
