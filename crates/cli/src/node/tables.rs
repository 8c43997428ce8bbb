//! The node's tables, for people.

use comfy_table::Table;
use tombolo_cni::agent::{Allocation, BlockUsage, Drop, Endpoint, HostPort, Route};

use crate::output::table;

/// The pods' interfaces.
pub fn endpoints(endpoints: &[Endpoint]) -> Table {
    let mut table = table(&["pod", "interface", "addresses", "host ports", "host side", "mtu"]);
    for one in endpoints {
        let pod = match (&one.pod_namespace, &one.pod_name) {
            (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
            _ => one.container_id.clone(),
        };
        let addresses: Vec<String> = one.addresses.iter().map(ToString::to_string).collect();
        table.add_row([
            pod,
            one.if_name.clone(),
            addresses.join(","),
            ports(&one.host_ports),
            one.host_interface.clone(),
            one.mtu.to_string(),
        ]);
    }
    table
}

fn ports(ports: &[HostPort]) -> String {
    let texts = ports
        .iter()
        .map(|port| format!("{port} to {}", port.container_port));
    match texts.collect::<Vec<_>>() {
        none if none.is_empty() => "-".to_owned(),
        some => some.join(", "),
    }
}

/// How full the blocks are.
pub fn blocks(blocks: &[BlockUsage]) -> Table {
    let mut table = table(&["block", "used", "resting", "free"]);
    for one in blocks {
        let free = if one.free == u64::MAX {
            "plenty".to_owned()
        } else {
            one.free.to_string()
        };
        table.add_row([
            one.block.to_string(),
            one.used.to_string(),
            one.resting.to_string(),
            free,
        ]);
    }
    table
}

/// Who holds which address.
pub fn allocations(allocations: &[Allocation]) -> Table {
    let mut table = table(&["address", "pod", "interface"]);
    for one in allocations {
        let pod = one.pod.clone().unwrap_or_else(|| one.container_id.clone());
        table.add_row([one.address.to_string(), pod, one.if_name.clone()]);
    }
    table
}

/// Where packets go.
pub fn routes(routes: &[Route]) -> Table {
    let mut table = table(&[
        "destination",
        "kind",
        "node",
        "way",
        "next hop",
        "interface",
        "mtu",
    ]);
    let dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    for one in routes {
        table.add_row([
            one.destination.to_string(),
            one.kind.clone(),
            dash(one.node.clone()),
            one.way.clone(),
            dash(one.next_hop.map(|address| address.to_string())),
            dash(one.interface.clone()),
            one.mtu.to_string(),
        ]);
    }
    table
}

/// What was dropped.
pub fn drops(drops: &[Drop]) -> Table {
    let mut table = table(&["hook", "reason", "packets", "bytes"]);
    for one in drops {
        table.add_row([
            one.hook.clone(),
            one.reason.clone(),
            one.packets.to_string(),
            one.bytes.to_string(),
        ]);
    }
    table
}
