//! The Services and EndpointSlices of the cluster, as far as the compiler reads them, and which of them have changed.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::watcher::Event;
use tombolo_services::{Compiled, Facts, ServiceName, compile, service_of};

/// All Services, each with its slices.
#[derive(Default)]
pub struct Store {
    entries: HashMap<Arc<ServiceName>, Entry>,
    /// Which Service a slice is of, by the slice's name.
    slices: HashMap<ServiceName, Arc<ServiceName>>,
    changed: BTreeSet<Arc<ServiceName>>,
    lists: [List; 2],
    /// How many Services there are.
    count: usize,
}

/// A Service as far as it is known: slices may come before their Service, or without one.
#[derive(Default)]
struct Entry {
    service: Option<Seen<Service>>,
    slices: Vec<Seen<EndpointSlice>>,
}

/// An object, and in which list it was seen last.
struct Seen<K> {
    object: K,
    list: u32,
}

/// The lists of a kind: one is begun whenever a watch has lost sight of what happens.
#[derive(Clone, Copy, Default)]
struct List {
    number: u32,
    /// Whether all objects have been seen once.
    complete: bool,
}

const SERVICES: usize = 0;
const SLICES: usize = 1;

/// Takes from a Service what nobody reads here.
pub fn trim_service(service: &mut Service) {
    trim(&mut service.metadata);
    if let Some(spec) = &mut service.spec {
        spec.selector = None;
    }
    if let Some(status) = &mut service.status {
        status.conditions = None;
    }
}

/// Takes from a slice what nobody reads here.
pub fn trim_slice(slice: &mut EndpointSlice) {
    trim(&mut slice.metadata);
    for endpoint in &mut slice.endpoints {
        endpoint.deprecated_topology = None;
        endpoint.hostname = None;
        endpoint.target_ref = None;
        endpoint.zone = None;
        endpoint.addresses.truncate(1);
        endpoint.addresses.shrink_to_fit();
    }
    slice.endpoints.shrink_to_fit();
}

fn trim(metadata: &mut ObjectMeta) {
    let taken = std::mem::take(metadata);
    let labels = taken.labels.unwrap_or_default().into_iter();
    let is_read =
        |key: &str| key.starts_with("service.kubernetes.io/") || key == "kubernetes.io/service-name";
    let labels = labels.filter(|(key, _)| is_read(key)).collect();
    *metadata = ObjectMeta {
        name: taken.name,
        namespace: taken.namespace,
        uid: taken.uid,
        creation_timestamp: taken.creation_timestamp,
        labels: Some(labels),
        ..ObjectMeta::default()
    };
}

impl Store {
    /// Notes what the watch of Services has seen.
    pub fn service(&mut self, event: Event<Service>) {
        match event {
            Event::Init => self.lists[SERVICES].number += 1,
            Event::InitDone => {
                self.lists[SERVICES].complete = true;
                self.end_list_of_services();
            }
            Event::InitApply(service) | Event::Apply(service) => self.put_service(service),
            Event::Delete(service) => {
                if let Some(name) = name_of(&service.metadata) {
                    self.remove_service(&name);
                }
            }
        }
    }

    /// Notes what the watch of EndpointSlices has seen.
    pub fn slice(&mut self, event: Event<EndpointSlice>) {
        match event {
            Event::Init => self.lists[SLICES].number += 1,
            Event::InitDone => {
                self.lists[SLICES].complete = true;
                self.end_list_of_slices();
            }
            Event::InitApply(slice) | Event::Apply(slice) => self.put_slice(slice),
            Event::Delete(slice) => {
                if let Some(name) = name_of(&slice.metadata) {
                    self.remove_slice(&name);
                }
            }
        }
    }

    /// Whether all Services and all slices have been seen.
    pub fn is_complete(&self) -> bool {
        self.lists.iter().all(|list| list.complete)
    }

    /// How many Services there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// The Services that have changed since the last call, the oldest first, then those that are gone.
    pub fn take_changed(&mut self) -> Vec<Arc<ServiceName>> {
        let mut changed: Vec<_> = std::mem::take(&mut self.changed).into_iter().collect();
        changed.sort_by_cached_key(|name| {
            let created = self.get(name).map(|s| s.metadata.creation_timestamp.clone());
            (created.is_none(), created.flatten())
        });
        changed
    }

    /// Has these compiled again.
    pub fn recompile(&mut self, wanted: impl Fn(&ServiceName, &Service) -> bool) {
        for (name, entry) in &self.entries {
            if entry.service.as_ref().is_some_and(|s| wanted(name, &s.object)) {
                self.changed.insert(name.clone());
            }
        }
    }

    /// A Service.
    pub fn get(&self, name: &ServiceName) -> Option<&Service> {
        let seen = self.entries.get(name)?.service.as_ref()?;
        Some(&seen.object)
    }

    /// Compiles a Service; none if it is gone, or has nothing to be programmed.
    pub fn compile(&self, name: &ServiceName, facts: &Facts) -> Option<Compiled> {
        let entry = self.entries.get(name)?;
        let service = entry.service.as_ref()?;
        compile(&service.object, entry.slices.iter().map(|s| &s.object), facts)
    }

    fn put_service(&mut self, object: Service) {
        let Some(name) = name_of(&object.metadata) else {
            return;
        };
        let list = self.lists[SERVICES].number;
        let (name, entry) = self.entry(name);
        match &mut entry.service {
            Some(seen) if seen.object == object => seen.list = list,
            place => {
                let is_new = place.replace(Seen { object, list }).is_none();
                self.count += usize::from(is_new);
                self.changed.insert(name);
            }
        }
    }

    fn remove_service(&mut self, name: &ServiceName) {
        if let Some((name, _)) = self.entries.get_key_value(name) {
            let name = name.clone();
            let gone = self.entries.get_mut(&name).and_then(|entry| entry.service.take());
            self.count -= usize::from(gone.is_some());
            self.changed.insert(name.clone());
            self.forget_if_empty(&name);
        }
    }

    fn put_slice(&mut self, object: EndpointSlice) {
        let Some(name) = name_of(&object.metadata) else {
            return;
        };
        let service = service_of(&object);
        if self.slices.get(&name).map(|s| &**s) != service.as_ref() {
            // It was another Service's until now.
            self.remove_slice(&name);
        }
        let Some(service) = service else { return };
        let list = self.lists[SLICES].number;
        let (service, entry) = self.entry(service);
        let held = entry
            .slices
            .iter_mut()
            .find(|s| s.object.metadata.name == object.metadata.name);
        match held {
            Some(seen) if seen.object == object => {
                seen.list = list;
                return;
            }
            Some(seen) => *seen = Seen { object, list },
            None => {
                entry.slices.push(Seen { object, list });
                entry.slices.shrink_to_fit();
            }
        }
        self.slices.insert(name, service.clone());
        self.changed.insert(service);
    }

    fn remove_slice(&mut self, name: &ServiceName) {
        let Some(service) = self.slices.remove(name) else {
            return;
        };
        if let Some(entry) = self.entries.get_mut(&service) {
            entry
                .slices
                .retain(|s| s.object.metadata.name.as_deref() != Some(&name.name));
        }
        self.forget_if_empty(&service);
        self.changed.insert(service);
    }

    /// What a list that is complete has not shown is gone.
    fn end_list_of_services(&mut self) {
        let list = self.lists[SERVICES].number;
        let is_stale = |e: &Entry| e.service.as_ref().is_some_and(|s| s.list != list);
        let stale = self.entries.iter().filter(|(_, e)| is_stale(e));
        let stale: Vec<Arc<ServiceName>> = stale.map(|(name, _)| name.clone()).collect();
        stale.iter().for_each(|name| self.remove_service(name));
    }

    fn end_list_of_slices(&mut self) {
        let list = self.lists[SLICES].number;
        let all = self.entries.values().flat_map(|e| &e.slices);
        let stale = all.filter(|s| s.list != list);
        let stale: Vec<ServiceName> = stale.filter_map(|s| name_of(&s.object.metadata)).collect();
        stale.iter().for_each(|name| self.remove_slice(name));
    }

    fn entry(&mut self, name: ServiceName) -> (Arc<ServiceName>, &mut Entry) {
        let name = match self.entries.get_key_value(&name) {
            Some((name, _)) => name.clone(),
            None => Arc::new(name),
        };
        (name.clone(), self.entries.entry(name).or_default())
    }

    fn forget_if_empty(&mut self, name: &ServiceName) {
        if self
            .entries
            .get(name)
            .is_some_and(|e| e.service.is_none() && e.slices.is_empty())
        {
            self.entries.remove(name);
        }
    }
}

/// An object's namespace and name.
fn name_of(metadata: &ObjectMeta) -> Option<ServiceName> {
    Some(ServiceName::new(
        metadata.namespace.clone()?,
        metadata.name.clone()?,
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(name: &str, ip: &str) -> Service {
        let object = json!({
            "metadata": {"name": name, "namespace": "default", "annotations": {"a": "b"}, "labels": {"app": "web"}},
            "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": [{"port": 80}], "selector": {"app": "web"}},
        });
        let mut service = serde_json::from_value(object).unwrap();
        trim_service(&mut service);
        service
    }

    fn slice(name: &str, service: Value, address: &str) -> EndpointSlice {
        let object = json!({
            "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4",
            "ports": [{"name": "", "port": 8080}],
            "endpoints": [{"addresses": [address], "targetRef": {"kind": "Pod", "name": "p"}}],
        });
        let mut slice = serde_json::from_value(object).unwrap();
        trim_slice(&mut slice);
        slice
    }

    fn changed(store: &mut Store) -> Vec<String> {
        store
            .take_changed()
            .iter()
            .map(|name| name.name.clone())
            .collect()
    }

    /// The backends' addresses of the Service's one port; none: nothing is to be programmed.
    fn backends(store: &Store, name: &str) -> Option<Vec<String>> {
        let compiled = store.compile(&ServiceName::new("default", name), &Facts::default())?;
        let addresses = compiled.ports[0].backends.iter();
        Some(
            addresses
                .map(|b| std::net::IpAddr::from(b.address).to_string())
                .collect(),
        )
    }

    #[test]
    fn what_changes_is_told_once() {
        let mut store = Store::default();
        store.slice(Event::Apply(slice("web-1", json!("web"), "10.1.0.1")));
        assert_eq!(backends(&store, "web"), None);
        store.service(Event::Apply(service("web", "10.96.0.1")));
        assert_eq!(changed(&mut store), ["web"]);
        assert_eq!(backends(&store, "web").unwrap(), ["10.1.0.1"]);
        store.service(Event::Apply(service("web", "10.96.0.1")));
        store.slice(Event::Apply(slice("web-1", json!("web"), "10.1.0.1")));
        assert!(changed(&mut store).is_empty());
        store.slice(Event::Apply(slice("web-1", json!("web"), "10.1.0.2")));
        assert_eq!(changed(&mut store), ["web"]);
        assert_eq!(backends(&store, "web").unwrap(), ["10.1.0.2"]);
        store.slice(Event::Delete(slice("web-1", json!("web"), "10.1.0.2")));
        assert_eq!(changed(&mut store), ["web"]);
        store.service(Event::Delete(service("web", "10.96.0.1")));
        assert_eq!(changed(&mut store), ["web"]);
        assert_eq!((store.len(), store.entries.len(), store.slices.len()), (0, 0, 0));
    }

    #[test]
    fn a_slice_may_become_anothers() {
        let mut store = Store::default();
        for name in ["a", "b"] {
            store.service(Event::Apply(service(name, "10.96.0.1")));
        }
        store.slice(Event::Apply(slice("s", json!("a"), "10.1.0.1")));
        changed(&mut store);
        store.slice(Event::Apply(slice("s", json!("b"), "10.1.0.1")));
        assert_eq!(changed(&mut store), ["a", "b"]);
        assert_eq!(backends(&store, "a").unwrap(), [""; 0]);
        assert_eq!(backends(&store, "b").unwrap(), ["10.1.0.1"]);
        store.slice(Event::Apply(slice("s", json!(""), "10.1.0.1")));
        assert_eq!(changed(&mut store), ["b"]);
        assert_eq!(backends(&store, "b").unwrap(), [""; 0]);
    }

    #[test]
    fn what_a_new_list_does_not_show_is_gone_when_it_is_complete() {
        let mut store = Store::default();
        for round in 0..2 {
            assert_eq!(store.is_complete(), round > 0);
            store.service(Event::Init);
            store.slice(Event::Init);
            store.service(Event::InitApply(service("stays", "10.96.0.1")));
            store.slice(Event::InitApply(slice("stays-1", json!("stays"), "10.1.0.1")));
            if round == 0 {
                store.service(Event::InitApply(service("goes", "10.96.0.2")));
                store.slice(Event::InitApply(slice("stays-2", json!("stays"), "10.1.0.2")));
            }
            if round == 1 {
                assert_eq!(backends(&store, "stays").unwrap().len(), 2);
                assert!(changed(&mut store).is_empty());
            }
            store.service(Event::InitDone);
            store.slice(Event::InitDone);
            assert_eq!(changed(&mut store), [["goes", "stays"], ["stays", "goes"]][round]);
        }
        assert_eq!(backends(&store, "goes"), None);
        assert_eq!(backends(&store, "stays").unwrap(), ["10.1.0.1"]);
    }
}
