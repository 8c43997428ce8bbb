//! The rules, written anew, slowly and one by one, from
//! <https://kubernetes.io/docs/reference/networking/virtual-ips/>,
//! <https://kubernetes.io/docs/concepts/services-networking/service/> and the KEPs that they name; for one client and
//! one destination at a time, from the objects themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

/// What happens to a new connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes to one of these, and its client stays there for so many seconds (0: not).
    Goes(BTreeSet<(IpAddr, u16)>, u32),
    Refused,
    Dropped,
    /// Its destination is no Service's.
    Passes,
}

/// Who connects to what.
#[derive(Clone, Debug)]
pub struct Dial {
    pub client: IpAddr,
    /// Whether the client is a pod of this node, or the node itself.
    pub inside: bool,
    pub address: IpAddr,
    pub port: u16,
    pub udp: bool,
}

pub const NODE: &str = "node1";
pub const ZONE: &str = "a";

/// An address of this node that takes node ports, in each family.
pub fn own_addresses() -> [IpAddr; 2] {
    ["172.20.0.1".parse().unwrap(), "fd00:20::1".parse().unwrap()]
}

pub fn oracle(services: &[Service], slices: &[EndpointSlice], dial: &Dial) -> Fate {
    // "The older wins": so the oldest is asked first.
    let mut by_age: Vec<&Service> = services.iter().collect();
    by_age.sort_by_key(|s| {
        (
            s.metadata.creation_timestamp.clone().map(|t| t.0),
            s.metadata.name.clone(),
        )
    });
    for service in &by_age {
        if let Some(fate) = by_service(service, slices, dial) {
            return fate;
        }
    }
    // No Service has this port. An address that belongs to a Service refuses it.
    let whole = |s: &&Service| proxied(s) && owned_addresses(s).contains(&dial.address);
    if by_age.iter().any(whole) {
        Fate::Refused
    } else {
        Fate::Passes
    }
}

/// What a Service does with a connection, if it is for one of its ports.
fn by_service(service: &Service, slices: &[EndpointSlice], dial: &Dial) -> Option<Fate> {
    if !proxied(service) {
        return None;
    }
    let spec = service.spec.as_ref().unwrap();
    // A Service has the families of its cluster IPs.
    if !cluster_ips(service)
        .iter()
        .any(|ip| ip.is_ipv4() == dial.address.is_ipv4())
    {
        return None;
    }
    let protocol = if dial.udp { "UDP" } else { "TCP" };
    let is_type = |t: &str| spec.type_.as_deref() == Some(t);
    for port in spec
        .ports
        .iter()
        .flatten()
        .filter(|p| p.protocol.as_deref() == Some(protocol))
    {
        let at_port = i32::from(dial.port) == port.port;
        let by_cluster_ip = at_port && cluster_ips(service).contains(&dial.address);
        let by_load_balancer = at_port && load_balancer_ips(service).contains(&dial.address);
        let by_external_ip = at_port
            && spec
                .external_ips
                .iter()
                .flatten()
                .any(|ip| ip.parse() == Ok(dial.address));
        let by_node_port = (is_type("NodePort") || is_type("LoadBalancer"))
            && port.node_port == Some(dial.port.into())
            && own_addresses().contains(&dial.address);
        if !(by_cluster_ip || by_load_balancer || by_external_ip || by_node_port) {
            continue;
        }
        // loadBalancerSourceRanges: "if specified, traffic through the load balancer is restricted to these client IPs".
        if by_load_balancer
            && !let_in(
                spec.load_balancer_source_ranges.as_deref().unwrap_or_default(),
                dial.client,
            )
        {
            return Some(Fate::Dropped);
        }
        let endpoints = endpoints_of(
            service,
            slices,
            port.name.as_deref().unwrap(),
            protocol,
            dial.address.is_ipv4(),
        );
        let local = |policy: &Option<String>| policy.as_deref() == Some("Local");
        // "Internal" traffic is to the cluster IP. All other is "external", and that from inside the cluster is routed
        // as if by policy Cluster: it could go out and come back by a load balancer.
        let keeps_to_node = if by_cluster_ip {
            local(&spec.internal_traffic_policy)
        } else {
            local(&spec.external_traffic_policy) && !dial.inside
        };
        let usable = if keeps_to_node {
            usable_on_node(&endpoints)
        } else {
            usable_in_cluster(&endpoints)
        };
        if !usable.is_empty() {
            let affinity = spec.session_affinity.as_deref() == Some("ClientIP");
            let config = spec.session_affinity_config.clone().and_then(|c| c.client_ip);
            let timeout = config.and_then(|c| c.timeout_seconds).unwrap_or(10_800);
            let timeout = if affinity { timeout as u32 } else { 0 };
            return Some(Fate::Goes(
                usable.iter().map(|e| (e.address, e.port)).collect(),
                timeout,
            ));
        }
        // "When there are endpoints, but none on this node, packets are dropped."
        let elsewhere = !usable_in_cluster(&endpoints).is_empty();
        return Some(if elsewhere { Fate::Dropped } else { Fate::Refused });
    }
    None
}

/// Whether a Service has anything to proxy, and is ours to proxy.
pub fn proxied(service: &Service) -> bool {
    let labels = service.metadata.labels.clone().unwrap_or_default();
    let spec = service.spec.as_ref().unwrap();
    spec.type_.as_deref() != Some("ExternalName")
        && spec.cluster_ip.as_deref() != Some("None")
        && !labels.contains_key("service.kubernetes.io/service-proxy-name")
}

fn cluster_ips(service: &Service) -> Vec<IpAddr> {
    let spec = service.spec.as_ref().unwrap();
    spec.cluster_ips
        .iter()
        .flatten()
        .map(|ip| ip.parse().unwrap())
        .collect()
}

/// Those that stay in packets when they come here.
fn load_balancer_ips(service: &Service) -> Vec<IpAddr> {
    let is_load_balancer = service.spec.as_ref().unwrap().type_.as_deref() == Some("LoadBalancer");
    let status = service.status.clone().and_then(|s| s.load_balancer);
    let ingress = status.and_then(|l| l.ingress).unwrap_or_default();
    let vips = ingress
        .iter()
        .filter(|i| is_load_balancer && i.ip_mode.as_deref() != Some("Proxy"));
    vips.filter_map(|i| i.ip.as_ref()?.parse().ok()).collect()
}

/// The addresses that are nobody's but this Service's.
fn owned_addresses(service: &Service) -> Vec<IpAddr> {
    let families: Vec<bool> = cluster_ips(service).iter().map(IpAddr::is_ipv4).collect();
    let vips = load_balancer_ips(service).into_iter();
    let vips = vips.filter(|ip| families.contains(&ip.is_ipv4()) && !own_addresses().contains(ip));
    cluster_ips(service).into_iter().chain(vips).collect()
}

fn let_in(ranges: &[String], client: IpAddr) -> bool {
    let ranges: Vec<ipnet::IpNet> = ranges.iter().map(|r| r.parse().unwrap()).collect();
    let mut of_family = ranges
        .iter()
        .filter(|r| r.addr().is_ipv4() == client.is_ipv4())
        .peekable();
    of_family.peek().is_none() || of_family.any(|r| r.contains(&client))
}

/// An endpoint of one port.
#[derive(Clone, Debug)]
struct Known {
    address: IpAddr,
    port: u16,
    ready: bool,
    serving: bool,
    /// Ends, and serves until then.
    draining: bool,
    terminating: bool,
    local: bool,
    zones: Vec<String>,
    nodes: Vec<String>,
}

/// "There may be multiple EndpointSlice objects which must be joined to produce the full set of endpoints."
fn endpoints_of(
    service: &Service,
    slices: &[EndpointSlice],
    port: &str,
    protocol: &str,
    v4: bool,
) -> Vec<Known> {
    let mut all: Vec<Known> = Vec::new();
    for slice in slices {
        let labels = slice.metadata.labels.clone().unwrap_or_default();
        if labels.get("kubernetes.io/service-name") != service.metadata.name.as_ref()
            || labels.contains_key("service.kubernetes.io/headless")
            || (slice.address_type == "IPv4") != v4
        {
            continue;
        }
        for slice_port in slice.ports.iter().flatten() {
            if slice_port.name.as_deref() == Some(port) && slice_port.protocol.as_deref() == Some(protocol) {
                let number = slice_port.port.unwrap() as u16;
                all.extend(slice.endpoints.iter().map(|e| known(e, number)));
            }
        }
    }
    // In two slices at once: a pod that lives before one that ends, ready before not, serving before not, here before
    // elsewhere.
    let mut once: Vec<Known> = Vec::new();
    for endpoint in all {
        match once
            .iter_mut()
            .find(|o| (o.address, o.port) == (endpoint.address, endpoint.port))
        {
            None => once.push(endpoint),
            Some(other) => {
                let better = |e: &Known| (!e.terminating, e.ready, e.serving, e.local);
                if better(&endpoint) > better(other) {
                    *other = endpoint;
                }
            }
        }
    }
    once
}

fn known(endpoint: &Endpoint, port: u16) -> Known {
    // "A nil value should be interpreted as true", and for terminating as false.
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    let serving = conditions.serving.unwrap_or(true);
    let terminating = conditions.terminating.unwrap_or(false);
    let hints = endpoint.hints.clone().unwrap_or_default();
    Known {
        address: endpoint.addresses[0].parse().unwrap(),
        port,
        ready: conditions.ready.unwrap_or(true),
        serving,
        draining: serving && terminating,
        terminating,
        local: endpoint.node_name.as_deref() == Some(NODE),
        zones: hints.for_zones.into_iter().flatten().map(|z| z.name).collect(),
        nodes: hints.for_nodes.into_iter().flatten().map(|n| n.name).collect(),
    }
}

/// "Local" policy: ready endpoints of this node; if there are none, those that drain (KEP-1669).
fn usable_on_node(endpoints: &[Known]) -> Vec<Known> {
    let here: Vec<Known> = endpoints.iter().filter(|e| e.local).cloned().collect();
    let ready: Vec<Known> = here.iter().filter(|e| e.ready).cloned().collect();
    if !ready.is_empty() {
        return ready;
    }
    here.into_iter().filter(|e| e.draining).collect()
}

/// "Cluster" policy: ready endpoints, of which hints may leave out some; if there are none, those that drain.
fn usable_in_cluster(endpoints: &[Known]) -> Vec<Known> {
    let ready: Vec<Known> = endpoints.iter().filter(|e| e.ready).cloned().collect();
    if ready.is_empty() {
        return endpoints.iter().filter(|e| e.draining).cloned().collect();
    }
    // "If every endpoint has a node hint and one is for this node, use those; else the same with zones; else all."
    if ready.iter().all(|e| !e.nodes.is_empty()) {
        let mine: Vec<Known> = ready
            .iter()
            .filter(|e| e.nodes.iter().any(|n| n == NODE))
            .cloned()
            .collect();
        if !mine.is_empty() {
            return mine;
        }
    }
    if ready.iter().all(|e| !e.zones.is_empty()) {
        let mine: Vec<Known> = ready
            .iter()
            .filter(|e| e.zones.iter().any(|z| z == ZONE))
            .cloned()
            .collect();
        if !mine.is_empty() {
            return mine;
        }
    }
    ready
}

/// How many pods of this node are ready, by the addresses of the family that has more.
pub fn local_ready(service: &Service, slices: &[EndpointSlice]) -> u32 {
    let mut by_family: BTreeMap<bool, BTreeSet<IpAddr>> = BTreeMap::new();
    for ip in cluster_ips(service) {
        for port in service.spec.as_ref().unwrap().ports.iter().flatten() {
            let (name, protocol) = (port.name.as_deref().unwrap(), port.protocol.as_deref().unwrap());
            let endpoints = endpoints_of(service, slices, name, protocol, ip.is_ipv4());
            let here = endpoints.iter().filter(|e| e.local && e.ready).map(|e| e.address);
            by_family.entry(ip.is_ipv4()).or_default().extend(here);
        }
    }
    by_family.values().map(BTreeSet::len).max().unwrap_or(0) as u32
}
