//! Host ports: ports of this node that lead to pods on it. They come with the pods, from the address store and not from
//! the API server, and are in the same tables as the frontends of Services.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use tombolo_abi::{Addr, Backend, BackendState, FrontendKey, Slab};
use tombolo_cni::HOST_LINK_PREFIX;
use tombolo_ipam::Attachment;
use tombolo_netlink::Netlink;
use tombolo_services::{self as services, Compiled, HostPort, Owner, Place, compile_host_ports};

use super::programmed::Programmed;
use super::{Message, Services};
use crate::error::Error;

/// The host ports of the node's pods.
#[derive(Default)]
pub struct HostPorts {
    pods: BTreeMap<services::Attachment, Pod>,
    /// The node's own addresses, as far as they matter: looked at when a pod names one.
    node: BTreeSet<IpAddr>,
}

/// A pod that has some.
struct Pod {
    addresses: Vec<IpAddr>,
    ports: Vec<HostPort>,
    problems: Vec<String>,
}

impl HostPorts {
    /// What is wrong with them, for a person.
    pub fn problems(&self) -> impl Iterator<Item = &String> {
        self.pods.values().flat_map(|pod| &pod.problems)
    }

    /// Whether some are at addresses that the node may or may not have.
    fn names_addresses(&self) -> bool {
        let mut ports = self.pods.values().flat_map(|pod| &pod.ports);
        ports.any(|port| port.fixed_address().is_some())
    }

    /// Looks at the node's addresses, if some pod names one.
    fn look(&mut self) -> Result<(), Error> {
        if self.names_addresses() {
            self.node = node_addresses()?;
        }
        Ok(())
    }
}

impl Services {
    /// Takes up the host ports of pods that are there; those of others go, whoever has written them.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn adopt_host_ports<'a>(
        &self,
        attachments: impl Iterator<Item = &'a Attachment>,
    ) -> Result<(), Error> {
        let mut programmed = self.lock();
        for attachment in attachments.filter(|a| !a.host_ports.is_empty()) {
            programmed
                .host_ports
                .pods
                .insert(name_of(attachment), pod_of(attachment));
        }
        programmed.host_ports.look()?;
        programmed.write_left(&self.kernel)?;
        let names: Vec<_> = programmed.host_ports.pods.keys().cloned().collect();
        for name in names {
            if let Err(error) = programmed.apply_host_ports(&name) {
                // One pod that cannot be helped must not cost the others theirs.
                tracing::error!("{error}");
            }
        }
        programmed.tables.settle_host_ports(Instant::now());
        Ok(programmed.write(&self.kernel)?)
    }

    /// Has the node's ports lead to a pod; they do when this returns.
    ///
    /// # Errors
    /// There is no room, or the kernel refuses. [`remove_host_ports`](Self::remove_host_ports) is then to follow.
    pub fn add_host_ports(&self, attachment: &Attachment) -> Result<(), Error> {
        if attachment.host_ports.is_empty() {
            return Ok(());
        }
        let name = name_of(attachment);
        let mut programmed = self.lock();
        programmed.write_left(&self.kernel)?;
        programmed
            .host_ports
            .pods
            .insert(name.clone(), pod_of(attachment));
        programmed.host_ports.look()?;
        programmed.apply_host_ports(&name)?;
        let written = programmed.write(&self.kernel);
        drop(programmed);
        self.wake();
        Ok(written?)
    }

    /// The node's ports lead to this pod no longer; fine if they did not.
    ///
    /// # Errors
    /// The kernel refuses. It can be tried again.
    pub fn remove_host_ports(&self, attachment: &Attachment) -> Result<(), Error> {
        if attachment.host_ports.is_empty() {
            return Ok(());
        }
        self.remove(&name_of(attachment))
    }

    fn remove(&self, name: &services::Attachment) -> Result<(), Error> {
        let mut programmed = self.lock();
        programmed.write_left(&self.kernel)?;
        programmed.host_ports.pods.remove(name);
        programmed.apply_host_ports(name)?;
        let written = programmed.write(&self.kernel);
        drop(programmed);
        self.wake();
        Ok(written?)
    }

    /// Removes the host ports of pods that are not among these; names those.
    ///
    /// # Errors
    /// As [`remove_host_ports`](Self::remove_host_ports).
    pub fn collect_host_ports(&self, held: &[Attachment]) -> Result<Vec<String>, Error> {
        let held: BTreeSet<_> = held.iter().map(name_of).collect();
        let known: BTreeSet<_> = self.lock().host_ports.pods.keys().cloned().collect();
        let mut removed = Vec::new();
        for name in known.difference(&held) {
            self.remove(name)?;
            removed.push(format!("the host ports of {name}"));
        }
        Ok(removed)
    }

    /// The node's addresses may have changed.
    pub fn refresh_host_ports(&self) {
        let mut programmed = self.lock();
        if !programmed.host_ports.names_addresses() {
            return;
        }
        let mut refresh = || -> Result<(), Error> {
            let before = programmed.host_ports.node.clone();
            programmed.host_ports.look()?;
            if programmed.host_ports.node == before {
                return Ok(());
            }
            programmed.write_left(&self.kernel)?;
            let names: Vec<_> = programmed.host_ports.pods.keys().cloned().collect();
            for name in names {
                programmed.apply_host_ports(&name)?;
            }
            Ok(programmed.write(&self.kernel)?)
        };
        if let Err(error) = refresh() {
            tracing::error!(%error, "cannot bring all host ports to where the node's addresses are now");
        }
        drop(programmed);
        self.wake();
    }

    /// What of a pod's host ports is not in the kernel as it should be, in words.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn host_port_differences(&self, attachment: &Attachment) -> Result<Vec<String>, Error> {
        if attachment.host_ports.is_empty() {
            return Ok(Vec::new());
        }
        let wanted = {
            let mut programmed = self.lock();
            programmed.host_ports.look()?;
            let pod = pod_of(attachment);
            pod.compile(&name_of(attachment), &programmed.host_ports.node)
        };
        let mut differences = Vec::new();
        for port in wanted.ports {
            let place = |key| Place(key).of_host_port();
            for (frontend, backend) in port.frontends.iter().zip(&port.backends) {
                match self.leads_to(&frontend.key)? {
                    None => differences.push(format!("FRONTENDS has no row of {}", place(frontend.key))),
                    Some(found) if found != *backend => differences.push(format!(
                        "{} leads to {} instead of {}",
                        place(frontend.key),
                        named(&found),
                        named(backend)
                    )),
                    Some(_) => {}
                }
            }
        }
        Ok(differences)
    }

    /// The backend of a frontend that has one.
    fn leads_to(&self, key: &FrontendKey) -> Result<Option<Backend>, Error> {
        let tables = &self.kernel.datapath;
        let Some(row) = tables.frontends().get(key)? else {
            return Ok(None);
        };
        let one = |slab: Slab| -> Result<Backend, Error> {
            let ids = tables.slabs().get(slab.base())?.unwrap_or_default().backends;
            let id = if slab.len() == 1 { ids[0] } else { 0 };
            Ok(tables.backends().get(id)?.unwrap_or_default())
        };
        let (internal, external) = (one(row.internal)?, one(row.external)?);
        Ok(Some(if internal == external {
            internal
        } else {
            Backend::default()
        }))
    }

    /// Lets the programmer see to what is left, and to those who have lost something.
    fn wake(&self) {
        // Nobody listens any more only when the process ends.
        let _ = self.tell.send(Message::Wake);
    }
}

impl Programmed {
    /// Takes into the tables what a pod has of host ports now.
    fn apply_host_ports(&mut self, name: &services::Attachment) -> Result<(), Error> {
        let compiled = self.host_ports.pods.get_mut(name).map(|pod| {
            let compiled = pod.compile(name, &self.host_ports.node);
            if pod.problems != compiled.problems {
                compiled
                    .problems
                    .iter()
                    .for_each(|problem| tracing::warn!("{problem}"));
                pod.problems.clone_from(&compiled.problems);
            }
            compiled
        });
        let owner = Owner::Pod(name.clone());
        let applied = self.tables.apply(&owner, compiled.as_ref(), Instant::now());
        applied.map_err(Error::HostPorts)
    }
}

impl Pod {
    fn compile(&self, name: &services::Attachment, node: &BTreeSet<IpAddr>) -> Compiled {
        compile_host_ports(name, &self.addresses, &self.ports, node)
    }
}

fn pod_of(attachment: &Attachment) -> Pod {
    let port = |port: &tombolo_ipam::HostPort| HostPort {
        protocol: port.protocol,
        port: port.host_port,
        address: port.host_ip,
        container_port: port.container_port,
    };
    Pod {
        addresses: attachment.addresses.clone(),
        ports: attachment.host_ports.iter().map(port).collect(),
        problems: Vec::new(),
    }
}

fn name_of(attachment: &Attachment) -> services::Attachment {
    let pod = attachment.pod.as_ref();
    services::Attachment {
        container_id: attachment.owner.container_id.clone(),
        interface: attachment.owner.ifname.clone(),
        pod: pod.map(|pod| format!("{}/{}", pod.namespace, pod.name)),
    }
}

fn named(backend: &Backend) -> String {
    if backend.state != BackendState::Serving as u8 {
        return "nobody".to_owned();
    }
    SocketAddr::new(Addr::into(backend.address), u16::from_be(backend.port)).to_string()
}

/// All addresses that the node answers at.
fn node_addresses() -> Result<BTreeSet<IpAddr>, Error> {
    let mut netlink = Netlink::open()?;
    let links = netlink.links()?.into_iter();
    let of_pods: BTreeSet<u32> = links
        .filter(|link| link.name.starts_with(HOST_LINK_PREFIX))
        .map(|link| link.index)
        .collect();
    let addresses = netlink.addresses()?.into_iter();
    let own = addresses.filter(|a| !a.tentative && !of_pods.contains(&a.ifindex));
    Ok(own.map(|a| a.address.addr()).collect())
}
