//! A pod's link: a veth pair, born on both sides at once, without L2 beyond itself.
//!
//! ```text
//!   node                                          pod
//!   tmb<hash>  GATEWAY_MAC  ──────────────────▶  eth0  the pod's MAC
//!   route   <pod address> dev tmb<hash>           address  <pod address>/32, /128, no DAD
//!   neighbour <pod address> permanent             neighbour 169.254.1.1, fe80::1 permanent
//!   programs from_pod, to_pod                     default via 169.254.1.1, fe80::1
//! ```

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread;
use std::time::{Duration, Instant};

use tombolo_abi::{Addr, Endpoint, GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6, Hook};
use tombolo_datapath::Datapath;
use tombolo_netlink::{Link, LinkChange, Mac, Namespace, Netlink, Route, Veth, sysctl};

use crate::error::Error;
use crate::fault::{self, Step};
use crate::slow_path::Others;

/// How long the kernel may take to notice that both sides of a link are up: a moment, unless it is very busy.
const RUNNING_DEADLINE: Duration = Duration::from_secs(5);

/// How often to look.
const RUNNING_LOOK: Duration = Duration::from_millis(1);

/// The pods' IPv4 gateway.
pub const GATEWAY_IPV4: IpAddr = {
    let [a, b, c, d] = GATEWAY_V4;
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
};

/// The pods' IPv6 gateway.
pub const GATEWAY_IPV6: IpAddr = IpAddr::V6(Ipv6Addr::from_bits(u128::from_be_bytes(GATEWAY_V6)));

/// The gateway of an address.
pub const fn gateway(address: IpAddr) -> IpAddr {
    if address.is_ipv4() {
        GATEWAY_IPV4
    } else {
        GATEWAY_IPV6
    }
}

/// All of a pod's link.
#[derive(Debug)]
pub struct PodLink<'a> {
    /// The host side's name.
    pub host_name: &'a str,
    /// The pod side's name.
    pub pod_name: &'a str,
    /// The pod side's MAC address.
    pub mac: Mac,
    /// The MTU of both sides.
    pub mtu: u16,
    /// The pod's addresses.
    pub addresses: &'a [IpAddr],
    /// The sources of what the node itself sends to its pods, at most one of each family.
    pub node_addresses: &'a [IpAddr],
}

impl PodLink<'_> {
    /// Makes the two devices, both down. Nothing is made on error.
    ///
    /// # Errors
    /// The kernel refuses; `EEXIST` where either name is taken.
    pub fn create(&self, host: &mut Netlink, pod: &Namespace) -> tombolo_netlink::Result<u32> {
        host.add_veth(&Veth {
            name: self.host_name,
            mac: Some(GATEWAY_MAC),
            mtu: Some(self.mtu.into()),
            peer_name: self.pod_name,
            peer_mac: Some(self.mac),
            peer_mtu: Some(self.mtu.into()),
            peer_namespace: Some(pod),
            ..Veth::default()
        })
    }

    /// Switches the host's side on, with its rows and programs in place before any packet; also what is
    /// there already. The pod's side must come up after it: the kernel lets packets leave at once by the
    /// side that finds the other one up, and a while later by the other.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn open_host(
        &self,
        host: &mut Netlink,
        datapath: &Datapath,
        index: u32,
        others: Others,
    ) -> Result<(), Error> {
        let row = self.row(index, others);
        for &address in self.addresses {
            datapath.endpoints().insert(&Addr::from(address), &row)?;
        }
        fault::at(Step::AddRowsWritten)?;
        self.attach_one(Hook::FromPod, datapath, index, others)?;
        fault::at(Step::AddOneAttached)?;
        self.attach_one(Hook::ToPod, datapath, index, others)?;
        fault::at(Step::AddBothAttached)?;
        let up = LinkChange {
            up: Some(true),
            ipv6_link_local: Some(false),
            ..LinkChange::default()
        };
        host.set_link(index, &up)?;
        Ok(fault::at(Step::AddHostUp)?)
    }

    /// The row of the pod's addresses.
    pub fn row(&self, index: u32, others: Others) -> Endpoint {
        Endpoint {
            ifindex: index,
            mac: self.mac,
            mtu: self.mtu,
            flags: others.slow,
            ..Endpoint::default()
        }
    }

    /// Attaches the programs; fine if they are.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn attach(&self, datapath: &Datapath, index: u32, others: Others) -> Result<(), Error> {
        self.attach_one(Hook::FromPod, datapath, index, others)?;
        self.attach_one(Hook::ToPod, datapath, index, others)
    }

    /// (Router advertisements of pods are dropped by a program; `accept_ra` need not be set.)
    fn attach_one(&self, hook: Hook, datapath: &Datapath, index: u32, others: Others) -> Result<(), Error> {
        if others.ingress_qdisc {
            datapath.attach_beside(hook, self.host_name, index)?;
        } else {
            datapath.attach(hook, self.host_name, index)?;
        }
        Ok(())
    }

    /// Makes the host's side of a link whole that was set up before, by changing only what differs from what is
    /// found: pods that run, of which there may be hundreds, have all of it. Routes are left out.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn mend(
        &self,
        host: &mut Netlink,
        datapath: &Datapath,
        link: &Link,
        others: Others,
        neighbours: &BTreeSet<(u32, IpAddr, Mac)>,
    ) -> Result<(), Error> {
        if !link.up {
            self.open_host(host, datapath, link.index, others)?;
            return Ok(self.configure_host(host, link.index)?);
        }
        self.attach(datapath, link.index, others)?;
        for &address in self.addresses {
            if !neighbours.contains(&(link.index, address, self.mac)) {
                host.replace_neighbour(link.index, address, self.mac)?;
            }
        }
        Ok(())
    }

    /// Lets the node's own packets find the pod; the host's side is up.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn configure_host(&self, host: &mut Netlink, index: u32) -> tombolo_netlink::Result<()> {
        // What a pod sends was checked by its program. The larger of this and that of `all` counts, and a
        // strict one there would drop what a pod sends by way of a route that the kernel does not have.
        sysctl::write(&format!("net/ipv4/conf/{}/rp_filter", self.host_name), "2")?;
        for &address in self.addresses {
            host.replace_neighbour(index, address, self.mac)?;
        }
        self.route(host, index)
    }

    /// Waits until packets can leave by the host's side; the pod's is up.
    ///
    /// # Errors
    /// The kernel does not answer, or they cannot within some seconds.
    pub fn wait_running(&self, host: &mut Netlink) -> tombolo_netlink::Result<()> {
        let deadline = Instant::now() + RUNNING_DEADLINE;
        while !host.require_link(self.host_name)?.running {
            if Instant::now() > deadline {
                let operation = format!("wait until link {} runs", self.host_name);
                return Err(tombolo_netlink::Error::Timeout {
                    operation,
                    deadline: RUNNING_DEADLINE,
                });
            }
            thread::sleep(RUNNING_LOOK);
        }
        Ok(())
    }

    /// Sets the node's routes to the pod.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn route(&self, host: &mut Netlink, index: u32) -> tombolo_netlink::Result<()> {
        for route in self.routes(index) {
            host.replace_route(&route)?;
        }
        Ok(())
    }

    /// The node's routes to the pod.
    pub fn routes(&self, index: u32) -> impl Iterator<Item = Route> {
        self.addresses.iter().map(move |&address| Route {
            ifindex: Some(index),
            source: self
                .node_addresses
                .iter()
                .copied()
                .find(|n| n.is_ipv4() == address.is_ipv4()),
            ..Route::new(address.into())
        })
    }

    /// Takes it all away, the rows first, and the programs last, since without them the link would be
    /// open to everything. Fine for whatever is gone.
    ///
    /// # Errors
    /// The kernel refuses; the rest is done all the same.
    pub fn remove(&self, host: &mut Netlink, datapath: &Datapath) -> Result<(), Error> {
        let mut result = Ok(());
        let mut keep = |step: Result<(), Error>| {
            if result.is_ok() {
                result = step;
            }
        };
        for &address in self.addresses {
            keep(
                datapath
                    .endpoints()
                    .remove(&Addr::from(address))
                    .map(drop)
                    .map_err(Error::from),
            );
        }
        keep(fault::at(Step::DelRowsRemoved).map_err(Error::from));
        let deleted = host.delete_link(self.host_name);
        let gone = deleted.is_ok();
        keep(deleted.map(drop).map_err(Error::from));
        keep(fault::at(Step::DelLinkDeleted).map_err(Error::from));
        if gone {
            keep(datapath.detach(self.host_name).map_err(Error::from));
        }
        keep(fault::at(Step::DelDetached).map_err(Error::from));
        result
    }
}
