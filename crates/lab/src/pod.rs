//! What is kept of a running pod for the commands that look for it.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroup;
use crate::error::{Result, system};
use crate::port_mapping::PortMapping;
use crate::state::{LabDir, read_record, write_record};

/// A pod with a sandbox: namespaces, addresses, and what runs in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodRecord {
    /// Its Kubernetes namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The node that it runs on.
    pub node: String,
    /// Its network namespace, as a path on its node.
    pub netns: PathBuf,
    /// When its sandbox was begun (RFC 3339).
    pub started: String,
    /// Its addresses, the first being `podIP`.
    pub addresses: Vec<IpAddr>,
    /// Its host ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub port_mappings: Vec<PortMapping>,
}

impl PodRecord {
    /// The control group of all its containers, inside that of its node.
    pub fn cgroup(&self, lab: &LabDir) -> Result<Cgroup> {
        Ok(lab
            .cgroup()?
            .child(&self.node)
            .child(&format!("pod-{}", self.uid)))
    }

    /// The id of its sandbox, which the CNI plugin knows it by.
    pub fn sandbox(&self) -> String {
        self.uid.replace('-', "")
    }

    fn path(&self, lab: &LabDir) -> PathBuf {
        lab.pods().join(format!("{}.json", self.uid))
    }

    /// Stores the record.
    pub fn write(&self, lab: &LabDir) -> Result<()> {
        write_record(&self.path(lab), self)
    }

    /// Removes the record; fine if there is none.
    pub fn remove(&self, lab: &LabDir) -> Result<()> {
        let path = self.path(lab);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(system("remove", &path)(error)),
            _ => Ok(()),
        }
    }

    /// All records, ordered by namespace and name.
    pub fn all(lab: &LabDir) -> Result<Vec<Self>> {
        let folder = lab.pods();
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(system("list", &folder)(error)),
        };
        let mut pods = Vec::new();
        for entry in entries.flatten() {
            if entry
                .path()
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                match read_record(&entry.path()) {
                    Ok(pod) => pods.push(pod),
                    // Gone since it was listed.
                    Err(_) if !entry.path().exists() => {}
                    Err(error) => return Err(error),
                }
            }
        }
        pods.sort_by(|a: &Self, b: &Self| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        Ok(pods)
    }
}
