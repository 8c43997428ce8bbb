//! The fabric: the network around the cluster, and the namespaces of all that hangs on it.
//!
//! The router's namespace has a bridge for each L2 segment, with the router's address, and a link to the
//! outside host. A node hangs on its segment's bridge by a veth pair, `eth0` on its side. Nobody but the
//! nodes is told where pods are.

use std::path::Path;

use std::net::IpAddr;

use ipnet::IpNet;
use tombolo_netlink::{Bridge, LinkChange, Namespace, Netlink, Route, Veth, sysctl};

use crate::error::Result;
use crate::mount_namespace::MountNamespace;
use crate::mounts;
use crate::place::{OUTSIDE, ROUTER};
use crate::plan::{ETHERNET_MTU, Node, Plan};
use crate::state::{LabDir, NODE_RUN, NODE_STATE};

/// The kernel's number for routes that an administrator made (rtnetlink(7), `RTPROT_STATIC`).
pub const STATIC: u8 = 4;

/// Makes all namespaces of the lab and joins them.
pub fn build(lab: &LabDir, plan: &Plan) -> Result<()> {
    let router = network(lab, ROUTER)?;
    router.run(|| {
        sysctl::write("net/ipv4/ip_forward", "1")?;
        sysctl::write("net/ipv6/conf/all/forwarding", "1")
    })??;
    let mut inside = Netlink::open_in(&router)?;
    let loopback = inside.require_link("lo")?.index;
    for address in &plan.api {
        inside.add_address(loopback, (*address).into())?;
    }
    for segment in &plan.segments {
        let name = bridge_name(segment.number);
        inside.add_bridge(&Bridge {
            name: &name,
            up: true,
            ..Bridge::default()
        })?;
        let index = inside.require_link(&name)?.index;
        for address in &segment.router {
            inside.add_address(index, *address)?;
        }
    }
    let outside = network(lab, OUTSIDE)?;
    let port = join(&mut inside, OUTSIDE, &outside, ETHERNET_MTU)?;
    for address in &plan.outside_gateway {
        inside.add_address(port, *address)?;
    }
    settle(&outside, &plan.outside, &plan.outside_gateway)?;
    for node in &plan.nodes {
        add_node(lab, plan, node, &mut inside)?;
    }
    Ok(())
}

/// A network namespace of the lab, with loopback up, in which addresses are usable at once.
fn network(lab: &LabDir, name: &str) -> Result<Namespace> {
    let namespace = Namespace::create(&lab.netns(name))?;
    namespace.run(|| {
        // Every address of the fabric is given once by plan: nothing to detect, nothing to wait for.
        for devices in ["all", "default"] {
            sysctl::write(&format!("net/ipv6/conf/{devices}/accept_dad"), "0")?;
        }
        Ok::<_, tombolo_netlink::Error>(())
    })??;
    Ok(namespace)
}

fn bridge_name(segment: u8) -> String {
    format!("segment{segment}")
}

/// Joins `namespace`, whose end is `eth0`, to the router, whose end is called `name`; returns the index of
/// that. Only the far end has the smaller MTU: what is too large for it is lost on its last hop, as on a
/// real wire.
fn join(router: &mut Netlink, name: &str, namespace: &Namespace, mtu: u32) -> Result<u32> {
    let index = router.add_veth(&Veth {
        name,
        peer_name: "eth0",
        peer_mtu: Some(mtu),
        peer_namespace: Some(namespace),
        ..Veth::default()
    })?;
    router.set_link(index, &up())?;
    Ok(index)
}

fn up() -> LinkChange {
    LinkChange {
        up: Some(true),
        ..LinkChange::default()
    }
}

/// Gives `eth0` its addresses and the way to everywhere else.
fn settle(namespace: &Namespace, addresses: &[IpNet], gateways: &[IpNet]) -> Result<()> {
    let mut inside = Netlink::open_in(namespace)?;
    let index = inside.require_link("eth0")?.index;
    inside.set_link(index, &up())?;
    for address in addresses {
        inside.add_address(index, *address)?;
    }
    for gateway in gateways {
        let everywhere = match gateway {
            IpNet::V4(_) => IpNet::new_assert([0; 4].into(), 0),
            IpNet::V6(_) => IpNet::new_assert([0u16; 8].into(), 0),
        };
        let gateway = Some(gateway.addr());
        inside.replace_route(&Route {
            gateway,
            ifindex: Some(index),
            protocol: STATIC,
            ..Route::new(everywhere)
        })?;
    }
    Ok(())
}

fn add_node(lab: &LabDir, plan: &Plan, node: &Node, router: &mut Netlink) -> Result<()> {
    let namespace = network(lab, &node.name)?;
    let bridge = router.require_link(&bridge_name(node.segment))?.index;
    let port = join(router, &node.name, &namespace, node.mtu)?;
    router.set_link(
        port,
        &LinkChange {
            master: Some(bridge),
            ..LinkChange::default()
        },
    )?;
    let gateways = plan
        .segment(node.segment)
        .map(|segment| segment.router.as_slice())
        .unwrap_or_default();
    let addresses: Vec<IpNet> = node
        .addresses
        .iter()
        .chain(&node.extra_addresses)
        .copied()
        .collect();
    settle(&namespace, &addresses, gateways)?;
    for address in node.all_addresses() {
        let on_link = gateways.iter().any(|gateway| gateway.contains(&address));
        // The router must know what a node with a smaller MTU can take, and the way to addresses beyond the
        // segment's prefix.
        if node.mtu < ETHERNET_MTU || !on_link {
            router.replace_route(&Route {
                ifindex: Some(bridge),
                mtu: Some(node.mtu),
                protocol: STATIC,
                ..Route::new(IpNet::from(address))
            })?;
        }
    }
    mount_namespace(lab, &node.name, &namespace)
}

/// A node's view of the files: those of this machine, with its own `/sys` (which shows its network
/// devices), `/sys/fs/bpf`, `/run/tombolo` and `/var/lib/tombolo`.
fn mount_namespace(lab: &LabDir, node: &str, network: &Namespace) -> Result<()> {
    let own = lab.node(node);
    MountNamespace::create(&lab.mountns(node), || {
        // A sysfs shows the network namespace of whoever mounts it.
        network.enter()?;
        let aside = own.join("cgroup");
        mounts::bind(Path::new("/sys/fs/cgroup"), &aside, true)?;
        mounts::mount_new(
            "sysfs",
            "sysfs",
            Path::new("/sys"),
            nix::mount::MsFlags::empty(),
            None,
        )?;
        mounts::relocate(&aside, Path::new("/sys/fs/cgroup"))?;
        mounts::bind(&lab.bpffs().join(node), Path::new("/sys/fs/bpf"), false)?;
        // Once `/run/tombolo` is the node's, the labs' folders below cannot be named any more, but their
        // mounts would still be held: the node's folder goes through a second place.
        mounts::bind(&own, Path::new(NODE_STATE), false)?;
        for mount in mounts::mounts()?.into_iter().rev() {
            if mount.target.starts_with("/run/tombolo/lab") {
                mounts::unmount_all(&mount.target)?;
            }
        }
        mounts::bind(&Path::new(NODE_STATE).join("run"), Path::new(NODE_RUN), false)?;
        mounts::bind(&Path::new(NODE_STATE).join("lib"), Path::new(NODE_STATE), false)
    })?;
    Ok(())
}

/// Routes to the pods that the router has while this lives, as a broader network would have that wants to
/// reach them: whether it can is then up to the nodes.
#[derive(Debug)]
pub struct PodRoutes {
    router: Namespace,
    routes: Vec<Route>,
}

impl PodRoutes {
    /// Tells the router that each of `blocks` is behind a node's address.
    ///
    /// # Errors
    /// If a route cannot be set; those set before it are taken back.
    pub fn announce(lab: &LabDir, blocks: &[(IpNet, IpAddr)]) -> Result<Self> {
        let mut announced = Self {
            router: Namespace::open(&lab.netns(ROUTER))?,
            routes: Vec::new(),
        };
        let mut inside = Netlink::open_in(&announced.router)?;
        for (block, node) in blocks {
            let route = Route {
                gateway: Some(*node),
                protocol: STATIC,
                ..Route::new(*block)
            };
            inside.replace_route(&route)?;
            announced.routes.push(route);
        }
        Ok(announced)
    }
}

impl Drop for PodRoutes {
    fn drop(&mut self) {
        // What cannot be taken back now goes with the lab.
        let Ok(mut inside) = Netlink::open_in(&self.router) else {
            return;
        };
        for route in &self.routes {
            let _ = inside.delete_route(route);
        }
    }
}
