//! A network around a cluster of several nodes: one segment with a bridge, the API server on it, and an outside
//! host behind it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde_json::json;
use tombolo_netlink::{Bridge, LinkChange, Route, Veth};
use tombolo_testkit::{Server, TestNamespace};

use super::{Api, Node};

/// Where agents reach the API server, and the nodes' way to everywhere.
const ROUTER: [&str; 2] = ["172.20.0.1/16", "fd00:20::1/32"];

/// Where the outside host is (RFC 5737, RFC 3849).
pub const OUTSIDE: [&str; 2] = ["198.51.100.10", "2001:db8:100::10"];

/// The bridge.
const SEGMENT: &str = "segment";

/// The network and what is on it.
pub struct Fabric {
    pub router: Arc<TestNamespace>,
    pub api: Arc<Api>,
}

impl Fabric {
    /// A network without nodes, and a Network with this routing.
    pub fn new(routing: &str) -> Self {
        let router = TestNamespace::new("router");
        let mut netlink = router.netlink();
        let bridge = Bridge {
            name: SEGMENT,
            mac: Some([2, 0, 0, 0, 0, 1]),
            up: true,
            ..Bridge::default()
        };
        let index = netlink.add_bridge(&bridge).unwrap();
        for address in ROUTER {
            netlink.add_address(index, address.parse().unwrap()).unwrap();
        }
        let loopback = netlink.require_link("lo").unwrap().index;
        for address in OUTSIDE {
            let address: IpAddr = address.parse().unwrap();
            netlink.add_address(loopback, address.into()).unwrap();
        }
        let api = Api::serve(&router, "172.20.0.1");
        api.create_network(&json!({ "routing": routing }));
        Self {
            router: Arc::new(router),
            api: Arc::new(api),
        }
    }

    /// Node number `index`, with its NodeNetwork and its agent, which is ready: addresses .index.11.
    pub fn node(&self, index: u32) -> Node {
        let name = format!("node-{index}");
        let blocks = [
            format!("10.244.{index}.0/24"),
            format!("fd00:10:244::{index}:0/112"),
        ];
        self.api
            .create_node(&name, index, &blocks.each_ref().map(String::as_str));
        let mut node = self.machine(&name, &format!("port{index}"), &addresses(index, 11));
        node.start_agent();
        node.wait_ready();
        node
    }

    /// A machine at a port of the bridge, with these addresses and no agent yet.
    pub fn machine(&self, name: &str, port: &str, addresses: &[String; 2]) -> Node {
        let namespace = TestNamespace::new(name);
        let node = Node::with(name, namespace, self.router.clone(), self.api.clone());
        self.plug(port, &node, "eth0");
        node.settle("eth0", addresses);
        node
    }

    /// Joins a machine's new uplink to a new port of the bridge.
    pub fn plug(&self, port: &str, node: &Node, uplink: &str) {
        let mut router = self.router.netlink();
        // The other end of an uplink that is gone goes some time after it.
        router.delete_link(port).unwrap();
        let segment = router.require_link(SEGMENT).unwrap().index;
        let veth = Veth {
            name: port,
            peer_name: uplink,
            peer_namespace: Some(node.namespace.namespace()),
            ..Veth::default()
        };
        let index = router.add_veth(&veth).unwrap();
        let joined = LinkChange {
            up: Some(true),
            master: Some(segment),
            ipv6_link_local: Some(false),
            ..LinkChange::default()
        };
        router.set_link(index, &joined).unwrap();
    }

    /// A server of the outside host.
    pub fn outside_server(&self, v4: bool) -> Server {
        let address: IpAddr = OUTSIDE[usize::from(!v4)].parse().unwrap();
        Server::start(&self.router, SocketAddr::new(address, 0))
    }
}

/// Addresses number `host` of node `index`, with the segment's prefixes.
pub fn addresses(index: u32, host: u32) -> [String; 2] {
    [
        format!("172.20.{index}.{host}/16"),
        format!("fd00:20::{index}:{host}/32"),
    ]
}

impl Node {
    /// Brings an uplink up, gives it addresses, and makes it the way to everywhere.
    pub fn settle(&self, uplink: &str, addresses: &[String; 2]) {
        // Addresses are given once, and can be used at once. (The link-local one, neighbour discovery needs.)
        self.namespace
            .sysctl(&format!("net/ipv6/conf/{uplink}/accept_dad"), "0");
        let mut netlink = self.namespace.netlink();
        let index = netlink.require_link(uplink).unwrap().index;
        let up = LinkChange {
            up: Some(true),
            ..LinkChange::default()
        };
        netlink.set_link(index, &up).unwrap();
        for address in addresses {
            netlink.add_address(index, address.parse().unwrap()).unwrap();
        }
        self.default_routes(uplink);
    }

    /// Makes an uplink the way to everywhere.
    pub fn default_routes(&self, uplink: &str) {
        let mut netlink = self.namespace.netlink();
        let index = netlink.require_link(uplink).unwrap().index;
        for (everywhere, router) in ["0.0.0.0/0", "::/0"].into_iter().zip(ROUTER) {
            let router: ipnet::IpNet = router.parse().unwrap();
            let route = Route {
                ifindex: Some(index),
                gateway: Some(router.addr()),
                protocol: 4,
                ..Route::new(everywhere.parse().unwrap())
            };
            netlink.replace_route(&route).unwrap();
        }
    }

    /// Gives an uplink other addresses, as DHCP does: the old ones are gone before the new ones are there.
    pub fn renumber(&self, uplink: &str, old: &[String; 2], new: &[String; 2]) {
        let mut netlink = self.namespace.netlink();
        let index = netlink.require_link(uplink).unwrap().index;
        for address in old {
            assert!(netlink.delete_address(index, address.parse().unwrap()).unwrap());
        }
        self.settle(uplink, new);
    }
}
