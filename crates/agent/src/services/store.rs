//! The Services and EndpointSlices of the cluster, as far as the compiler reads them, and which of them have changed.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tombolo_services::{Compiled, Facts, ServiceName, compile};

use super::held::{HeldService, HeldSlice, Packed};

/// What a watch has seen.
pub enum Change<T> {
    /// All objects are about to be told.
    ListBegins,
    /// An object is there.
    Put(T),
    /// An object is gone.
    Gone(ServiceName),
    /// All objects have been told: others are gone.
    ListEnds,
}

/// All Services, each with its slices.
#[derive(Default)]
pub struct Store {
    entries: HashMap<Arc<ServiceName>, Entry>,
    /// Which Service a slice is of, by the slice's name.
    slices: HashMap<ServiceName, Arc<ServiceName>>,
    changed: BTreeSet<Arc<ServiceName>>,
    service_list: List,
    slice_list: List,
    /// How many Services there are.
    count: usize,
}

/// A Service as far as it is known: slices may come before their Service, or without one.
#[derive(Default)]
struct Entry {
    service: Option<SeenService>,
    slices: Vec<SeenSlice>,
}

struct SeenService {
    created: Option<Time>,
    balanced: Box<[IpAddr]>,
    object: Packed<Service>,
    /// In which list it was seen last.
    list: u32,
}

struct SeenSlice {
    name: Box<str>,
    object: Packed<EndpointSlice>,
    list: u32,
}

/// The lists of a kind: one is begun whenever a watch has lost sight of what happens.
#[derive(Clone, Copy, Default)]
struct List {
    number: u32,
    /// Whether all objects have been seen once.
    complete: bool,
}

impl Store {
    /// Notes what the watch of Services has seen.
    pub fn service(&mut self, change: Change<HeldService>) {
        match change {
            Change::ListBegins => self.service_list.number += 1,
            Change::Put(service) => self.put_service(service),
            Change::Gone(name) => self.remove_service(&name),
            Change::ListEnds => {
                self.service_list.complete = true;
                self.end_list_of_services();
            }
        }
    }

    /// Notes what the watch of EndpointSlices has seen.
    pub fn slice(&mut self, change: Change<HeldSlice>) {
        match change {
            Change::ListBegins => self.slice_list.number += 1,
            Change::Put(slice) => self.put_slice(slice),
            Change::Gone(name) => self.remove_slice(&name),
            Change::ListEnds => {
                self.slice_list.complete = true;
                self.end_list_of_slices();
            }
        }
    }

    /// Whether all Services and all slices have been seen.
    pub fn is_complete(&self) -> bool {
        self.service_list.complete && self.slice_list.complete
    }

    /// How many Services there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// The Services that have changed since the last call, the oldest first, then those that are gone.
    pub fn take_changed(&mut self) -> Vec<Arc<ServiceName>> {
        let mut changed: Vec<_> = std::mem::take(&mut self.changed).into_iter().collect();
        changed.sort_by_cached_key(|name| {
            let created = self.seen(name).map(|s| s.created.clone());
            (created.is_none(), created.flatten())
        });
        changed
    }

    /// Has all Services compiled again.
    pub fn recompile(&mut self) {
        let there = self.entries.iter().filter(|(_, e)| e.service.is_some());
        self.changed.extend(there.map(|(name, _)| name.clone()));
    }

    /// Has those compiled again of which a load balancer's address is among these.
    pub fn recompile_at(&mut self, addresses: &BTreeSet<IpAddr>) {
        let is_at = |e: &Entry| {
            e.service
                .iter()
                .flat_map(|s| &s.balanced)
                .any(|ip| addresses.contains(ip))
        };
        let there = self.entries.iter().filter(|(_, e)| is_at(e));
        self.changed.extend(there.map(|(name, _)| name.clone()));
    }

    /// A Service.
    pub fn get(&self, name: &ServiceName) -> Option<Service> {
        self.seen(name)?.object.unpack()
    }

    /// Compiles a Service; none if it is gone, or has nothing to be programmed.
    pub fn compile(&self, name: &ServiceName, facts: &Facts) -> Option<Compiled> {
        let service = self.get(name)?;
        let slices = self.entries.get(name).map_or(&[][..], |e| &e.slices);
        let slices: Vec<EndpointSlice> = slices.iter().filter_map(|s| s.object.unpack()).collect();
        compile(&service, &slices, facts)
    }

    fn seen(&self, name: &ServiceName) -> Option<&SeenService> {
        self.entries.get(name)?.service.as_ref()
    }

    fn put_service(&mut self, service: HeldService) {
        let HeldService {
            name,
            created,
            balanced,
            object,
        } = service;
        let list = self.service_list.number;
        let (name, entry) = self.entry(name);
        match &mut entry.service {
            Some(seen) if seen.object == object => seen.list = list,
            place => {
                let seen = SeenService {
                    created,
                    balanced,
                    object,
                    list,
                };
                let is_new = place.replace(seen).is_none();
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

    fn put_slice(&mut self, slice: HeldSlice) {
        let HeldSlice {
            name,
            service,
            object,
        } = slice;
        if self.slices.get(&name).map(|s| &**s) != service.as_ref() {
            // It was another Service's until now.
            self.remove_slice(&name);
        }
        let Some(service) = service else { return };
        let list = self.slice_list.number;
        let (service, entry) = self.entry(service);
        match entry.slices.iter_mut().find(|s| *s.name == *name.name) {
            Some(seen) if seen.object == object => {
                seen.list = list;
                return;
            }
            Some(seen) => (seen.object, seen.list) = (object, list),
            None => {
                let seen = SeenSlice {
                    name: name.name.as_str().into(),
                    object,
                    list,
                };
                entry.slices.push(seen);
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
            entry.slices.retain(|s| *s.name != *name.name);
        }
        self.forget_if_empty(&service);
        self.changed.insert(service);
    }

    /// What a list that is complete has not shown is gone.
    fn end_list_of_services(&mut self) {
        let list = self.service_list.number;
        let is_stale = |e: &Entry| e.service.as_ref().is_some_and(|s| s.list != list);
        let stale = self.entries.iter().filter(|(_, e)| is_stale(e));
        let stale: Vec<Arc<ServiceName>> = stale.map(|(name, _)| name.clone()).collect();
        stale.iter().for_each(|name| self.remove_service(name));
    }

    fn end_list_of_slices(&mut self) {
        let list = self.slice_list.number;
        let mut stale = Vec::new();
        for (service, entry) in &self.entries {
            let old = entry.slices.iter().filter(|s| s.list != list);
            // A slice is in the namespace of its Service.
            stale.extend(old.map(|s| ServiceName::new(&*service.namespace, &*s.name)));
        }
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(name: &str, ip: &str) -> HeldService {
        let object = json!({
            "metadata": {"name": name, "namespace": "default", "annotations": {"a": "b"}, "labels": {"app": "web"}},
            "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": [{"port": 80}], "selector": {"app": "web"}},
        });
        HeldService::of(serde_json::from_value(object).unwrap()).unwrap()
    }

    fn slice(name: &str, service: Value, address: &str) -> HeldSlice {
        let object = json!({
            "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4",
            "ports": [{"name": "", "port": 8080}],
            "endpoints": [{"addresses": [address], "targetRef": {"kind": "Pod", "name": "p"}}],
        });
        HeldSlice::of(serde_json::from_value(object).unwrap()).unwrap()
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
        Some(addresses.map(|b| IpAddr::from(b.address).to_string()).collect())
    }

    #[test]
    fn what_changes_is_told_once() {
        let mut store = Store::default();
        store.slice(Change::Put(slice("web-1", json!("web"), "10.1.0.1")));
        assert_eq!(backends(&store, "web"), None);
        store.service(Change::Put(service("web", "10.96.0.1")));
        assert_eq!(changed(&mut store), ["web"]);
        assert_eq!(backends(&store, "web").unwrap(), ["10.1.0.1"]);
        store.service(Change::Put(service("web", "10.96.0.1")));
        store.slice(Change::Put(slice("web-1", json!("web"), "10.1.0.1")));
        assert!(changed(&mut store).is_empty());
        store.slice(Change::Put(slice("web-1", json!("web"), "10.1.0.2")));
        assert_eq!(changed(&mut store), ["web"]);
        assert_eq!(backends(&store, "web").unwrap(), ["10.1.0.2"]);
        store.slice(Change::Gone(ServiceName::new("default", "web-1")));
        assert_eq!(changed(&mut store), ["web"]);
        store.service(Change::Gone(ServiceName::new("default", "web")));
        assert_eq!(changed(&mut store), ["web"]);
        assert_eq!((store.len(), store.entries.len(), store.slices.len()), (0, 0, 0));
    }

    #[test]
    fn a_slice_may_become_anothers() {
        let mut store = Store::default();
        for name in ["a", "b"] {
            store.service(Change::Put(service(name, "10.96.0.1")));
        }
        store.slice(Change::Put(slice("s", json!("a"), "10.1.0.1")));
        changed(&mut store);
        store.slice(Change::Put(slice("s", json!("b"), "10.1.0.1")));
        assert_eq!(changed(&mut store), ["a", "b"]);
        assert_eq!(backends(&store, "a").unwrap(), [""; 0]);
        assert_eq!(backends(&store, "b").unwrap(), ["10.1.0.1"]);
        store.slice(Change::Put(slice("s", json!(""), "10.1.0.1")));
        assert_eq!(changed(&mut store), ["b"]);
        assert_eq!(backends(&store, "b").unwrap(), [""; 0]);
    }

    #[test]
    fn what_a_new_list_does_not_show_is_gone_when_it_is_complete() {
        let mut store = Store::default();
        for round in 0..2 {
            assert_eq!(store.is_complete(), round > 0);
            store.service(Change::ListBegins);
            store.slice(Change::ListBegins);
            store.service(Change::Put(service("stays", "10.96.0.1")));
            store.slice(Change::Put(slice("stays-1", json!("stays"), "10.1.0.1")));
            if round == 0 {
                store.service(Change::Put(service("goes", "10.96.0.2")));
                store.slice(Change::Put(slice("stays-2", json!("stays"), "10.1.0.2")));
            }
            if round == 1 {
                assert_eq!(backends(&store, "stays").unwrap().len(), 2);
                assert!(changed(&mut store).is_empty());
            }
            store.service(Change::ListEnds);
            store.slice(Change::ListEnds);
            assert_eq!(changed(&mut store), [["goes", "stays"], ["stays", "goes"]][round]);
        }
        assert_eq!(backends(&store, "goes"), None);
        assert_eq!(backends(&store, "stays").unwrap(), ["10.1.0.1"]);
    }
}
