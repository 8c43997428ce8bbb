//! A lab's status, for people.

use std::fmt::Display;

use tombolo_lab::LabStatus;

use crate::error::Error;
use crate::output::{print, print_table, table};

/// The longest command line shown.
const COMMAND: usize = 90;

/// Prints everything about a lab.
pub fn status(status: &LabStatus) -> Result<(), Error> {
    print(format_args!(
        "lab {}, kubeconfig {}",
        status.name,
        status.kubeconfig.display()
    ))?;
    for problem in &status.problems {
        print(format_args!("  problem: {problem}"))?;
    }
    let mut nodes = table(&["node", "ready", "segment", "addresses", "blocks", "pod mtu"]);
    for node in &status.nodes {
        let ready = match (node.ready, node.message.as_str()) {
            (true, "") => "yes".to_owned(),
            (true, message) => format!("yes, but: {message}"),
            (false, message) => format!("no: {message}"),
        };
        nodes.add_row([
            node.name.clone(),
            ready,
            node.segment.to_string(),
            joined(&node.addresses),
            joined(&node.blocks),
            node.pod_mtu.to_string(),
        ]);
    }
    let mut pods = table(&["pod", "node", "addresses"]);
    for pod in &status.pods {
        pods.add_row([
            format!("{}/{}", pod.namespace, pod.name),
            pod.node.clone(),
            joined(&pod.addresses),
        ]);
    }
    let mut processes = table(&["process", "runs on", "command"]);
    for process in &status.processes {
        let command: String = process.command.chars().take(COMMAND).collect();
        processes.add_row([process.pid.to_string(), process.place.clone(), command]);
    }
    for table in [nodes, pods, processes] {
        print("")?;
        print_table(&table)?;
    }
    Ok(())
}

fn joined<T: Display>(list: &[T]) -> String {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
