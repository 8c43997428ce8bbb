//! Whatever NodeNetworks there are, the compiled tables agree with a slow and obvious oracle.

#![allow(clippy::unwrap_used, reason = "what panics here fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use kube::api::ObjectMeta;
use proptest::prelude::*;
use tombolo_abi::{RouteKey, RouteKind, Way};
use tombolo_kube::{
    Layout, Network, NetworkSpec, NodeNetwork, NodeNetworkSpec, NodeNetworkStatus, Pool, Routing,
};
use tombolo_layout::{Desired, Input, KernelRoute, Local, LocalUplink, Reach, compile, reach_targets};

/// Claims are drawn from a space so small that conflicts are common: blocks of 10.0.0.0/24, addresses
/// of 172.20.0.0/28.
#[derive(Clone, Debug)]
struct Node {
    index: u32,
    blocks: Vec<(u8, u8)>,
    addresses: Vec<u8>,
    segment: bool,
    uplink_mtu: u32,
    age: i64,
}

fn node() -> impl Strategy<Value = Node> {
    let blocks = prop::collection::vec((any::<u8>(), 26u8..=30), 0..3);
    let addresses = prop::collection::vec(0u8..24, 0..3);
    (0u32..12, blocks, addresses, any::<bool>(), 1400u32..1600, 0i64..4).prop_map(
        |(index, blocks, addresses, segment, uplink_mtu, age)| Node {
            index,
            blocks,
            addresses,
            segment,
            uplink_mtu,
            age,
        },
    )
}

fn routing() -> impl Strategy<Value = Routing> {
    prop_oneof![Just(Routing::Auto), Just(Routing::Direct), Just(Routing::Vxlan)]
}

struct Cluster {
    network: Network,
    nodes: Vec<Node>,
    objects: Vec<NodeNetwork>,
}

impl Cluster {
    fn new(nodes: Vec<Node>, routing: Routing) -> Self {
        let spec = NetworkSpec {
            layout: Layout::Island,
            routing,
            pools: vec![Pool {
                cidr: "10.0.0.0/24".parse().unwrap(),
                block_size: 28,
            }],
            node_cidrs: vec!["172.20.0.0/28".parse().unwrap()],
            service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
            node_port_addresses: Vec::new(),
            load_balancer_pools: Vec::new(),
            mtu: None,
            overlay_port: 4789,
        };
        let objects = nodes.iter().enumerate().map(|(i, n)| object(i, n)).collect();
        Self {
            network: Network::new("cluster", spec),
            nodes,
            objects,
        }
    }

    fn compile(&self, i: usize) -> Result<Desired, tombolo_layout::Error> {
        let me = &self.nodes[i];
        let name = format!("n{i}");
        let owners = Oracle::new(&self.nodes).owner;
        let on_link = |address: IpAddr| {
            owners
                .get(&address)
                .is_some_and(|&o| self.nodes[o].segment == me.segment)
        };
        let reach = reach_targets(&name, &self.objects)
            .into_iter()
            .map(|a| {
                let gateway = (!on_link(a)).then_some(IpAddr::V4(Ipv4Addr::new(172, 20, 0, 200)));
                (a, Reach { ifindex: 2, gateway })
            })
            .collect();
        let uplink = LocalUplink {
            name: "eth0".into(),
            ifindex: 2,
            mtu: me.uplink_mtu,
            mac: [2; 6],
        };
        let addresses = me.addresses.iter().map(|&a| host(a)).collect();
        let local = Local {
            uplinks: vec![uplink],
            addresses,
            overlay_ifindex: Some(9),
            reach,
            services: true,
        };
        compile(&Input {
            node: &name,
            network: &self.network,
            nodes: &self.objects,
            local: &local,
        })
    }
}

fn host(a: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(172, 20, 0, a))
}

fn block((start, len): (u8, u8)) -> IpNet {
    IpNet::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, start)), len)
        .unwrap()
        .trunc()
}

fn object(i: usize, n: &Node) -> NodeNetwork {
    let seconds = format!("2026-01-01T00:00:0{}Z", n.age);
    NodeNetwork {
        metadata: ObjectMeta {
            name: Some(format!("n{i}")),
            creation_timestamp: Some(serde_json::from_value(seconds.into()).unwrap()),
            ..ObjectMeta::default()
        },
        spec: NodeNetworkSpec {
            index: n.index,
            blocks: n.blocks.iter().map(|&b| block(b)).collect(),
        },
        status: Some(NodeNetworkStatus {
            addresses: n.addresses.iter().map(|&a| host(a)).collect(),
            pod_mtu: (n.uplink_mtu - 50) as u16,
            ..NodeNetworkStatus::default()
        }),
    }
}

/// The oracle: for every single address, its owner, by going through the nodes from the oldest on.
struct Oracle {
    owner: BTreeMap<IpAddr, usize>,
    out: BTreeSet<usize>,
}

impl Oracle {
    fn new(nodes: &[Node]) -> Self {
        let mut order: Vec<usize> = (0..nodes.len()).collect();
        order.sort_by_key(|&i| (nodes[i].age, format!("n{i}")));
        let (mut owner, mut out, mut indexes) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        for i in order {
            let n = &nodes[i];
            let pods: Vec<IpAddr> = n.blocks.iter().flat_map(|&b| every_address(block(b))).collect();
            let once: BTreeSet<_> = pods.iter().collect();
            let taken = pods.iter().any(|a| owner.contains_key(a)) || once.len() != pods.len();
            if taken || n.index == 0 || indexes.contains(&n.index) {
                out.insert(i);
                continue;
            }
            indexes.insert(n.index);
            for a in pods {
                owner.insert(a, i);
            }
            for &a in n.addresses.iter().filter(|&&a| a < 16) {
                owner.entry(host(a)).or_insert(i);
            }
        }
        Self { owner, out }
    }
}

fn every_address(net: IpNet) -> Vec<IpAddr> {
    let IpNet::V4(net) = net else {
        unreachable!("this test draws IPv4 only")
    };
    (u32::from(net.network())..=u32::from(net.broadcast()))
        .map(|a| IpAddr::V4(a.into()))
        .collect()
}

/// The row that the datapath finds for an address, as it looks it up; and that no other one matches.
fn look_up(desired: &Desired, address: IpAddr) -> Option<tombolo_abi::Route> {
    let overlay_port = desired.overlay.as_ref().map_or(0, |overlay| overlay.port);
    assert_eq!(u16::from_be(desired.config.overlay_port), overlay_port);
    let lens = desired.config.prefix_lens.iter().take_while(|&&l| l != 0);
    let key = |len: u32| RouteKey {
        prefix_len: len,
        addr: tombolo_abi::Addr::from(address).masked(len),
    };
    let found: Vec<_> = lens.filter_map(|&l| desired.routes.get(&key(l.into()))).collect();
    assert!(found.len() <= 1, "{address} has more than one row: {found:?}");
    found.first().map(|r| **r)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_address_has_the_owner_of_the_oracle(nodes in prop::collection::vec(node(), 1..6), routing in routing()) {
        let cluster = Cluster::new(nodes, routing);
        let oracle = Oracle::new(&cluster.nodes);
        for i in 0..cluster.nodes.len() {
            let Ok(desired) = cluster.compile(i) else {
                prop_assert!(oracle.out.contains(&i), "n{i} is refused, and nothing is wrong with it");
                continue;
            };
            prop_assert!(!oracle.out.contains(&i), "n{i} takes part, and should not");
            let of_services = look_up(&desired, "10.96.3.4".parse().unwrap());
            prop_assert_eq!(of_services.map(|r| (r.kind, r.way)), Some((RouteKind::Services as u8, Way::Local as u8)));
            let pods = every_address("10.0.0.0/24".parse().unwrap());
            for address in pods.into_iter().chain((0..24).map(host)) {
                let row = look_up(&desired, address);
                let owner = oracle.owner.get(&address);
                match (row, owner) {
                    (Some(row), Some(&o)) => {
                        prop_assert_eq!(row.node, cluster.nodes[o].index, "{}", address);
                        prop_assert_eq!(row.way == Way::Local as u8, o == i, "{} at n{}", address, i);
                        let node = address.to_string().starts_with("172.");
                        prop_assert_eq!(row.kind == RouteKind::Node as u8, node, "{}", address);
                    }
                    // A node of which no address is known cannot be reached, nor by one that has none.
                    (None, Some(&o)) => {
                        let claims = |n: usize| oracle.owner.iter().any(|(a, &x)| x == n && a.to_string().starts_with("172."));
                        prop_assert!(o != i && !(claims(o) && claims(i)), "n{i} has no row for {address} of n{o}");
                    }
                    (Some(row), None) => prop_assert!(false, "{address} is nobody's, and has {row:?}"),
                    (None, None) => {}
                }
            }
        }
    }

    #[test]
    fn a_pair_agrees_on_its_way(nodes in prop::collection::vec(node(), 2..6), routing in routing()) {
        let cluster = Cluster::new(nodes, routing);
        let compiled: Vec<_> = (0..cluster.nodes.len()).map(|i| cluster.compile(i).ok()).collect();
        let way = |from: usize, to: usize| {
            let desired = compiled[from].as_ref()?;
            let index = cluster.nodes[to].index;
            let ways: BTreeSet<u8> = desired.routes.values().filter(|r| r.node == index).map(|r| r.way).collect();
            assert!(ways.len() <= 1, "n{from} reaches n{to} by {ways:?}");
            ways.first().copied()
        };
        for a in 0..cluster.nodes.len() {
            for b in 0..a {
                if let (Some(there), Some(back)) = (way(a, b), way(b, a)) {
                    prop_assert_eq!(there, back, "n{} and n{}", a, b);
                }
            }
        }
    }

    #[test]
    fn nothing_leads_back_to_this_node(nodes in prop::collection::vec(node(), 1..6), routing in routing()) {
        let cluster = Cluster::new(nodes, routing);
        for i in 0..cluster.nodes.len() {
            let Ok(desired) = cluster.compile(i) else { continue };
            for (key, row) in &desired.routes {
                let hop = IpAddr::from(row.next_hop);
                prop_assert!(!desired.addresses.contains(&hop), "{key:?} has this node as its next hop");
                prop_assert!(row.mtu <= desired.pod_mtu, "{key:?} carries more than this node's pods send");
            }
            for (destination, route) in &desired.kernel_routes {
                let own = desired.blocks.contains(destination);
                let nowhere = *route == KernelRoute::Unreachable;
                prop_assert!(nowhere || !own, "{destination} is this node's, and leaves it");
            }
        }
    }

    /// Objects come in any order; what is compiled is the same.
    #[test]
    fn order_does_not_matter(nodes in prop::collection::vec(node(), 1..6), routing in routing(), seed in any::<u64>()) {
        let mut cluster = Cluster::new(nodes, routing);
        let before: Vec<_> = (0..cluster.nodes.len()).map(|i| cluster.compile(i)).collect();
        let shift = seed as usize % cluster.objects.len();
        cluster.objects.rotate_left(shift);
        let after: Vec<_> = (0..cluster.nodes.len()).map(|i| cluster.compile(i)).collect();
        prop_assert_eq!(before, after);
    }
}
