//! The life of endpoints: made by ADD, removed by DEL.
//!
//! Everything here blocks, and several calls run at once; those about the same attachment take turns.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use tokio::sync::watch;
use tombolo_cni::agent::{self, AddRequest, AddResponse, Interface, PodRoute};
use tombolo_cni::error::{Error as CniError, code};
use tombolo_cni::{ContainerId, InterfaceName, host_link_name, invalid};
use tombolo_datapath::Datapath;
use tombolo_ipam::{AddressStore, Attachment, Error as StoreError, Family, Owner, PodRef, Request};
use tombolo_netlink::{Mac, Namespace, Netlink};

use crate::error::Error;
use crate::inside::Inside;
use crate::journal::Journal;
use crate::socket::Lock;
use crate::turns::Turns;
use crate::wiring::{PodLink, gateway};

/// How long an ADD waits for the node's settings, right after the agent's start.
const SETTINGS_DEADLINE: Duration = Duration::from_secs(5);

/// What pods are given besides their addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSettings {
    /// The MTU of new pods, in bytes of the IP packet.
    pub mtu: u16,
    /// Sources of what the node itself sends to its pods, at most one of each family.
    pub node_addresses: Vec<IpAddr>,
}

/// All endpoints of the node.
pub struct Endpoints {
    pub store: Arc<AddressStore>,
    pub datapath: Arc<Datapath>,
    pub journal: Journal,
    pub settings: watch::Receiver<Option<PodSettings>>,
    pub turns: Turns<Owner>,
    pub own_namespace: Namespace,
    /// Ends with the process, as the store does.
    pub _lock: Lock,
}

impl Endpoints {
    /// Connects a pod; blocks. On error, nothing of it is left.
    ///
    /// # Errors
    /// As the runtime is to hear it.
    pub fn add(&self, request: AddRequest) -> Result<AddResponse, CniError> {
        let owner = owner(&request.container_id, &request.if_name)?;
        let pod = self.open_namespace(Path::new(&request.netns))?;
        let settings = self.settings()?;
        let _turn = self.turns.take(&owner);
        thread::scope(|scope| {
            let inside = Inside::enter(scope, &pod, &owner.ifname);
            let mut host = Netlink::open().map_err(kernel)?;
            self.refuse_existing(&mut host, &inside, &owner)?;
            let wanted = self.wish(&owner, &request, &settings)?;
            self.journal
                .begin(&owner)
                .map_err(io("note that an ADD begins"))?;
            let made = self.make(&mut host, &pod, &inside, &wanted, &settings);
            if made.is_ok() || self.store.get(&owner).is_ok_and(|held| held.is_none()) {
                self.journal
                    .end(&owner)
                    .map_err(io("note that an ADD has ended"))?;
            }
            made
        })
    }

    fn make(
        &self,
        host: &mut Netlink,
        pod: &Namespace,
        inside: &Inside,
        wanted: &Request,
        settings: &PodSettings,
    ) -> Result<AddResponse, CniError> {
        let owner = &wanted.owner;
        // The disk takes as long as the kernel does: both work at once, and nobody is told before both are done.
        let pending = self.store.begin_allocate(wanted).map_err(store)?;
        let attachment = pending.value().clone();
        let host_name = host_link_name(&owner.container_id, &owner.ifname);
        let link = pod_link(&attachment, &host_name, settings);
        let made = link.create(host, pod);
        let wired = match &made {
            Ok(index) => self.wire(host, inside, &link, *index),
            Err(error) if error.errno() == Some(Errno::EEXIST) => Err(exists_already(owner, &host_name)),
            Err(error) => Err(kernel(error)),
        };
        let stored = pending.wait().map_err(store);
        let held = stored.is_ok();
        let Err(error) = wired.and(stored) else {
            return Ok(response(&attachment, host_name));
        };
        // A link that could not be made is somebody else's.
        let removed = if made.is_ok() {
            link.remove(host, &self.datapath)
        } else {
            Ok(())
        };
        let undone = removed.and_then(|()| {
            if held {
                self.store.release(owner)?;
            }
            Ok(())
        });
        if let Err(error) = undone {
            tracing::error!(%owner, %error, "a failed ADD could not be undone; the DEL that follows will try again");
        }
        Err(error)
    }

    /// Sets up both sides of a link: the pod's while the host's is completed.
    fn wire(
        &self,
        host: &mut Netlink,
        inside: &Inside,
        link: &PodLink<'_>,
        index: u32,
    ) -> Result<(), CniError> {
        link.open_host(host, &self.datapath, index)
            .map_err(|e| kernel(&e))?;
        inside.begin(link.addresses);
        let host_side = link.configure_host(host, index);
        inside
            .finish()
            .and(host_side)
            .and_then(|()| link.wait_running(host))
            .map_err(kernel)
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
            pod: pod_ref(request),
            mac: pod_mac(owner),
            mtu: settings.mtu,
            families: Family::ALL.into_iter().filter(has_block).collect(),
            addresses: request.requested_ips.clone(),
        })
    }

    /// Disconnects a pod and frees its addresses; blocks. Fine for whatever is gone.
    ///
    /// # Errors
    /// As the runtime is to hear it; what could not be removed is still there, and can be tried again.
    pub fn delete(&self, container_id: &str, if_name: &str) -> Result<(), CniError> {
        let owner = owner(container_id, if_name)?;
        let _turn = self.turns.take(&owner);
        self.remove(&owner).map_err(|error| match error {
            Error::Store(error) => store(error),
            error => kernel(&error),
        })
    }

    /// The same, for an attachment whose turn the caller has.
    pub fn remove(&self, owner: &Owner) -> Result<(), Error> {
        let host_name = host_link_name(&owner.container_id, &owner.ifname);
        let held = self.store.get(owner)?;
        let link = PodLink {
            host_name: &host_name,
            pod_name: &owner.ifname,
            mac: [0; 6],
            mtu: 0,
            addresses: held.as_ref().map_or(&[], |a| &a.addresses),
            node_addresses: &[],
        };
        link.remove(&mut Netlink::open()?, &self.datapath)?;
        self.store.release(owner)?;
        self.journal
            .end(owner)
            .map_err(Error::file("note the end of an ADD of", owner.to_string()))
    }

    /// Before anything is changed: CNI has ADD fail where the interface exists.
    fn refuse_existing(&self, host: &mut Netlink, inside: &Inside, owner: &Owner) -> Result<(), CniError> {
        if let Some(held) = self.store.get(owner).map_err(store)? {
            return Err(store(StoreError::AlreadyAllocated { held: Box::new(held) }));
        }
        let host_name = host_link_name(&owner.container_id, &owner.ifname);
        let on_host = host.link(&host_name).map_err(kernel)?.is_some();
        if inside.existed().map_err(kernel)? || on_host {
            return Err(exists_already(owner, &host_name));
        }
        Ok(())
    }

    fn open_namespace(&self, path: &Path) -> Result<Namespace, CniError> {
        let text = path.to_string_lossy();
        let unusable =
            |e: tombolo_netlink::Error| invalid("CNI_NETNS", &text, &format!("is not usable: {e}"));
        if !path.is_absolute() {
            return Err(invalid("CNI_NETNS", &text, "must be an absolute path"));
        }
        let pod = Namespace::open(path).map_err(unusable)?;
        if pod.same_as(&self.own_namespace).map_err(unusable)? {
            return Err(invalid(
                "CNI_NETNS",
                &text,
                "is the node's own namespace, not a pod's",
            ));
        }
        Ok(pod)
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

/// An attachment's link.
pub fn pod_link<'a>(
    attachment: &'a Attachment,
    host_name: &'a str,
    settings: &'a PodSettings,
) -> PodLink<'a> {
    PodLink {
        host_name,
        pod_name: &attachment.owner.ifname,
        mac: attachment.mac,
        mtu: attachment.mtu,
        addresses: &attachment.addresses,
        node_addresses: &settings.node_addresses,
    }
}

/// Six hexadecimal pairs joined by colons.
pub fn mac_text(mac: Mac) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

fn owner(container_id: &str, if_name: &str) -> Result<Owner, CniError> {
    ContainerId::parse(container_id).map_err(|rule| invalid("CNI_CONTAINERID", container_id, rule))?;
    InterfaceName::parse(if_name).map_err(|rule| invalid("CNI_IFNAME", if_name, rule))?;
    Ok(Owner {
        container_id: container_id.into(),
        ifname: if_name.into(),
    })
}

fn pod_ref(request: &AddRequest) -> Option<PodRef> {
    let (namespace, name) = request.pod_namespace.clone().zip(request.pod_name.clone())?;
    Some(PodRef {
        namespace,
        name,
        uid: request.pod_uid.clone(),
    })
}

/// Locally administered, unicast, and the same for the same attachment, as the name of its link is.
fn pod_mac(owner: &Owner) -> Mac {
    let name = host_link_name(&owner.container_id, &owner.ifname);
    let digits = name.trim_start_matches(tombolo_cni::HOST_LINK_PREFIX);
    let [_, _, a, b, c, d, e, f] = u64::from_str_radix(digits, 16).unwrap_or_default().to_be_bytes();
    [a & 0xfc | 0x02, b, c, d, e, f]
}

fn exists_already(owner: &Owner, host_name: &str) -> CniError {
    let ifname = &owner.ifname;
    CniError::new(
        code::EXISTS,
        format!("interface {ifname} exists in the pod, or its other side {host_name} on the node"),
        format!(
            "{owner}: a DEL must come between two ADDs, and nobody else may use these names; nothing was changed"
        ),
    )
}

fn response(attachment: &Attachment, host_name: String) -> AddResponse {
    let mtu = Some(attachment.mtu.into());
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
        routes,
    }
}

fn store(error: StoreError) -> CniError {
    let details = error.to_string();
    match error {
        StoreError::Exhausted { .. } | StoreError::AddressInUse { .. } => {
            CniError::new(code::NO_ADDRESS, "no address for the pod", details)
        }
        StoreError::NoBlock { .. } | StoreError::AddressResting { .. } => {
            CniError::new(code::TRY_AGAIN, "no address for the pod yet", details)
        }
        StoreError::NotInBlocks { .. } | StoreError::NothingRequested { .. } => CniError::new(
            code::INVALID_CONFIG,
            "the requested address cannot be had",
            details,
        ),
        StoreError::AlreadyAllocated { .. } => {
            CniError::new(code::EXISTS, "the attachment exists already", details)
        }
        _ => CniError::new(code::STORE, "the address store failed", details),
    }
}

fn kernel(error: impl ToString) -> CniError {
    CniError::new(
        code::KERNEL,
        "the pod's link could not be set up or removed",
        error.to_string(),
    )
}

fn io(what: &'static str) -> impl Fn(std::io::Error) -> CniError {
    move |error| {
        CniError::new(
            code::IO,
            format!("cannot {what}"),
            format!("{error}; see that the agent's state folder is writable"),
        )
    }
}
