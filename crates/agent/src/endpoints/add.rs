//! ADD: everything or nothing.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use tombolo_cni::agent::{self, AddRequest, AddResponse, Interface, PodRoute};
use tombolo_cni::error::{Error as CniError, code};
use tombolo_cni::{HOST_LINK_PREFIX, host_link_name};
use tombolo_ipam::{Attachment, Error as StoreError, Family, HostPort, Owner, PodRef, Request};
use tombolo_netlink::{Mac, Namespace, Netlink};

use super::errors::{any, exists_already, kernel, store};
use super::{Endpoints, PodSettings, mac_text, owner, pod_link};
use crate::caller::Caller;
use crate::error::Error;
use crate::fault::{self, Step};
use crate::inside::Inside;
use crate::slow_path::Others;
use crate::wiring::{PodLink, gateway};

/// How long an ADD waits for the node's settings, right after the agent's start.
const SETTINGS_DEADLINE: Duration = Duration::from_secs(5);

/// What an ADD is to make.
struct Wanted<'a> {
    allocation: Request,
    /// Of the pod's network namespace.
    netns_cookie: u64,
    settings: &'a PodSettings,
    others: Others,
}

/// What an ADD has made, and has to undo should it fail.
#[derive(Default)]
struct Made {
    attachment: Option<Attachment>,
    link: bool,
}

impl Endpoints {
    /// Connects a pod; blocks. On error, and when the caller has gone meanwhile, nothing of it is left.
    ///
    /// # Errors
    /// As the runtime is to hear it.
    pub fn add(&self, request: AddRequest, caller: &Caller) -> Result<AddResponse, CniError> {
        let owner = owner(&request.container_id, &request.if_name)?;
        let pod = self.open_namespace(Path::new(&request.netns))?;
        let settings = self.settings()?;
        let _turn = self.turns.take(&owner);
        fault::at(Step::AddTurn)?;
        still_wanted(caller)?;
        thread::scope(|scope| {
            let inside = Inside::enter(scope, &pod, &owner.ifname);
            let mut host = Netlink::open().map_err(kernel)?;
            if self.is_released(&owner) {
                // What an earlier attachment of this name held is free by its record.
                self.remove(&owner).map_err(any)?;
            }
            let netns_cookie = self.refuse_existing(&mut host, &inside, &owner)?;
            let wanted = Wanted {
                allocation: self.wish(&owner, &request, &settings)?,
                netns_cookie,
                settings: &settings,
                others: Others::of_new(request.egress_limit),
            };
            let mut made = Made::default();
            let result = self
                .note(&owner)
                .and_then(|()| self.make(&mut host, &pod, &inside, &wanted, &mut made))
                // A DEL waits for this turn. If its runtime has given this ADD up before, that is seen here.
                .and_then(|response| still_wanted(caller).map(|()| response))
                .and_then(|response| self.conclude(&owner).map(|()| response).map_err(any))
                .and_then(|response| Ok(fault::at(Step::AddConcluded).map(|()| response)?));
            if result.is_err()
                && let Err(error) = self.undo(&mut host, &owner, &made)
            {
                tracing::error!(%owner, %error, "a failed ADD could not be undone; the DEL that follows will try again");
            }
            result
        })
    }

    /// From here on, an agent that is started after a kill undoes the ADD.
    fn note(&self, owner: &Owner) -> Result<(), CniError> {
        self.journal
            .begin(owner)
            .map_err(Error::file("note the begin of an ADD in", self.journal.folder()))
            .map_err(any)?;
        Ok(fault::at(Step::AddNoted)?)
    }

    fn make(
        &self,
        host: &mut Netlink,
        pod: &Namespace,
        inside: &Inside,
        wanted: &Wanted<'_>,
        made: &mut Made,
    ) -> Result<AddResponse, CniError> {
        let owner = &wanted.allocation.owner;
        // The disk takes as long as the kernel does: both work at once, and nobody is told before both are done.
        let pending = self.store.begin_allocate(&wanted.allocation).map_err(store)?;
        let attachment = made.attachment.insert(pending.value().clone());
        fault::at(Step::AddAddressesTaken)?;
        let host_name = host_link_name(&owner.container_id, &owner.ifname);
        let link = pod_link(attachment, &host_name, wanted.settings);
        let index = link.create(host, pod).map_err(|error| match error.errno() {
            Some(Errno::EEXIST) => exists_already(owner, &host_name),
            _ => kernel(error),
        })?;
        // A link that could not be made is somebody else's.
        made.link = true;
        fault::at(Step::AddLinkMade)?;
        self.wire(host, inside, &link, index, wanted.others)?;
        self.services.add_host_ports(attachment).map_err(any)?;
        fault::at(Step::AddHostPortsWritten)?;
        self.namespaces.add(attachment, wanted.netns_cookie);
        pending.wait().map_err(store)?;
        fault::at(Step::AddStored)?;
        Ok(response(attachment, host_name.clone()))
    }

    /// Sets up both sides of a link: the pod's while the host's is completed.
    fn wire(
        &self,
        host: &mut Netlink,
        inside: &Inside,
        link: &PodLink<'_>,
        index: u32,
        others: Others,
    ) -> Result<(), CniError> {
        link.open_host(host, &self.datapath, index, others)
            .map_err(|e| kernel(&e))?;
        inside.begin(link.addresses);
        let host_side = link
            .configure_host(host, index)
            .and_then(|()| Ok(fault::at(Step::AddNodeRouted)?));
        inside
            .finish()
            .and(host_side)
            .and_then(|()| link.wait_running(host))
            .and_then(|()| Ok(fault::at(Step::AddRunning)?))
            .map_err(kernel)
    }

    /// Takes back what was made, whatever of it there is. What the kernel refuses to give up costs nothing else its
    /// undoing, except the addresses: while it leads to them nobody else may get them, and by them the DEL that follows
    /// finds what is left.
    fn undo(&self, host: &mut Netlink, owner: &Owner, made: &Made) -> Result<(), Error> {
        self.namespaces.remove(owner);
        // Also when the store has failed: its very last step may have come true (see its errors).
        if let Some(attachment) = &made.attachment {
            let ports = self.services.remove_host_ports(attachment);
            let link = if made.link {
                let host_name = host_link_name(&owner.container_id, &owner.ifname);
                let settings = PodSettings::default();
                pod_link(attachment, &host_name, &settings).remove(host, &self.datapath)
            } else {
                Ok(())
            };
            ports.and(link)?;
            self.store.release(owner)?;
        }
        self.conclude(owner)
    }

    /// What to ask of the store.
    fn wish(&self, owner: &Owner, request: &AddRequest, settings: &PodSettings) -> Result<Request, CniError> {
        let blocks = self.store.blocks().map_err(store)?;
        if blocks.is_empty() {
            let details = "see that `tombolo operator` runs, and that the Network's pools are not used up";
            return Err(CniError::new(
                code::TRY_AGAIN,
                "this node has no block of pod addresses yet",
                details,
            ));
        }
        let has_block = |family: &Family| blocks.iter().any(|&b| Family::from(b) == *family);
        Ok(Request {
            owner: owner.clone(),
            netns: PathBuf::from(&request.netns),
            network: request.network.clone(),
            pod: pod_ref(request),
            mac: pod_mac(owner),
            mtu: settings.mtu,
            families: Family::ALL.into_iter().filter(has_block).collect(),
            addresses: request.requested_ips.clone(),
            host_ports: request.host_ports.iter().map(host_port).collect(),
        })
    }

    /// Before anything is changed: CNI has ADD fail where the interface exists. Gives the cookie of the pod's network
    /// namespace.
    fn refuse_existing(&self, host: &mut Netlink, inside: &Inside, owner: &Owner) -> Result<u64, CniError> {
        if let Some(held) = self.store.get(owner).map_err(store)? {
            return Err(store(StoreError::AlreadyAllocated { held: Box::new(held) }));
        }
        let host_name = host_link_name(&owner.container_id, &owner.ifname);
        let on_host = host.link(&host_name).map_err(kernel)?.is_some();
        let found = inside.found().map_err(kernel)?;
        if found.interface || on_host {
            return Err(exists_already(owner, &host_name));
        }
        Ok(found.netns_cookie)
    }

    /// Waits a while for the node's settings, which come soon after the agent's start.
    fn settings(&self) -> Result<PodSettings, CniError> {
        let deadline = Instant::now() + SETTINGS_DEADLINE;
        loop {
            if let Some(settings) = self.settings.borrow().clone() {
                return Ok(settings);
            }
            if Instant::now() > deadline {
                let details = "the agent has not read the Network and its NodeNetwork yet; `tombolo status` on this node, or the agent's log, says why";
                return Err(CniError::new(
                    code::TRY_AGAIN,
                    "this node is not ready for pods yet",
                    details,
                ));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The runtime follows an ADD that it has given up with a DEL, which may have found nothing yet.
fn still_wanted(caller: &Caller) -> Result<(), CniError> {
    if caller.is_gone() {
        let details = "its plugin has closed the connection; what was made is undone";
        return Err(CniError::new(
            code::TRY_AGAIN,
            "nobody waits for this ADD any more",
            details,
        ));
    }
    Ok(())
}

fn pod_ref(request: &AddRequest) -> Option<PodRef> {
    let (namespace, name) = request.pod_namespace.clone().zip(request.pod_name.clone())?;
    Some(PodRef {
        namespace,
        name,
        uid: request.pod_uid.clone(),
    })
}

/// As the store has it.
fn host_port(asked: &agent::HostPort) -> HostPort {
    HostPort {
        protocol: asked.protocol.number(),
        host_ip: asked.host_ip,
        host_port: asked.host_port,
        container_port: asked.container_port,
    }
}

/// Locally administered, unicast, and the same for the same attachment, as the name of its link is.
fn pod_mac(owner: &Owner) -> Mac {
    let name = host_link_name(&owner.container_id, &owner.ifname);
    let digits = name.trim_start_matches(HOST_LINK_PREFIX);
    let [_, _, a, b, c, d, e, f] = u64::from_str_radix(digits, 16).unwrap_or_default().to_be_bytes();
    [a & 0xfc | 0x02, b, c, d, e, f]
}

/// The routes that a pod gets.
pub fn pod_routes(attachment: &Attachment) -> Vec<PodRoute> {
    let mut routes = Vec::new();
    for &address in &attachment.addresses {
        let gateway = gateway(address);
        let default = if address.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
        routes.push(PodRoute {
            dst: gateway.into(),
            gw: None,
        });
        routes.extend(default.parse().map(|dst| PodRoute {
            dst,
            gw: Some(gateway),
        }));
    }
    routes
}

fn response(attachment: &Attachment, host_name: String) -> AddResponse {
    let mtu = Some(attachment.mtu.into());
    AddResponse {
        host_interface: Interface {
            name: host_name,
            mac: mac_text(tombolo_abi::GATEWAY_MAC),
            mtu,
        },
        pod_interface: Interface {
            name: attachment.owner.ifname.clone(),
            mac: mac_text(attachment.mac),
            mtu,
        },
        addresses: attachment
            .addresses
            .iter()
            .map(|&a| agent::Address {
                address: a.into(),
                gateway: Some(gateway(a)),
            })
            .collect(),
        routes: pod_routes(attachment),
    }
}
