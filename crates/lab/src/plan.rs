//! What a lab consists of: its nodes, segments and addresses. Pure; made once, stored, never changed.
//!
//! The address plan is the same in every lab. Nothing of it leaves the lab's namespaces, so that labs do
//! not collide with each other nor with the machine's own network.
//!
//! | who | IPv4 | IPv6 |
//! | --- | --- | --- |
//! | segment `s` of the fabric | 172.20.`s`.0/24 | fd00:20:`s`::/64 |
//! | its router | 172.20.`s`.1 | fd00:20:`s`::1 |
//! | its nodes | 172.20.`s`.11 and on | fd00:20:`s`::11 and on |
//! | the API server | 172.20.255.1 | fd00:20:255::1 |
//! | the outside host | 198.51.100.10 (RFC 5737) | 2001:db8:100::10 (RFC 3849) |
//! | pods | 10.244.0.0/16, a /24 for each node | fd00:10:244::/48, a /112 for each node |
//! | Services | 10.96.0.0/16 | fd00:10:96::/112 |

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tombolo_kube::{NetworkSpec, Pool};

use crate::error::{Error, Result};
use crate::options::{Families, UpArgs};

/// The most segments: their numbers are the third byte of an IPv4 address, and 255 is the API server's.
const MAX_SEGMENTS: u8 = 250;
/// The most nodes on a segment, from .11 to .250.
const MAX_NODES_PER_SEGMENT: usize = 240;
/// The last part of the first node's address on a segment.
const FIRST_NODE: u16 = 11;
/// The MTU of Ethernet (RFC 894).
pub const ETHERNET_MTU: u32 = 1500;
/// The least that IPv6 allows (RFC 8200, section 5).
const LEAST_MTU: u32 = 1280;
/// The port of the API server on the fabric.
pub const API_PORT: u16 = 6443;

/// A lab.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Its name.
    pub name: String,
    /// The IP families of everything in it.
    pub families: Families,
    /// The cluster's Network.
    pub network: NetworkSpec,
    /// The L2 segments of the fabric.
    pub segments: Vec<Segment>,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The outside host's addresses.
    pub outside: Vec<IpNet>,
    /// The router's addresses towards the outside host.
    pub outside_gateway: Vec<IpNet>,
    /// The addresses of the API server on the fabric.
    pub api: Vec<IpAddr>,
}

/// An L2 segment: a bridge in the router's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Its number, from 1.
    pub number: u8,
    /// The router's addresses on it, with the segment's prefixes.
    pub router: Vec<IpNet>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name, as that of its Node.
    pub name: String,
    /// The number of the segment that it is on.
    pub segment: u8,
    /// Its addresses, one of each family, with the segment's prefixes.
    pub addresses: Vec<IpNet>,
    /// More addresses that its device has and that nothing else is told of.
    pub extra_addresses: Vec<IpNet>,
    /// The MTU of its device, in bytes of the IP packet.
    pub mtu: u32,
}

impl Plan {
    /// Lays out what the options ask for.
    ///
    /// # Errors
    /// [`Error::Options`] for what does not fit the address plan or names unknown nodes.
    pub fn new(options: &UpArgs) -> Result<Self> {
        let wrong = |text: String| Err(Error::Options(text));
        let (nodes, segments) = (usize::from(options.nodes), options.segments);
        if !(1..=MAX_SEGMENTS).contains(&segments) {
            return wrong(format!("--segments {segments}: choose 1 to {MAX_SEGMENTS}"));
        }
        let most = usize::from(segments) * MAX_NODES_PER_SEGMENT;
        if !(1..=most).contains(&nodes) {
            return wrong(format!(
                "--nodes {nodes}: choose 1 to {most} for {segments} segments"
            ));
        }
        let families = options.families;
        let mut plan = Self {
            name: options.name.clone(),
            families,
            network: NetworkSpec {
                layout: options.layout.into(),
                routing: options.routing.into(),
                pools: families.choose(
                    Pool {
                        cidr: net([10, 244, 0, 0], 16),
                        block_size: 24,
                    },
                    Pool {
                        cidr: net([0xfd00, 0x10, 0x244, 0, 0, 0, 0, 0], 48),
                        block_size: 112,
                    },
                ),
                node_cidrs: Vec::new(),
                service_cidrs: families.choose(
                    net([10, 96, 0, 0], 16),
                    net([0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0], 112),
                ),
                node_port_addresses: Vec::new(),
                load_balancer_pools: Vec::new(),
                mtu: options.pod_mtu,
                overlay_port: 4789,
            },
            segments: (1..=segments)
                .map(|number| Segment {
                    number,
                    router: segment_addresses(families, number, 1),
                })
                .collect(),
            nodes: (0..nodes)
                .map(|index| {
                    let segment = (index % usize::from(segments)) as u8 + 1;
                    let host = FIRST_NODE + (index / usize::from(segments)) as u16;
                    Node {
                        name: format!("node{}", index + 1),
                        segment,
                        addresses: segment_addresses(families, segment, host),
                        extra_addresses: Vec::new(),
                        mtu: ETHERNET_MTU,
                    }
                })
                .collect(),
            outside: families.choose(
                net([198, 51, 100, 10], 24),
                net([0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 0x10], 64),
            ),
            outside_gateway: families.choose(
                net([198, 51, 100, 1], 24),
                net([0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 1], 64),
            ),
            api: families.choose(
                [172, 20, 255, 1].into(),
                [0xfd00, 0x20, 0x255, 0, 0, 0, 0, 1].into(),
            ),
        };
        for (name, mtu) in &options.node_mtu {
            if !(LEAST_MTU..=ETHERNET_MTU).contains(mtu) {
                return wrong(format!(
                    "--node-mtu {name}={mtu}: choose {LEAST_MTU} to {ETHERNET_MTU}"
                ));
            }
            plan.node_mut(name)?.mtu = *mtu;
        }
        for (name, address) in &options.node_address {
            if !families.has(address.addr()) {
                return wrong(format!(
                    "--node-address {name}={address}: the lab is {families} only"
                ));
            }
            plan.node_mut(name)?.extra_addresses.push(*address);
        }
        plan.network.node_cidrs = plan.node_cidrs();
        for pool in &options.lb_pools {
            if !families.has(pool.addr()) {
                return wrong(format!("--lb-pool {pool}: the lab is {families} only"));
            }
            if let Some(range) = plan.ranges().find(|r| r.contains(pool) || pool.contains(r)) {
                return wrong(format!(
                    "--lb-pool {pool}: the lab itself uses {range}; choose another range"
                ));
            }
            plan.network.load_balancer_pools.push(pool.trunc());
        }
        Ok(plan)
    }

    /// The node of that name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == name)
    }

    fn node_mut(&mut self, name: &str) -> Result<&mut Node> {
        let known = self
            .nodes
            .iter()
            .map(|node| node.name.as_str())
            .collect::<Vec<_>>()
            .join(", ");
        let unknown = || Error::Options(format!("there is no node {name:?} among {known}"));
        self.nodes
            .iter_mut()
            .find(|node| node.name == name)
            .ok_or_else(unknown)
    }

    /// The segment of that number.
    pub fn segment(&self, number: u8) -> Option<&Segment> {
        self.segments.iter().find(|segment| segment.number == number)
    }

    /// The address of the Service `default/kubernetes`: the first that Services have.
    pub fn service_api(&self) -> Option<IpAddr> {
        self.network.service_cidrs.first()?.hosts().find(|ip| {
            // The subnet-router's anycast address (RFC 4291, section 2.6.1) is nobody's.
            *ip != self.network.service_cidrs[0].network()
        })
    }

    /// All ranges that are in use.
    fn ranges(&self) -> impl Iterator<Item = IpNet> {
        let network = &self.network;
        let pools = network.pools.iter().map(|pool| pool.cidr);
        let nets = [
            &network.node_cidrs,
            &network.service_cidrs,
            &network.load_balancer_pools,
            &self.outside,
        ];
        let nets = nets.into_iter().flatten().copied();
        pools
            .chain(nets)
            .chain(self.api.iter().map(|ip| IpNet::from(*ip)))
    }

    /// The segments' prefixes, and those extra addresses that lie in none of them.
    fn node_cidrs(&self) -> Vec<IpNet> {
        let mut cidrs: Vec<IpNet> = self
            .segments
            .iter()
            .flat_map(|segment| &segment.router)
            .map(IpNet::trunc)
            .collect();
        for extra in self.nodes.iter().flat_map(|node| &node.extra_addresses) {
            if !cidrs.iter().any(|cidr| cidr.contains(&extra.addr())) {
                cidrs.push(IpNet::from(extra.addr()));
            }
        }
        cidrs
    }
}

impl Node {
    /// The addresses without prefixes, extra ones last.
    pub fn all_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses
            .iter()
            .chain(&self.extra_addresses)
            .map(IpNet::addr)
    }
}

/// The addresses number `host` on a segment. IPv6 reads as IPv4 does: node .11 is ::11.
fn segment_addresses(families: Families, segment: u8, host: u16) -> Vec<IpNet> {
    let decimal_as_hex = |number: u16| u16::from_str_radix(&number.to_string(), 16).unwrap_or(number);
    families.choose(
        net([172, 20, segment, host as u8], 24),
        net(
            [
                0xfd00,
                0x20,
                decimal_as_hex(segment.into()),
                0,
                0,
                0,
                0,
                decimal_as_hex(host),
            ],
            64,
        ),
    )
}

fn net(address: impl Into<IpParts>, prefix: u8) -> IpNet {
    let address = address.into().0;
    IpNet::new_assert(address, prefix)
}

struct IpParts(IpAddr);

impl From<[u8; 4]> for IpParts {
    fn from(parts: [u8; 4]) -> Self {
        Self(Ipv4Addr::from(parts).into())
    }
}

impl From<[u16; 8]> for IpParts {
    fn from(parts: [u16; 8]) -> Self {
        Self(Ipv6Addr::from(parts).into())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: UpArgs,
    }

    fn plan(words: &str) -> Result<Plan> {
        Plan::new(&Command::parse_from(["up"].into_iter().chain(words.split_whitespace())).args)
    }

    fn texts(nets: &[IpNet]) -> Vec<String> {
        nets.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn nodes_take_turns_on_the_segments() {
        let plan = plan("--nodes 3 --segments 2 --families dual").unwrap();
        assert_eq!(
            texts(&plan.nodes[0].addresses),
            ["172.20.1.11/24", "fd00:20:1::11/64"]
        );
        assert_eq!(
            texts(&plan.nodes[1].addresses),
            ["172.20.2.11/24", "fd00:20:2::11/64"]
        );
        assert_eq!(
            texts(&plan.nodes[2].addresses),
            ["172.20.1.12/24", "fd00:20:1::12/64"]
        );
        assert_eq!(
            texts(&plan.network.node_cidrs),
            [
                "172.20.1.0/24",
                "fd00:20:1::/64",
                "172.20.2.0/24",
                "fd00:20:2::/64"
            ]
        );
    }

    #[test]
    fn an_ipv6_lab_has_no_ipv4() {
        let text = serde_json::to_string(&plan("--families v6 --segments 2").unwrap()).unwrap();
        assert!(
            !text.contains("172.") && !text.contains("10.244.") && !text.contains("198.51"),
            "{text}"
        );
    }

    #[test]
    fn every_address_is_given_once() {
        let plan = plan("--nodes 240 --segments 1 --families dual").unwrap();
        let all: Vec<IpAddr> = plan.nodes.iter().flat_map(Node::all_addresses).collect();
        assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), 480);
        assert!(
            plan.network
                .node_cidrs
                .iter()
                .all(|cidr| plan.api.iter().all(|api| !cidr.contains(api)))
        );
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for words in [
            "--nodes 0",
            "--nodes 241",
            "--segments 0",
            "--segments 251",
            "--node-mtu node9=1400",
            "--node-mtu node1=1279",
            "--node-mtu node1=9000",
            "--node-address node9=172.20.1.99/24",
            "--families v4 --node-address node1=fd00::1/64",
            "--families v4 --lb-pool fd00:99::/112",
            "--lb-pool 10.96.7.0/24",
            "--lb-pool 198.51.0.0/16",
            "--lb-pool 203.0.113.0/24 --lb-pool 203.0.113.128/25",
        ] {
            assert!(matches!(plan(words), Err(Error::Options(_))), "{words}");
        }
    }
}
