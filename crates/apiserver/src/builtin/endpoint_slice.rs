use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::Value;

use super::addresses::special;
use super::core;
use crate::cause::Cause;
use crate::names;
use crate::resource::{Column, RegistrationError, Resource, Rules};

/// The most endpoints of a slice, addresses of an endpoint and ports of a slice (pkg/apis/discovery/validation).
const MOST_ENDPOINTS: usize = 1000;
const MOST_ADDRESSES: usize = 100;
const MOST_PORTS: usize = 20_000;
/// How many addresses and ports `kubectl get` shows.
const SHOWN: usize = 3;

pub(super) fn resource() -> Result<Resource, RegistrationError> {
    Ok(Resource {
        group: "discovery.k8s.io".to_owned(),
        plural: "endpointslices".to_owned(),
        has_status: false,
        columns: vec![
            Column::text("AddressType", 0, |o| o["addressType"].clone()),
            Column::text("Ports", 0, ports),
            Column::text("Endpoints", 0, addresses),
            Column::age(),
        ],
        rules: Rules {
            defaults,
            validate,
            ..Rules::default()
        },
        ..core::<EndpointSlice>("EndpointSlice", "")?
    })
}

/// pkg/apis/discovery/v1/defaults.go.
fn defaults(slice: &mut Value) {
    let ports = slice.get_mut("ports").and_then(Value::as_array_mut);
    for port in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
        port.entry("name").or_insert_with(|| "".into());
        port.entry("protocol").or_insert_with(|| "TCP".into());
    }
}

fn validate(old: Option<&Value>, new: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let kind = new["addressType"].as_str().unwrap_or_default();
    let supported = ["FQDN", "IPv4", "IPv6"];
    if kind.is_empty() {
        causes.push(Cause::required("addressType", ""));
    } else if !supported.contains(&kind) {
        causes.push(Cause::not_supported("addressType", kind, &supported));
    }
    if old.is_some_and(|old| old["addressType"] != kind) {
        causes.push(Cause::invalid("addressType", kind, "field is immutable"));
    }
    let endpoints = list(&new["endpoints"]);
    too_many("endpoints", endpoints, MOST_ENDPOINTS, &mut causes);
    for (i, endpoint) in endpoints.iter().enumerate().take(MOST_ENDPOINTS) {
        let field = format!("endpoints[{i}].addresses");
        let addresses = list(&endpoint["addresses"]);
        if addresses.is_empty() {
            causes.push(Cause::required(field.as_str(), "must contain at least 1 address"));
        }
        too_many(&field, addresses, MOST_ADDRESSES, &mut causes);
        for (j, address) in addresses.iter().filter_map(Value::as_str).enumerate() {
            if let Some(why) = wrong_address(kind, address) {
                causes.push(Cause::invalid(format!("{field}[{j}]"), address, why));
            }
        }
    }
    let ports = list(&new["ports"]);
    too_many("ports", ports, MOST_PORTS, &mut causes);
    let mut known = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let name = port["name"].as_str().unwrap_or_default();
        if !known.insert(name) {
            causes.push(Cause::duplicate(format!("ports[{i}].name"), name));
        }
        if !name.is_empty() && !names::is_dns_label(name) {
            let detail = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
            causes.push(Cause::invalid(format!("ports[{i}].name"), name, detail));
        }
        let supported = ["SCTP", "TCP", "UDP"];
        let protocol = port["protocol"].as_str().unwrap_or_default();
        if !supported.contains(&protocol) {
            let field = format!("ports[{i}].protocol");
            causes.push(Cause::not_supported(field, protocol, &supported));
        }
    }
    causes
}

fn wrong_address(kind: &str, address: &str) -> Option<&'static str> {
    match (kind, address.parse::<IpAddr>()) {
        ("IPv4", Ok(IpAddr::V4(ip))) => special(ip.into()),
        ("IPv6", Ok(IpAddr::V6(ip))) => special(ip.into()),
        ("IPv4", _) => Some("must be a valid IPv4 address"),
        ("IPv6", _) => Some("must be a valid IPv6 address"),
        ("FQDN", _) if !names::is_dns_subdomain(address) => Some("must be a valid DNS name"),
        _ => None,
    }
}

fn too_many(field: &str, items: &[Value], most: usize, causes: &mut Vec<Cause>) {
    if items.len() > most {
        let detail = format!("must have at most {most} items");
        causes.push(Cause::invalid(field, items.len(), &detail));
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn ports(slice: &Value) -> Value {
    let number = |port: &Value| match (&port["port"], &port["name"]) {
        (Value::Number(number), _) => number.to_string(),
        (_, Value::String(name)) => name.clone(),
        _ => "*".to_owned(),
    };
    first_few(list(&slice["ports"]).iter().map(number).collect())
}

fn addresses(slice: &Value) -> Value {
    let endpoints = list(&slice["endpoints"]).iter();
    let all = endpoints.flat_map(|e| list(&e["addresses"]));
    first_few(all.filter_map(|a| a.as_str().map(str::to_owned)).collect())
}

fn first_few(items: Vec<String>) -> Value {
    let first = items[..items.len().min(SHOWN)].join(",");
    match items.len() {
        0 => "<unset>".into(),
        n if n > SHOWN => format!("{first} + {} more...", n - SHOWN).into(),
        _ => first.into(),
    }
}
