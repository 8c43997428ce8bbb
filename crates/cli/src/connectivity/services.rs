//! The Services of a lab, as far as probes are behind them: where each is reached, and who may answer. Pure.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Service as Object, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use tombolo_probe::check::Protocol;

use super::cluster::{Kind, Party};

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// `svc/NAME`, with the namespace before the name where that is not `default`.
    pub name: String,
    /// Where it is reached.
    pub places: Vec<Place>,
}

/// An address and port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// What kind of address it is.
    pub by: By,
    /// The address and port.
    pub at: SocketAddr,
    /// How what is behind it is asked.
    pub protocol: Protocol,
    /// The traffic policy that counts there is Local.
    pub local: bool,
    /// The clients that are let in; empty: all are.
    pub source_ranges: Vec<IpNet>,
    /// Who may answer.
    pub backends: Vec<Backend>,
}

/// What kind of address it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// A cluster IP.
    ClusterIp,
    /// The node port, on the node of this name.
    NodePort(String),
    /// A load balancer's address.
    LoadBalancer,
}

/// A probe behind a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its address.
    pub address: IpAddr,
    /// Its node.
    pub node: Option<String>,
}

/// The Services whose endpoints, if there are any, are probes of the `parties`.
pub fn all(objects: &[Object], slices: &[EndpointSlice], parties: &[Party]) -> Vec<Service> {
    let mut services: Vec<Service> = objects
        .iter()
        .filter_map(|object| service(object, slices, parties))
        .collect();
    services.sort_by(|a, b| a.name.cmp(&b.name));
    services
}

fn service(object: &Object, slices: &[EndpointSlice], parties: &[Party]) -> Option<Service> {
    let spec = object.spec.as_ref()?;
    // Those without a selector lead to what is no pod, such as the API server.
    spec.selector.as_ref().filter(|selector| !selector.is_empty())?;
    let cluster_ips: Vec<IpAddr> = addresses(spec.cluster_ips.iter().flatten());
    let balancer = object.status.as_ref().and_then(|s| s.load_balancer.as_ref());
    let points = balancer.iter().flat_map(|b| b.ingress.iter().flatten());
    let balanced: Vec<IpAddr> = addresses(points.filter_map(|point| point.ip.as_ref()));
    let is_local = |policy: &Option<String>| policy.as_deref() == Some("Local");
    let ranges = spec.load_balancer_source_ranges.iter().flatten();
    let ranges: Vec<IpNet> = ranges.filter_map(|range| range.parse().ok()).collect();
    let mut places = Vec::new();
    for port in spec.ports.iter().flatten() {
        for &cluster_ip in &cluster_ips {
            let (protocol, backends) = behind(object, port, cluster_ip, slices, parties)?;
            let place = |by, address, port: i32, local| {
                let at = SocketAddr::new(address, u16::try_from(port).ok()?);
                Some(Place {
                    by,
                    at,
                    protocol,
                    local,
                    source_ranges: Vec::new(),
                    backends: backends.clone(),
                })
            };
            let internal = is_local(&spec.internal_traffic_policy);
            places.extend(place(By::ClusterIp, cluster_ip, port.port, internal));
            let external = is_local(&spec.external_traffic_policy);
            for node in parties.iter().filter(|party| party.kind == Kind::Node) {
                // The primary address of the family takes node ports.
                let primary = node
                    .addresses
                    .iter()
                    .find(|a| a.is_ipv4() == cluster_ip.is_ipv4());
                if let (Some(&address), Some(node_port)) = (primary, port.node_port) {
                    places.extend(place(
                        By::NodePort(node.name.clone()),
                        address,
                        node_port,
                        external,
                    ));
                }
            }
            for &address in balanced.iter().filter(|a| a.is_ipv4() == cluster_ip.is_ipv4()) {
                let balanced = place(By::LoadBalancer, address, port.port, external);
                places.extend(balanced.map(|place| Place {
                    source_ranges: ranges.clone(),
                    ..place
                }));
            }
        }
    }
    let name = match object.namespace().as_deref() {
        None | Some("default") => format!("svc/{}", object.name_any()),
        Some(namespace) => format!("svc/{namespace}/{}", object.name_any()),
    };
    (!places.is_empty()).then_some(Service { name, places })
}

/// How the endpoints of a port are asked, and who they are; none if one is no probe.
fn behind(
    object: &Object,
    port: &ServicePort,
    cluster_ip: IpAddr,
    slices: &[EndpointSlice],
    parties: &[Party],
) -> Option<(Protocol, Vec<Backend>)> {
    let name = object.name_any();
    let family = if cluster_ip.is_ipv4() { "IPv4" } else { "IPv6" };
    let of_service = slices.iter().filter(|slice| {
        slice.namespace() == object.namespace()
            && slice.labels().get("kubernetes.io/service-name") == Some(&name)
            && slice.address_type == family
    });
    let mut protocol = match port.protocol.as_deref() {
        None | Some("TCP") => Protocol::Tcp,
        Some("UDP") => Protocol::Udp,
        Some(_) => return None,
    };
    let mut backends = Vec::new();
    for slice in of_service {
        let named = slice
            .ports
            .iter()
            .flatten()
            .find(|p| p.name.as_deref().unwrap_or_default() == port.name.as_deref().unwrap_or_default());
        let number = named.and_then(|p| p.port);
        for endpoint in &slice.endpoints {
            if endpoint.conditions.as_ref().and_then(|c| c.ready) == Some(false) {
                continue;
            }
            let address = endpoint.addresses.first()?.parse().ok()?;
            let pod = parties
                .iter()
                .find(|p| p.kind == Kind::Pod && p.addresses.contains(&address))?;
            let is_echo = pod.ports.iter().any(|echo| Some(i32::from(*echo)) == number);
            if protocol == Protocol::Tcp && !is_echo {
                protocol = Protocol::Http;
            }
            backends.push(Backend {
                address,
                node: pod.node.clone(),
            });
        }
    }
    Some((protocol, backends))
}

/// What is no address (`None` of a headless Service) is left out.
fn addresses<'a>(texts: impl Iterator<Item = &'a String>) -> Vec<IpAddr> {
    texts.filter_map(|text| text.parse().ok()).collect()
}
