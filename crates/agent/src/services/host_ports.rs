//! Host ports: ports of this node that lead to pods on it. They come with the pods, from the address store and not from
//! the API server, and are in the same tables as the frontends of Services.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use tombolo_abi::{Addr, Backend, BackendState, FrontendKey, Slab};
use tombolo_cni::HOST_LINK_PREFIX;
use tombolo_ipam::Attachment;
use tombolo_netlink::Netlink;
use tombolo_services::{
    self as services, Compiled, Error as Refusal, HostPort, Owner, Place, compile_host_ports,
};

use super::programmed::Programmed;
use super::{Message, Services};
use crate::error::Error;

/// The host ports of the node's pods.
#[derive(Default)]
pub struct HostPorts {
    pods: BTreeMap<services::Attachment, Pod>,
    /// The node's own addresses, as far as they matter: looked at when a pod names one.
    node: BTreeSet<IpAddr>,
    /// Pods whose host ports are not yet in the tables as they are to be at these addresses: there was no room, the
    /// kernel has refused, or nobody has come to it.
    pub behind: BTreeSet<services::Attachment>,
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

    /// Takes up a pod.
    fn insert(&mut self, name: services::Attachment, pod: Pod) {
        self.behind.insert(name.clone());
        self.pods.insert(name, pod);
    }

    /// Forgets a pod, whose host ports are to go.
    fn remove(&mut self, name: &services::Attachment) {
        self.behind.remove(name);
        self.pods.remove(name);
    }

    /// Looks at the node's addresses, if some pod names one. When they have changed, all pods are behind, whoever looks.
    fn look(&mut self) -> Result<(), Error> {
        if !self.pods.values().any(Pod::names_address) {
            return Ok(());
        }
        let node = node_addresses()?;
        if self.node != node {
            self.node = node;
            self.behind = self.pods.keys().cloned().collect();
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
                .insert(name_of(attachment), pod_of(attachment));
        }
        programmed.host_ports.look()?;
        programmed.write_left(&self.kernel)?;
        // One pod that cannot be helped must not cost the others theirs.
        programmed.catch_up();
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
        programmed.host_ports.insert(name.clone(), pod_of(attachment));
        programmed.host_ports.look()?;
        let refused = programmed.catch_up().remove(&name);
        let written = programmed.write(&self.kernel);
        drop(programmed);
        self.wake();
        refused.map_or(Ok(()), |why| Err(Error::HostPorts(why)))?;
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
        programmed.host_ports.remove(name);
        let gone = programmed.apply_host_ports(name);
        // There may be room now for those that there was none for.
        programmed.catch_up();
        let written = programmed.write(&self.kernel);
        drop(programmed);
        self.wake();
        gone.map_err(Error::HostPorts)?;
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

    /// The node's addresses may have changed. What could not be done is logged, and done later.
    pub fn refresh_host_ports(&self) {
        let mut programmed = self.lock();
        let mut refresh = || -> Result<bool, Error> {
            programmed.host_ports.look()?;
            if programmed.host_ports.behind.is_empty() {
                return Ok(false);
            }
            programmed.write_left(&self.kernel)?;
            programmed.catch_up();
            programmed.write(&self.kernel)?;
            Ok(true)
        };
        let refreshed = refresh();
        drop(programmed);
        match refreshed {
            Ok(false) => return,
            Ok(true) => {}
            Err(error) => {
                tracing::error!(%error, "cannot bring all host ports to where the node's addresses are now");
            }
        }
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
        let pod = pod_of(attachment);
        let node = if pod.names_address() {
            node_addresses()?
        } else {
            BTreeSet::new()
        };
        let wanted = pod.compile(&name_of(attachment), &node);
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
    /// Takes into the tables what pods that are behind have of host ports now. Gives those that there is no room for,
    /// which stay behind.
    pub fn catch_up(&mut self) -> BTreeMap<services::Attachment, Refusal> {
        let mut refused = BTreeMap::new();
        for name in std::mem::take(&mut self.host_ports.behind) {
            if let Err(why) = self.apply_host_ports(&name) {
                self.host_ports.behind.insert(name.clone());
                refused.insert(name, why);
            }
        }
        refused
    }

    /// Takes into the tables what a pod has of host ports now, and notes what is wrong with them.
    fn apply_host_ports(&mut self, name: &services::Attachment) -> Result<(), Refusal> {
        let Self {
            tables, host_ports, ..
        } = self;
        let owner = Owner::Pod(name.clone());
        let Some(pod) = host_ports.pods.get_mut(name) else {
            return tables.apply(&owner, None, Instant::now());
        };
        let compiled = pod.compile(name, &host_ports.node);
        let applied = tables.apply(&owner, Some(&compiled), Instant::now());
        let mut problems = compiled.problems;
        problems.extend(applied.as_ref().err().map(Refusal::to_string));
        pod.note(problems);
        applied
    }
}

impl Pod {
    fn compile(&self, name: &services::Attachment, node: &BTreeSet<IpAddr>) -> Compiled {
        compile_host_ports(name, &self.addresses, &self.ports, node)
    }

    /// Whether it has host ports at addresses that the node may or may not have.
    fn names_address(&self) -> bool {
        self.ports.iter().any(|port| port.fixed_address().is_some())
    }

    /// What is wrong with its host ports now; the log is told when that is news.
    fn note(&mut self, problems: Vec<String>) {
        if self.problems != problems {
            problems.iter().for_each(|problem| tracing::warn!("{problem}"));
            self.problems = problems;
        }
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
