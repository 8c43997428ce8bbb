//! The addresses and node ports that a Service is given.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::ServiceSpec;
use serde_json::Value;

use super::ranges::ServiceRanges;
use super::spec::{NONE, Questions, node_port};
use crate::admission::Refusal;
use crate::cause::Cause;

const FULL: &str = "range is full";

/// What a Service has for itself alone: what is held by being written in the object, and free as soon as it is not.
pub fn claims(service: &Value) -> Vec<String> {
    let spec = super::spec(service);
    let mut claims = Vec::new();
    if spec.needs_cluster_ip() {
        let ips = spec.ips().iter().filter_map(|ip| ip.parse().ok());
        claims.extend(ips.map(address_claim));
    }
    if spec.has_node_ports() {
        let ports: BTreeSet<i32> = spec.all_ports().iter().map(node_port).collect();
        claims.extend(ports.into_iter().filter(|port| *port != 0).map(port_claim));
    }
    if spec.needs_health_check() && spec.health_port() != 0 {
        claims.push(port_claim(spec.health_port()));
    }
    claims
}

fn address_claim(address: IpAddr) -> String {
    format!("address {address}")
}

fn port_claim(port: i32) -> String {
    format!("port {port}")
}

/// One Service's turn.
pub struct Allocation<'a> {
    ranges: &'a ServiceRanges,
    /// Whether another Service claims something.
    taken: &'a dyn Fn(&str) -> bool,
    /// The node ports that were given in this turn.
    given: BTreeSet<i32>,
}

impl<'a> Allocation<'a> {
    pub fn new(ranges: &'a ServiceRanges, taken: &'a dyn Fn(&str) -> bool) -> Self {
        Self {
            ranges,
            taken,
            given: BTreeSet::new(),
        }
    }

    /// Gives what the Service needs and does not have yet. What it no longer needs is not in `after` any more.
    pub fn run(mut self, before: Option<&ServiceSpec>, after: &mut ServiceSpec) -> Result<(), Refusal> {
        self.addresses(before, after)?;
        if after.has_node_ports() {
            match before {
                Some(before) => self.more_node_ports(before, after)?,
                None => self.first_node_ports(after)?,
            }
        }
        if after.needs_health_check() && !before.is_some_and(Questions::needs_health_check) {
            self.health_port(after)?;
        }
        Ok(())
    }

    fn addresses(&self, before: Option<&ServiceSpec>, after: &mut ServiceSpec) -> Result<(), Refusal> {
        if !after.needs_cluster_ip() || after.ips().first().is_some_and(|ip| ip == NONE) {
            return Ok(());
        }
        // A Service that has addresses keeps them: only a further family brings one more.
        let known = match before.filter(|before| before.needs_cluster_ip()) {
            Some(before) if before.is_headless() => return Ok(()),
            Some(before) => before.families().len(),
            None => 0,
        };
        let families = after.families().to_vec();
        for (i, family) in families.iter().enumerate().skip(known) {
            let asked = after.ips().get(i).cloned().unwrap_or_default();
            let address = self.address(family, &asked, after)?;
            let ips = after.cluster_ips.get_or_insert_default();
            match ips.get_mut(i) {
                Some(ip) => *ip = address,
                None => ips.push(address),
            }
        }
        after.cluster_ip = after.ips().first().cloned();
        Ok(())
    }

    /// An address of a family: the one that is asked for, or any.
    fn address(&self, family: &str, asked: &str, spec: &ServiceSpec) -> Result<String, Refusal> {
        let Some(range) = self.ranges.of(family) else {
            return Err(Refusal::Internal(format!(
                "there is no range of {family} addresses"
            )));
        };
        let is_free = |ip: IpAddr| !(self.taken)(&address_claim(ip));
        if asked.is_empty() {
            let free = ServiceRanges::free_address(range, is_free);
            let why = || Refusal::Internal(format!("failed to allocate a serviceIP: {FULL}"));
            return free.map(|ip| ip.to_string()).ok_or_else(why);
        }
        let refuse = |why: &str| {
            let detail = format!("failed to allocate IP {asked}: {why}");
            Err(invalid("spec.clusterIPs".to_owned(), spec.ips(), &detail))
        };
        match asked.parse() {
            Ok(ip) if !ServiceRanges::holds(range, ip) => refuse(&format!(
                "the provided IP ({ip}) is not in the valid range. The range of valid IPs is {range}"
            )),
            Ok(ip) if !is_free(ip) => refuse("provided IP is already allocated"),
            Ok(_) => Ok(asked.to_owned()),
            Err(_) => refuse("it is no IP address"),
        }
    }

    /// The node ports of a new Service: one for all protocols of a port.
    fn first_node_ports(&mut self, after: &mut ServiceSpec) -> Result<(), Refusal> {
        let asked: Vec<(i32, i32)> = after.all_ports().iter().map(|p| (p.port, node_port(p))).collect();
        let allocates = after.allocates_node_ports();
        let mut known: Vec<(i32, i32)> = Vec::new();
        for (i, port) in after.ports.iter_mut().flatten().enumerate() {
            if node_port(port) == 0 && !allocates {
                continue;
            }
            let of_this = |all: &[(i32, i32)]| {
                all.iter()
                    .find(|(p, n)| *p == port.port && *n != 0)
                    .map(|(_, n)| *n)
            };
            match of_this(&known) {
                Some(known) if node_port(port) == 0 || node_port(port) == known => {
                    port.node_port = Some(known)
                }
                Some(_) => self.take_port(i, node_port(port))?,
                None => {
                    let number = match of_this(&asked) {
                        Some(asked) => self.take_port(i, asked).map(|()| asked)?,
                        None => self.any_port("a nodePort")?,
                    };
                    port.node_port = Some(number);
                    known.push((port.port, number));
                }
            }
        }
        Ok(())
    }

    /// The node ports of a Service that may have some.
    fn more_node_ports(&mut self, before: &ServiceSpec, after: &mut ServiceSpec) -> Result<(), Refusal> {
        let own: BTreeSet<i32> = before.all_ports().iter().map(node_port).collect();
        let allocates = after.allocates_node_ports();
        for (i, port) in after.ports.iter_mut().flatten().enumerate() {
            match node_port(port) {
                0 if !allocates => {}
                0 => port.node_port = Some(self.any_port("a nodePort")?),
                asked if own.contains(&asked) || self.given.contains(&asked) => {}
                asked => self.take_port(i, asked)?,
            }
        }
        Ok(())
    }

    fn health_port(&mut self, after: &mut ServiceSpec) -> Result<(), Refusal> {
        let port = match after.health_port() {
            0 => self.any_port("a HealthCheck NodePort")?,
            asked => {
                let why = |why: String| {
                    let text = format!("failed to allocate requested HealthCheck NodePort {asked}: {why}");
                    Refusal::Internal(text)
                };
                self.take(asked).map_err(why)?;
                asked
            }
        };
        after.health_check_node_port = Some(port);
        Ok(())
    }

    /// The node port that the port number `index` asks for.
    fn take_port(&mut self, index: usize, asked: i32) -> Result<(), Refusal> {
        let field = format!("spec.ports[{index}].nodePort");
        self.take(asked).map_err(|why| invalid(field, asked, &why))
    }

    fn take(&mut self, asked: i32) -> Result<(), String> {
        let range = &self.ranges.node_ports;
        if !u16::try_from(asked).is_ok_and(|asked| range.contains(&asked)) {
            return Err(format!(
                "provided port is not in the valid range. The range of valid ports is {}-{}",
                range.start(),
                range.end()
            ));
        }
        if (self.taken)(&port_claim(asked)) || !self.given.insert(asked) {
            return Err("provided port is already allocated".to_owned());
        }
        Ok(())
    }

    fn any_port(&mut self, what: &str) -> Result<i32, Refusal> {
        let is_free = |port: u16| {
            let port = i32::from(port);
            !self.given.contains(&port) && !(self.taken)(&port_claim(port))
        };
        let free = self.ranges.free_node_port(is_free).map(i32::from);
        let port = free.ok_or_else(|| Refusal::Internal(format!("failed to allocate {what}: {FULL}")))?;
        self.given.insert(port);
        Ok(port)
    }
}

fn invalid(field: String, value: impl serde::Serialize, detail: &str) -> Refusal {
    Refusal::Invalid(vec![Cause::invalid(field, value, detail)])
}
