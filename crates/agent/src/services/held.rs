//! What is kept of Services and EndpointSlices: what the compiler reads, as JSON. As values they take eight times as
//! much memory, most of it for fields that are not there.

use std::marker::PhantomData;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tombolo_services::{ServiceName, service_of};

/// A Service.
pub struct HeldService {
    pub name: ServiceName,
    /// When it was created.
    pub created: Option<Time>,
    /// The load balancer's addresses.
    pub balanced: Box<[IpAddr]>,
    pub object: Packed<Service>,
}

/// An EndpointSlice.
pub struct HeldSlice {
    /// Its own.
    pub name: ServiceName,
    /// Which Service it has endpoints of.
    pub service: Option<ServiceName>,
    pub object: Packed<EndpointSlice>,
}

/// An object as JSON.
pub struct Packed<K> {
    json: Box<[u8]>,
    kind: PhantomData<fn() -> K>,
}

impl HeldService {
    /// None for an object without a name, which no API server has.
    pub fn of(mut service: Service) -> Option<Self> {
        trim(&mut service.metadata);
        if let Some(spec) = &mut service.spec {
            spec.selector = None;
        }
        if let Some(status) = &mut service.status {
            status.conditions = None;
        }
        let balancer = service.status.as_ref().and_then(|s| s.load_balancer.as_ref());
        let points = balancer.iter().flat_map(|b| b.ingress.iter().flatten());
        let balanced = points
            .filter_map(|point| point.ip.as_ref()?.parse().ok())
            .collect();
        Some(Self {
            name: name_of(&service.metadata)?,
            created: service.metadata.creation_timestamp.clone(),
            balanced,
            object: Packed::of(&service)?,
        })
    }
}

impl HeldSlice {
    /// None for an object without a name, which no API server has.
    pub fn of(mut slice: EndpointSlice) -> Option<Self> {
        trim(&mut slice.metadata);
        for endpoint in &mut slice.endpoints {
            endpoint.deprecated_topology = None;
            endpoint.hostname = None;
            endpoint.target_ref = None;
            endpoint.zone = None;
            // No meaning is defined for further ones.
            endpoint.addresses.truncate(1);
        }
        Some(Self {
            name: name_of(&slice.metadata)?,
            service: service_of(&slice),
            object: Packed::of(&slice)?,
        })
    }
}

impl<K: Serialize + DeserializeOwned> Packed<K> {
    fn of(object: &K) -> Option<Self> {
        let json = serde_json::to_vec(object).ok()?.into_boxed_slice();
        Some(Self {
            json,
            kind: PhantomData,
        })
    }

    /// The object. None never happens: it was one when it was packed.
    pub fn unpack(&self) -> Option<K> {
        serde_json::from_slice(&self.json).ok()
    }
}

impl<K> PartialEq for Packed<K> {
    fn eq(&self, other: &Self) -> bool {
        self.json == other.json
    }
}

/// Leaves what the compiler reads, and the uid, which Events name.
fn trim(metadata: &mut ObjectMeta) {
    let taken = std::mem::take(metadata);
    let labels = taken.labels.unwrap_or_default().into_iter();
    let is_read =
        |key: &str| key.starts_with("service.kubernetes.io/") || key == "kubernetes.io/service-name";
    *metadata = ObjectMeta {
        name: taken.name,
        namespace: taken.namespace,
        uid: taken.uid,
        creation_timestamp: taken.creation_timestamp,
        labels: Some(labels.filter(|(key, _)| is_read(key)).collect()),
        ..ObjectMeta::default()
    };
}

/// An object's namespace and name.
pub fn name_of(metadata: &ObjectMeta) -> Option<ServiceName> {
    Some(ServiceName::new(
        metadata.namespace.clone()?,
        metadata.name.clone()?,
    ))
}
