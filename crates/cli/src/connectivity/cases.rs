//! What is tried, and what must come of it, by the rules of the Kubernetes network model and of the island
//! layout. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::Serialize;
use tombolo_abi::{GATEWAY_V4, GATEWAY_V6};
use tombolo_probe::check::{Check, Protocol};

use super::cluster::{Cluster, Kind, Party};
use super::services::{By, Place};

/// How long an answer may take, in milliseconds.
const DEADLINE_MS: u64 = 5000;
/// How long to wait for the answer that must not come.
const SILENCE_MS: u64 = 700;
/// The largest datagram that IPv4 carries: 65,535 bytes less the headers of IP and UDP (or ICMP).
const LARGEST_DATAGRAM: usize = 65_507;
/// The MTU that is tried where the path has none of its own: loopback.
const ANY_MTU: u16 = 1500;

/// A rule that the cluster must keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Containers of one pod share a network namespace.
    Localhost,
    /// A pod reaches itself.
    Itself,
    /// Pod to pod on one node.
    SameNode,
    /// Pod to pod across nodes.
    OtherNode,
    /// Node to pod.
    NodeToPod,
    /// Pod to node.
    PodToNode,
    /// The address that a pod sees on itself.
    OwnAddress,
    /// Pod to the broader network.
    PodToOutside,
    /// The broader network to a pod.
    OutsideToPod,
    /// Pod to Service.
    PodToService,
    /// The broader network to a Service.
    OutsideToService,
}

impl Rule {
    /// All of them, in the order in which they are reported.
    pub const ALL: [Self; 11] = [
        Self::Localhost,
        Self::Itself,
        Self::SameNode,
        Self::OtherNode,
        Self::NodeToPod,
        Self::PodToNode,
        Self::OwnAddress,
        Self::PodToOutside,
        Self::OutsideToPod,
        Self::PodToService,
        Self::OutsideToService,
    ];
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Localhost => "containers of a pod talk over localhost",
            Self::Itself => "a pod reaches itself by its own address",
            Self::SameNode => "pods reach pods on their node, without NAT",
            Self::OtherNode => "pods reach pods on other nodes, without NAT",
            Self::NodeToPod => "nodes reach all pods, without NAT",
            Self::PodToNode => "pods reach all nodes, by each of their addresses, without NAT",
            Self::OwnAddress => "the address a pod sees on itself is the API's and the one its peers see",
            Self::PodToOutside => "pods reach the outside with their node's address (island)",
            Self::OutsideToPod => "nobody outside reaches a pod's address (island)",
            Self::PodToService => "pods reach Services by their cluster IPs, and backends see the pod",
            Self::OutsideToService => {
                "the outside reaches Services by node ports and load balancer addresses"
            }
        })
    }
}

/// What must come of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// An answer; the server saw the client's own address, and it is one of these.
    Untranslated(BTreeSet<IpAddr>),
    /// An answer; the server saw one of these instead of the client's own address.
    Translated(BTreeSet<IpAddr>),
    /// An answer of one of these servers; each saw a source of its set.
    Backend(BTreeMap<IpAddr, BTreeSet<IpAddr>>),
    /// A refusal, since there is no server.
    Refused,
    /// Nothing at all, not even a refusal.
    Nothing,
}

/// How large the payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Size {
    /// A few bytes.
    #[serde(rename = "small")]
    Small,
    /// A packet that fills the path's MTU, and that nobody may fragment.
    #[serde(rename = "mtu")]
    Mtu,
    /// As much as a datagram holds.
    #[serde(rename = "64k")]
    Large,
}

/// One thing that is tried.
#[derive(Clone, Debug)]
pub struct Case {
    /// The rule that it is about.
    pub rule: Rule,
    /// Who asks: an index of [`Cluster::parties`].
    pub source: usize,
    /// Who is asked.
    pub target: usize,
    /// How large the payload is.
    pub size: Size,
    /// How it is tried.
    pub check: Check,
    /// What must come of it.
    pub expect: Expect,
}

/// All cases of a cluster. The check's id is the case's index.
pub fn all(cluster: &Cluster) -> Vec<Case> {
    let mut cases = Vec::new();
    for source in 0..cluster.parties.len() {
        // Each source begins with another target, so that not all ask the same one at once.
        for step in 0..cluster.parties.len() {
            let target = (source + step) % cluster.parties.len();
            pair(cluster, source, target, &mut cases);
        }
    }
    for (index, case) in cases.iter_mut().enumerate() {
        case.check.id = index.to_string();
    }
    cases
}

fn pair(cluster: &Cluster, source: usize, target: usize, cases: &mut Vec<Case>) {
    let (from, to) = (&cluster.parties[source], &cluster.parties[target]);
    let own: BTreeSet<IpAddr> = from.addresses.iter().copied().collect();
    let rule = match (from.kind, to.kind) {
        (Kind::Pod, Kind::Pod) if source == target => {
            localhost(cluster, source, cases);
            Rule::Itself
        }
        (Kind::Pod, Kind::Pod) if from.node == to.node => Rule::SameNode,
        (Kind::Pod, Kind::Pod) => Rule::OtherNode,
        (Kind::Node, Kind::Pod) => Rule::NodeToPod,
        (Kind::Pod, Kind::Node) => Rule::PodToNode,
        (Kind::Pod, Kind::Outside) => Rule::PodToOutside,
        (Kind::Outside, Kind::Pod) => Rule::OutsideToPod,
        (Kind::Pod | Kind::Outside, Kind::Service) => {
            to_service(cluster, source, target, cases);
            return;
        }
        // Between nodes, and between nodes and the outside, nothing is Tombolo's; and nodes' own processes do not
        // reach Services yet.
        (Kind::Node | Kind::Outside, Kind::Node | Kind::Outside)
        | (Kind::Node, Kind::Service)
        | (Kind::Service, _) => return,
    };
    for address in &to.addresses {
        let expect = match rule {
            Rule::PodToOutside => Expect::Translated(cluster.node_addresses(from.node.as_deref())),
            Rule::OutsideToPod => Expect::Nothing,
            _ => Expect::Untranslated(own.clone()),
        };
        if rule == Rule::OutsideToPod && !own.iter().any(|own| own.is_ipv4() == address.is_ipv4()) {
            continue;
        }
        let port = to.ports.first().copied();
        let mtu = from.pod_mtu.min(to.pod_mtu);
        for (protocol, size) in forms(rule) {
            let check = check(protocol, size, *address, port, mtu, &expect);
            cases.push(Case {
                rule,
                source,
                target,
                size,
                check,
                expect: expect.clone(),
            });
        }
    }
}

/// Each place of a Service that is for such a client.
fn to_service(cluster: &Cluster, source: usize, target: usize, cases: &mut Vec<Case>) {
    let (from, to) = (&cluster.parties[source], &cluster.parties[target]);
    for place in cluster.service(target).iter().flat_map(|service| &service.places) {
        let rule = match (from.kind, &place.by) {
            (Kind::Pod, By::ClusterIp) => Rule::PodToService,
            (Kind::Outside, By::NodePort(_) | By::LoadBalancer) => Rule::OutsideToService,
            _ => continue,
        };
        if !has_family(from, place.at.ip()) {
            continue;
        }
        let expect = service_answers(cluster, from, place);
        let sizes: &[Size] = match (place.protocol, &expect) {
            (Protocol::Tcp | Protocol::Udp, Expect::Backend(_)) => &[Size::Small, Size::Mtu, Size::Large],
            _ => &[Size::Small],
        };
        let mtu = from.pod_mtu.min(to.pod_mtu);
        for &size in sizes {
            cases.push(Case {
                rule,
                source,
                target,
                size,
                check: check(
                    place.protocol,
                    size,
                    place.at.ip(),
                    Some(place.at.port()),
                    mtu,
                    &expect,
                ),
                expect: expect.clone(),
            });
        }
    }
}

/// Who may answer there, and what each may see of who asks: its address, but where the answer would not come back
/// by the node that has translated it.
fn service_answers(cluster: &Cluster, from: &Party, place: &Place) -> Expect {
    let own: BTreeSet<IpAddr> = from.addresses.iter().copied().collect();
    let ranges = &place.source_ranges;
    if !ranges.is_empty() && !own.iter().any(|a| ranges.iter().any(|r| r.contains(a))) {
        return Expect::Nothing;
    }
    if place.backends.is_empty() {
        return Expect::Refused;
    }
    let entry = match &place.by {
        By::ClusterIp => from.node.as_deref(),
        By::NodePort(node) => Some(node.as_str()),
        By::LoadBalancer => None,
    };
    let mut answers = BTreeMap::new();
    for backend in &place.backends {
        let here = backend.node.as_deref() == entry;
        let sources = match &place.by {
            By::ClusterIp | By::NodePort(_) if place.local && !here => continue,
            // A pod would take what comes from itself for its own.
            By::ClusterIp if own.contains(&backend.address) => [gateway(backend.address)].into(),
            By::NodePort(node) if !here => cluster.node_addresses(Some(node)),
            // Which node it is that it comes in by, the load balancer decides.
            By::LoadBalancer if !place.local => &own | &cluster.all_node_addresses(),
            By::ClusterIp | By::NodePort(_) | By::LoadBalancer => own.clone(),
        };
        answers.insert(backend.address, sources);
    }
    if answers.is_empty() {
        Expect::Nothing
    } else {
        Expect::Backend(answers)
    }
}

/// The pods' gateway.
fn gateway(of: IpAddr) -> IpAddr {
    if of.is_ipv4() {
        IpAddr::from(GATEWAY_V4)
    } else {
        IpAddr::from(GATEWAY_V6)
    }
}

/// The protocols and sizes that a rule is tried with.
fn forms(rule: Rule) -> impl Iterator<Item = (Protocol, Size)> {
    // What must get nothing gets nothing whatever its size, and each case waits for its silence.
    let sizes: &[Size] = if rule == Rule::OutsideToPod {
        &[Size::Small]
    } else {
        &[Size::Small, Size::Mtu, Size::Large]
    };
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp];
    protocols
        .into_iter()
        .flat_map(move |protocol| sizes.iter().map(move |size| (protocol, *size)))
}

/// Every other container of the pod, over both loopback addresses.
fn localhost(cluster: &Cluster, pod: usize, cases: &mut Vec<Case>) {
    let party: &Party = &cluster.parties[pod];
    let families = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    for address in families.into_iter().filter(|one| has_family(party, *one)) {
        for port in party.ports.iter().skip(1) {
            let expect = Expect::Untranslated([address].into());
            for (protocol, size) in forms(Rule::Localhost).filter(|(protocol, _)| *protocol != Protocol::Icmp)
            {
                let check = check(protocol, size, address, Some(*port), ANY_MTU, &expect);
                let case = Case {
                    rule: Rule::Localhost,
                    source: pod,
                    target: pod,
                    size,
                    check,
                    expect: expect.clone(),
                };
                cases.push(case);
            }
        }
    }
}

fn has_family(party: &Party, address: IpAddr) -> bool {
    party
        .addresses
        .iter()
        .any(|own| own.is_ipv4() == address.is_ipv4())
}

fn check(
    protocol: Protocol,
    size: Size,
    address: IpAddr,
    port: Option<u16>,
    mtu: u16,
    expect: &Expect,
) -> Check {
    let ip = if address.is_ipv4() { 20 } else { 40 };
    let transport = if protocol == Protocol::Tcp { 20 } else { 8 };
    Check {
        id: String::new(),
        protocol,
        address,
        port: port.filter(|_| protocol != Protocol::Icmp),
        size: match size {
            Size::Small => 64,
            Size::Mtu => usize::from(mtu).saturating_sub(ip + transport),
            Size::Large => LARGEST_DATAGRAM,
        },
        dont_fragment: size == Size::Mtu && protocol != Protocol::Tcp,
        deadline_ms: if *expect == Expect::Nothing {
            SILENCE_MS
        } else {
            DEADLINE_MS
        },
        source: None,
    }
}
