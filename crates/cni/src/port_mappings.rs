//! `runtimeConfig.portMappings`: the host ports that the runtime wants for the pod (CNI CONVENTIONS, "portMappings").
//!
//! Keys are read in any case: containerd writes `HostPort`, CRI-O `hostPort`, and plugins written in Go take both.

use std::net::IpAddr;
use std::num::NonZeroU16;

use serde_json::Value;

use crate::agent::{HostPort, Protocol};

/// Reads the list. What has no host port is left out, as the reference plugin does; of those that say the same,
/// the one at most addresses stays.
///
/// # Errors
/// What is wrong, for a person.
pub fn parse(value: &Value) -> Result<Vec<HostPort>, String> {
    let list = value
        .as_array()
        .ok_or_else(|| format!("\"portMappings\" is {value} and must be a list"))?;
    let mut ports: Vec<HostPort> = Vec::new();
    for mapping in list {
        let Some(port) = one(mapping).map_err(|why| format!("the port mapping {mapping}: {why}"))? else {
            continue;
        };
        let mut same = ports.iter().filter(|other| other.is_at(&port));
        if let Some(other) = same.find(|other| other.container_port != port.container_port) {
            return Err(format!(
                "host port {port} is asked for twice, for the pod's ports {} and {}",
                other.container_port, port.container_port
            ));
        }
        if !ports.iter().any(|other| other.covers(&port)) {
            // One at all addresses of a family must not stand for one at all addresses.
            ports.retain(|other| !port.covers(other));
            ports.push(port);
        }
    }
    Ok(ports)
}

/// One mapping; none without a host port.
fn one(mapping: &Value) -> Result<Option<HostPort>, String> {
    if !mapping.is_object() {
        return Err("must be an object".to_owned());
    }
    let Some(host_port) = port(mapping, "hostPort")? else {
        return Ok(None);
    };
    let container_port = port(mapping, "containerPort")?.ok_or("\"containerPort\" must be 1 to 65535")?;
    let text = |key| match field(mapping, key) {
        None => Ok(""),
        Some(value) => value
            .as_str()
            .ok_or_else(|| format!("{key:?} is {value} and must be a text")),
    };
    let protocol = match text("protocol")?.to_ascii_lowercase().as_str() {
        "" | "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        other => return Err(format!("\"protocol\" is {other:?} and must be tcp, udp or sctp")),
    };
    let host_ip = match text("hostIP")? {
        "" => None,
        ip => Some(
            ip.parse::<IpAddr>()
                .map_err(|_| format!("\"hostIP\" is {ip:?} and must be an address"))?
                .to_canonical(),
        ),
    };
    Ok(Some(HostPort {
        protocol,
        host_ip,
        host_port,
        container_port,
    }))
}

/// A port; none where it is not given, or 0.
fn port(mapping: &Value, key: &str) -> Result<Option<NonZeroU16>, String> {
    let Some(value) = field(mapping, key) else {
        return Ok(None);
    };
    let number = value.as_u64().and_then(|number| u16::try_from(number).ok());
    let number = number.ok_or_else(|| format!("{key:?} is {value} and must be 1 to 65535"))?;
    Ok(NonZeroU16::new(number))
}

/// A member of an object that is not null, by its name in any case.
pub fn field<'v>(object: &'v Value, key: &str) -> Option<&'v Value> {
    let mut members = object.as_object()?.iter();
    let (_, value) = members.find(|(name, _)| name.eq_ignore_ascii_case(key))?;
    (!value.is_null()).then_some(value)
}
