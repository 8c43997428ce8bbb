//! What a Service object asks for, read and checked.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service, ServicePort, ServiceSpec};

use super::{address, port_number, protocol_number};
use crate::compiled::HealthCheck;
use crate::{Family, ServiceName};

/// What the API says of `timeoutSeconds` where it is not given, in seconds.
const AFFINITY_TIMEOUT_DEFAULT: u32 = 10_800;

/// What a Service object asks for.
pub(super) struct Spec<'a> {
    /// At most one of each family. The Service has the families that these have.
    pub cluster_ips: Vec<IpAddr>,
    pub external_ips: Vec<IpAddr>,
    /// Those that packets still carry when they come here (`ipMode: VIP`).
    pub load_balancer_ips: Vec<IpAddr>,
    pub ports: Vec<PortSpec<'a>>,
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
    /// `externalTrafficPolicy: Local`.
    pub external_local: bool,
    /// Seconds; 0: no affinity.
    pub affinity_timeout: u32,
    /// `loadBalancerSourceRanges`, those that could be read.
    pub source_ranges: Vec<IpNet>,
    /// Whether one could not: it is not known whom it lets in, so it lets in nobody.
    unreadable_range: bool,
    health_check_port: Option<u16>,
}

/// A port of a Service.
pub(super) struct PortSpec<'a> {
    pub name: &'a str,
    pub protocol: u8,
    pub port: u16,
    pub node_port: Option<u16>,
}

/// Reads a Service; none where nothing is to be programmed.
pub(super) fn read<'a>(
    service: &'a Service,
    name: &ServiceName,
    problems: &mut Vec<String>,
) -> Option<Spec<'a>> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") || cluster_ip_texts(spec).is_empty() {
        return None;
    }
    let mut reader = Reader { name, problems };
    let cluster_ips = reader.cluster_ips(spec);
    let has = |a: &IpAddr| cluster_ips.iter().any(|c| c.is_ipv4() == a.is_ipv4());
    let is_load_balancer = spec.type_.as_deref() == Some("LoadBalancer");
    let ingress = service.status.as_ref().and_then(|s| s.load_balancer.as_ref());
    let ingress = ingress.and_then(|l| l.ingress.as_deref()).unwrap_or_default();
    let load_balancer_ips = ingress
        .iter()
        .filter(|_| is_load_balancer)
        .filter_map(vip)
        .filter_map(|ip| reader.address("status.loadBalancer.ingress", ip, &has))
        .collect();
    let external_ips = spec.external_ips.as_deref().unwrap_or_default();
    let external_ips = external_ips
        .iter()
        .filter_map(|ip| reader.address("externalIPs", ip, &has))
        .collect();
    let has_node_ports = is_load_balancer || spec.type_.as_deref() == Some("NodePort");
    let ports = spec.ports.as_deref().unwrap_or_default();
    let ports = ports
        .iter()
        .filter_map(|p| reader.port(p, has_node_ports))
        .collect();
    let external_local = spec.external_traffic_policy.as_deref() == Some("Local");
    let (source_ranges, unreadable_range) = reader.source_ranges(spec);
    Some(Spec {
        external_ips,
        load_balancer_ips,
        ports,
        internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        external_local,
        affinity_timeout: reader.affinity_timeout(spec),
        source_ranges,
        unreadable_range,
        health_check_port: (is_load_balancer && external_local)
            .then(|| reader.health_check_port(spec))
            .flatten(),
        cluster_ips,
    })
}

impl Spec<'_> {
    /// Whether clients of a family are held against the source ranges. Ranges of the other family do not limit them,
    /// as with kube-proxy.
    pub fn is_limited(&self, family: Family) -> bool {
        self.unreadable_range || self.source_ranges.iter().any(|r| Family::of(r.addr()) == family)
    }

    /// The answer to a load balancer.
    pub fn health_check(&self, local_endpoints: u32) -> Option<HealthCheck> {
        self.health_check_port.map(|port| HealthCheck {
            port,
            local_endpoints,
        })
    }
}

/// The cluster IPs as they are written; none for a headless Service, and before an address was given.
fn cluster_ip_texts(spec: &ServiceSpec) -> Vec<&str> {
    let all = spec.cluster_ips.as_deref().unwrap_or_default();
    let all = if all.is_empty() {
        spec.cluster_ip.as_slice()
    } else {
        all
    };
    let texts = all.iter().map(String::as_str);
    texts.filter(|t| !t.is_empty() && *t != "None").collect()
}

/// The address of a load balancer that leaves it in place (KEP-1860).
fn vip(ingress: &LoadBalancerIngress) -> Option<&str> {
    let ip = ingress.ip.as_deref().filter(|ip| !ip.is_empty())?;
    matches!(ingress.ip_mode.as_deref(), None | Some("VIP")).then_some(ip)
}

struct Reader<'p> {
    name: &'p ServiceName,
    problems: &'p mut Vec<String>,
}

impl Reader<'_> {
    fn problem(&mut self, what: &str) {
        self.problems.push(format!("Service {}: {what}", self.name));
    }

    fn cluster_ips(&mut self, spec: &ServiceSpec) -> Vec<IpAddr> {
        let families = spec.ip_families.as_deref().unwrap_or_default();
        let mut ips: Vec<IpAddr> = Vec::new();
        for (i, text) in cluster_ip_texts(spec).into_iter().enumerate() {
            let ip = match address::parse(text) {
                Ok(ip) => ip,
                Err(why) => {
                    self.problem(&format!("clusterIPs: {why}, and is left out"));
                    continue;
                }
            };
            let family = Family::of(ip);
            if !families.is_empty() && families.get(i).map(String::as_str) != Some(family.name()) {
                self.problem(&format!(
                    "clusterIPs: `{text}` has not the family at its place in ipFamilies, and is left out"
                ));
            } else if ips.iter().any(|other| Family::of(*other) == family) {
                self.problem(&format!(
                    "clusterIPs: `{text}` is a second {} address, and is left out",
                    family.name()
                ));
            } else {
                ips.push(ip);
            }
        }
        ips
    }

    fn address(&mut self, field: &str, text: &str, has: &impl Fn(&IpAddr) -> bool) -> Option<IpAddr> {
        match address::parse(text) {
            Ok(ip) if has(&ip) => return Some(ip),
            Ok(ip) => self.problem(&format!(
                "{field}: `{text}` is left out, since the Service has no {} cluster IP; see ipFamilies and ipFamilyPolicy",
                Family::of(ip).name()
            )),
            Err(why) => self.problem(&format!("{field}: {why}, and is left out")),
        }
        None
    }

    fn port<'a>(&mut self, port: &'a ServicePort, has_node_ports: bool) -> Option<PortSpec<'a>> {
        let name = port.name.as_deref().unwrap_or_default();
        let Some(protocol) = protocol_number(port.protocol.as_deref()) else {
            let protocol = port.protocol.as_deref().unwrap_or_default();
            self.problem(&format!(
                "port `{name}`: `{protocol}` is none of TCP, UDP and SCTP; the port is left out"
            ));
            return None;
        };
        let Some(number) = port_number(port.port) else {
            self.problem(&format!(
                "port `{name}`: {} is not within 1 to 65535; the port is left out",
                port.port
            ));
            return None;
        };
        let node_port = port.node_port.filter(|&p| has_node_ports && p != 0);
        if let Some(p) = node_port.filter(|&p| port_number(p).is_none()) {
            self.problem(&format!(
                "port `{name}`: nodePort {p} is not within 1 to 65535, and is left out"
            ));
        }
        Some(PortSpec {
            name,
            protocol,
            port: number,
            node_port: node_port.and_then(port_number),
        })
    }

    fn affinity_timeout(&mut self, spec: &ServiceSpec) -> u32 {
        if spec.session_affinity.as_deref() != Some("ClientIP") {
            return 0;
        }
        let config = spec
            .session_affinity_config
            .as_ref()
            .and_then(|c| c.client_ip.as_ref());
        match config.and_then(|c| c.timeout_seconds) {
            None => AFFINITY_TIMEOUT_DEFAULT,
            Some(seconds) => u32::try_from(seconds).ok().filter(|&s| s != 0).unwrap_or_else(|| {
                self.problem(&format!(
                    "sessionAffinityConfig: timeoutSeconds {seconds} is no time; it is taken as {AFFINITY_TIMEOUT_DEFAULT}"
                ));
                AFFINITY_TIMEOUT_DEFAULT
            }),
        }
    }

    fn source_ranges(&mut self, spec: &ServiceSpec) -> (Vec<IpNet>, bool) {
        let (mut ranges, mut unreadable) = (Vec::new(), false);
        for text in spec.load_balancer_source_ranges.iter().flatten() {
            match address::parse_range(text) {
                Ok(range) => ranges.push(range),
                Err(why) => {
                    self.problem(&format!("loadBalancerSourceRanges: {why}, and lets nobody in"));
                    unreadable = true;
                }
            }
        }
        ranges.sort();
        ranges.dedup();
        (ranges, unreadable)
    }

    fn health_check_port(&mut self, spec: &ServiceSpec) -> Option<u16> {
        let port = spec.health_check_node_port.and_then(port_number);
        if port.is_none() {
            self.problem("externalTrafficPolicy is Local, and there is no healthCheckNodePort: a load balancer cannot ask which nodes have endpoints");
        }
        port
    }
}
