//! What is to be written for one Service.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use kube::api::ObjectMeta;

use super::endpoint::{endpoint, ports};

/// The label of a slice that names its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";
/// The most endpoints that a slice is given.
pub const MOST_ENDPOINTS: usize = 100;

/// One change of one slice, in the namespace of its Service.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Make it.
    Create(EndpointSlice),
    /// Replace it by this, which has the resource version that it was decided on.
    Replace(EndpointSlice),
    /// Delete the one of this name.
    Delete(String),
}

/// Whether this controller writes a slice.
pub fn is_ours(slice: &EndpointSlice) -> bool {
    slice.labels().get(MANAGED_BY).map(String::as_str) == Some(CONTROLLER)
}

/// What brings `slices`, all that this controller wrote for a Service, into accord with `pods`, all that it selects.
/// Endpoints stay in the slices that they are in.
pub fn plan<'a>(
    service: &Service,
    pods: &[&Pod],
    node: &dyn Fn(&str) -> Option<&'a Node>,
    slices: &[&EndpointSlice],
) -> Vec<Action> {
    let spec = service.spec.clone().unwrap_or_default();
    let selects_none = spec.selector.is_none_or(|selector| selector.is_empty());
    if selects_none || spec.type_.as_deref() == Some("ExternalName") {
        // What is behind them is others' to say; as in Kubernetes, what was said before stays.
        return Vec::new();
    }
    let families = spec.ip_families.unwrap_or_default();
    let mut actions: Vec<Action> = slices
        .iter()
        .filter(|slice| !families.contains(&slice.address_type))
        .map(|slice| Action::Delete(slice.name_any()))
        .collect();
    for family in &families {
        let own: Vec<&EndpointSlice> = slices
            .iter()
            .copied()
            .filter(|slice| slice.address_type == *family)
            .collect();
        plan_family(service, family, pods, node, &own, &mut actions);
    }
    actions
}

fn plan_family<'a>(
    service: &Service,
    family: &str,
    pods: &[&Pod],
    node: &dyn Fn(&str) -> Option<&'a Node>,
    slices: &[&EndpointSlice],
    actions: &mut Vec<Action>,
) {
    // A slice has the same ports for all of its endpoints.
    let mut wanted: Vec<(Vec<EndpointPort>, BTreeMap<String, Endpoint>)> = Vec::new();
    for pod in pods {
        let Some(endpoint) = endpoint(service, pod, node, family) else {
            continue;
        };
        let ports = ports(service, pod);
        let id = pod.uid().unwrap_or_default();
        match wanted.iter_mut().find(|(known, _)| *known == ports) {
            Some((_, group)) => drop(group.insert(id, endpoint)),
            None => wanted.push((ports, BTreeMap::from([(id, endpoint)]))),
        }
    }
    let mut kept = 0;
    let mut spare: Option<&EndpointSlice> = None;
    let mut made = Vec::new();
    for slice in slices {
        let ports = slice.ports.clone().unwrap_or_default();
        let group = wanted.iter_mut().find(|(known, _)| *known == ports);
        let left: Vec<Endpoint> = match group {
            None => Vec::new(),
            Some((_, group)) => {
                let ids = slice.endpoints.iter().filter_map(id);
                ids.filter_map(|id| group.remove(&id)).collect()
            }
        };
        if left.is_empty() {
            match spare {
                None => spare = Some(slice),
                Some(_) => actions.push(Action::Delete(slice.name_any())),
            }
            continue;
        }
        made.push((*slice, ports, left));
        kept += 1;
    }
    for (ports, group) in wanted {
        let mut rest = group.into_values().peekable();
        for (_, _, endpoints) in made.iter_mut().filter(|(_, known, _)| *known == ports) {
            while endpoints.len() < MOST_ENDPOINTS
                && let Some(endpoint) = rest.next()
            {
                endpoints.push(endpoint);
            }
        }
        while rest.peek().is_some() {
            let endpoints = rest.by_ref().take(MOST_ENDPOINTS).collect();
            // A slice that has become empty is as good as a new one.
            let new = match spare.take() {
                Some(slice) => replaced(service, slice, ports.clone(), endpoints).map(Action::Replace),
                None => Some(Action::Create(slice(service, family, ports.clone(), endpoints))),
            };
            actions.extend(new);
            kept += 1;
        }
    }
    for (slice, ports, endpoints) in made {
        actions.extend(replaced(service, slice, ports, endpoints).map(Action::Replace));
    }
    // An empty slice says that there are none, where no slice says nothing.
    match spare {
        Some(slice) if kept > 0 => actions.push(Action::Delete(slice.name_any())),
        Some(slice) => actions.extend(replaced(service, slice, Vec::new(), Vec::new()).map(Action::Replace)),
        None if kept == 0 => actions.push(Action::Create(slice(service, family, Vec::new(), Vec::new()))),
        None => {}
    }
}

/// What an endpoint is known by: the uid of its pod.
fn id(endpoint: &Endpoint) -> Option<String> {
    endpoint.target_ref.as_ref()?.uid.clone()
}

/// The slice with these ports and endpoints; none if that is how it is.
fn replaced(
    service: &Service,
    old: &EndpointSlice,
    ports: Vec<EndpointPort>,
    endpoints: Vec<Endpoint>,
) -> Option<EndpointSlice> {
    let mut new = slice(service, &old.address_type, ports, endpoints);
    new.metadata = ObjectMeta {
        labels: new.metadata.labels,
        owner_references: new.metadata.owner_references,
        ..old.metadata.clone()
    };
    let same = new.metadata == old.metadata
        && new.endpoints == old.endpoints
        && new.ports.as_deref().unwrap_or_default() == old.ports.as_deref().unwrap_or_default();
    (!same).then_some(new)
}

fn slice(
    service: &Service,
    family: &str,
    ports: Vec<EndpointPort>,
    endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    let name = service.name_any();
    let mut labels = service.labels().clone();
    let cluster_ip = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref());
    labels.remove(HEADLESS);
    if matches!(cluster_ip, None | Some("" | "None")) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(SERVICE_NAME.to_owned(), name.clone());
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.to_owned());
    EndpointSlice {
        address_type: family.to_owned(),
        endpoints,
        metadata: ObjectMeta {
            namespace: service.namespace(),
            generate_name: Some(format!("{name}-")),
            labels: Some(labels),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Service".to_owned(),
                name,
                uid: service.uid().unwrap_or_default(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..ObjectMeta::default()
        },
        ports: Some(ports),
    }
}
