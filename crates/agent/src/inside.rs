//! What is done inside a pod's namespace: by one thread, which enters it and ends there.

use std::net::IpAddr;
use std::sync::mpsc;
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tombolo_abi::GATEWAY_MAC;
use tombolo_datapath::netns_cookie;
use tombolo_netlink::{Error, LinkChange, Namespace, Netlink, Result, Route, sysctl};

use crate::fault::{self, Step};
use crate::wiring::gateway;

/// How long the kernel may take to make an address the pod's: a moment, unless it is very busy.
const LOCAL_DEADLINE: Duration = Duration::from_secs(5);

/// How often to look.
const LOCAL_LOOK: Duration = Duration::from_micros(200);

/// What there was before anything was done.
#[derive(Clone, Copy)]
pub struct Found {
    /// Whether there was an interface of that name.
    pub interface: bool,
    /// The cookie of the namespace.
    pub netns_cookie: u64,
}

/// A thread inside a pod's namespace. It ends when this goes.
pub struct Inside {
    addresses: mpsc::Sender<Vec<IpAddr>>,
    found: mpsc::Receiver<Found>,
    outcome: mpsc::Receiver<Result<()>>,
}

impl Inside {
    /// Sends a thread into the namespace, which looks around at once.
    pub fn enter<'scope>(
        scope: &'scope Scope<'scope, '_>,
        pod: &'scope Namespace,
        interface: &'scope str,
    ) -> Self {
        let (addresses, given) = mpsc::channel();
        let (found, to_found) = mpsc::channel();
        let (outcome, to_outcome) = mpsc::channel();
        scope.spawn(move || drop(outcome.send(work(pod, interface, &found, &given))));
        Self {
            addresses,
            found: to_found,
            outcome: to_outcome,
        }
    }

    /// What there was before anything was done.
    ///
    /// # Errors
    /// The namespace cannot be entered, or the kernel does not answer.
    pub fn found(&self) -> Result<Found> {
        match self.found.recv() {
            Ok(found) => Ok(found),
            // The thread has ended; it says why.
            Err(_) => Err(self.finish().err().unwrap_or_else(defect)),
        }
    }

    /// Has the interface, which is there now, set up with these addresses.
    pub fn begin(&self, addresses: &[IpAddr]) {
        // A thread that has ended says why in `finish`.
        let _ = self.addresses.send(addresses.to_vec());
    }

    /// Waits until it is set up.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn finish(&self) -> Result<()> {
        self.outcome.recv().unwrap_or_else(|_| Err(defect()))
    }
}

fn defect() -> Error {
    Error::Namespace {
        operation: "work inside".into(),
        source: std::io::Error::other("its thread has ended by a defect; please report it"),
    }
}

fn work(
    pod: &Namespace,
    interface: &str,
    found: &mpsc::Sender<Found>,
    addresses: &mpsc::Receiver<Vec<IpAddr>>,
) -> Result<()> {
    pod.enter()?;
    let mut netlink = Netlink::open()?;
    let netns_cookie = netns_cookie().map_err(|source| Error::Namespace {
        operation: "ask for the cookie of".into(),
        source,
    })?;
    let _ = found.send(Found {
        interface: netlink.link(interface)?.is_some(),
        netns_cookie,
    });
    match addresses.recv() {
        Ok(addresses) => configure(&mut netlink, interface, &addresses),
        // There is nothing to be done after all.
        Err(_) => Ok(()),
    }
}

/// Sets up the pod's side of its link; the calling thread is inside.
fn configure(netlink: &mut Netlink, interface: &str, addresses: &[IpAddr]) -> Result<()> {
    let link = netlink.require_link(interface)?;
    // Whoever answers router solicitations on this link is no router (CVE-2020-10749).
    sysctl::write(&format!("net/ipv6/conf/{interface}/accept_ra"), "0")?;
    let up = LinkChange {
        up: Some(true),
        ..LinkChange::default()
    };
    // Link-local addresses are of no use without L2, and only make noise.
    netlink.set_link(
        link.index,
        &LinkChange {
            ipv6_link_local: Some(false),
            ..up.clone()
        },
    )?;
    let loopback = netlink.require_link("lo")?;
    if !loopback.up {
        netlink.set_link(loopback.index, &up)?;
    }
    fault::at(Step::AddPodUp)?;
    for &address in addresses {
        let gateway = gateway(address);
        netlink.add_address(link.index, address.into())?;
        netlink.replace_neighbour(link.index, gateway, GATEWAY_MAC)?;
        let on_link = Route {
            ifindex: Some(link.index),
            ..Route::new(gateway.into())
        };
        netlink.replace_route(&on_link)?;
        netlink.replace_route(&Route {
            ifindex: Some(link.index),
            gateway: Some(gateway),
            onlink: true,
            ..Route::new(everything(gateway))
        })?;
    }
    fault::at(Step::AddPodConfigured)?;
    addresses
        .iter()
        .try_for_each(|&address| wait_local(netlink, address))
}

/// Waits until the kernel takes packets to an address of the pod for its own. It does so for IPv6 a moment
/// after the address was given, also without duplicate detection: that is left to a worker (addrconf).
/// Until then they are sent back out, or dropped.
fn wait_local(netlink: &mut Netlink, address: IpAddr) -> Result<()> {
    let deadline = Instant::now() + LOCAL_DEADLINE;
    while address.is_ipv6() && netlink.route_to(address)?.is_none_or(|way| !way.local) {
        if Instant::now() > deadline {
            let operation = format!("wait until {address} is the pod's");
            return Err(Error::Timeout {
                operation,
                deadline: LOCAL_DEADLINE,
            });
        }
        thread::sleep(LOCAL_LOOK);
    }
    Ok(())
}

/// The default route's destination, of an address's family.
fn everything(of: IpAddr) -> IpNet {
    if of.is_ipv4() {
        Ipv4Net::default().into()
    } else {
        Ipv6Net::default().into()
    }
}
