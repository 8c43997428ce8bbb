//! Running commands inside a lab.

use std::convert::Infallible;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;

use crate::error::{Error, Result, system};
use crate::place::{OUTSIDE, Place, ROUTER};
use crate::pod::PodRecord;
use crate::state::LabDir;

/// The place of that name: a node, a pod (`NAME`, or `NAMESPACE/NAME`), `outside` or `router`.
///
/// # Errors
/// [`Error::NoSuchPlace`], which tells what there is.
pub fn find_place(lab: &LabDir, name: &str) -> Result<Place> {
    let plan = lab.plan()?;
    if plan.node(name).is_some() {
        return Place::node(lab, name);
    }
    if name == OUTSIDE || name == ROUTER {
        return Place::beside(lab, name);
    }
    let (namespace, pod_name) = name.split_once('/').unwrap_or(("default", name));
    let pods = PodRecord::all(lab)?;
    if let Some(pod) = pods
        .iter()
        .find(|pod| pod.namespace == namespace && pod.name == pod_name)
    {
        return Place::pod(lab, pod);
    }
    let nodes = plan.nodes.iter().map(|node| node.name.clone());
    let pods = pods.iter().map(|pod| match pod.namespace.as_str() {
        "default" => pod.name.clone(),
        namespace => format!("{namespace}/{}", pod.name),
    });
    let known: Vec<String> = nodes
        .chain([OUTSIDE.to_owned(), ROUTER.to_owned()])
        .chain(pods)
        .collect();
    Err(Error::NoSuchPlace {
        lab: lab.name().to_owned(),
        name: name.to_owned(),
        known: known.join(", "),
    })
}

/// Becomes `command` inside a place: this process's terminal, signals and exit status are the command's.
///
/// # Errors
/// If it cannot; otherwise this never returns.
pub fn exec(lab: &LabDir, place: &str, command: &[OsString]) -> Result<Infallible> {
    let place = find_place(lab, place)?;
    let Some((program, args)) = command.split_first() else {
        return Err(Error::Options(
            "say what to run: tombolo lab exec NODE-OR-POD -- CMD...".to_owned(),
        ));
    };
    let error = place.command(program).args(args).exec();
    Err(system("run", Path::new(program))(error))
}
