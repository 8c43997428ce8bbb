//! One Service and its slices → what it wants of the tables.

mod address;
mod endpoints;
mod host_ports;
mod ports;
mod spec;
mod topology;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::compiled::Compiled;
use crate::{Facts, ServiceName};

pub use host_ports::{HostPort, compile_host_ports};

/// Another proxy serves what carries this label.
const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// Slices of a headless Service carry this label: its names lead to the endpoints themselves.
const HEADLESS: &str = "service.kubernetes.io/headless";
/// A slice's Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Compiles what a Service wants of this node's tables.
///
/// Of `slices`, those count of which [`service_of`] says this Service; their order does not matter. None where there
/// is nothing to program: a Service of type ExternalName, a headless one, one that has no address yet, and one that is
/// another proxy's. What is wrong with an object leaves out just that, with a [problem](Compiled::problems).
pub fn compile<'a>(
    service: &Service,
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
    facts: &Facts,
) -> Option<Compiled> {
    let name = name_of(&service.metadata)?;
    if is_not_ours(&service.metadata) {
        return None;
    }
    let mut problems = Vec::new();
    let spec = spec::read(service, &name, &mut problems)?;
    let slices = slices
        .into_iter()
        .filter(|s| service_of(s).as_ref() == Some(&name));
    let endpoints = endpoints::Endpoints::read(slices, &facts.node, &mut problems);
    let (ports, local_endpoints) = ports::build(&spec, &endpoints, facts, &name, &mut problems);
    Some(Compiled {
        created: service.metadata.creation_timestamp.as_ref().map(|t| t.0),
        ports,
        addresses: ports::whole_addresses(&spec, facts),
        health_check: spec.health_check(local_endpoints),
        source_ranges: spec.source_ranges,
        problems,
    })
}

/// Which Service a slice has endpoints of. None for a slice that nobody proxies, or another proxy does.
pub fn service_of(slice: &EndpointSlice) -> Option<ServiceName> {
    let service = label(&slice.metadata, SERVICE_NAME).filter(|s| !s.is_empty())?;
    let namespace = slice.metadata.namespace.as_deref()?;
    (!is_not_ours(&slice.metadata)).then(|| ServiceName::new(namespace, service))
}

/// kube-proxy's watches leave out Services and slices alike that carry one of these labels.
fn is_not_ours(metadata: &ObjectMeta) -> bool {
    label(metadata, PROXY_NAME).is_some() || label(metadata, HEADLESS).is_some()
}

fn label<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    let labels: Option<&BTreeMap<String, String>> = metadata.labels.as_ref();
    labels?.get(key).map(String::as_str)
}

fn name_of(metadata: &ObjectMeta) -> Option<ServiceName> {
    Some(ServiceName::new(
        metadata.namespace.as_deref()?,
        metadata.name.as_deref()?,
    ))
}

/// The number of an IP protocol that Services have.
fn protocol_number(name: Option<&str>) -> Option<u8> {
    match name.unwrap_or("TCP") {
        "TCP" => Some(6),
        "UDP" => Some(17),
        "SCTP" => Some(132),
        _ => None,
    }
}

/// A port number that packets can carry.
fn port_number(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|&n| n != 0)
}
