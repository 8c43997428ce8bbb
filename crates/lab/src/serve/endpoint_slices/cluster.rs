//! What is known of Services, pods, nodes and slices, and which Services are to be decided on.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::runtime::watcher::Event;

use super::Wrote;
use super::plan::{Action, SERVICE_NAME, is_ours, plan};

/// A namespace and a name.
pub type Name = (String, String);

pub fn name_of(object: &impl ResourceExt) -> Name {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// Objects of a kind.
#[derive(Debug)]
struct Known<K> {
    objects: BTreeMap<Name, K>,
    /// Whether all that there are have come.
    complete: bool,
}

impl<K> Default for Known<K> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            complete: false,
        }
    }
}

impl<K: ResourceExt> Known<K> {
    /// Follows an event. Returns the object before and after it; none for an event about all objects.
    fn follow(&mut self, event: Event<K>) -> Option<(Name, Option<K>)> {
        match event {
            Event::Init => {
                *self = Self::default();
                None
            }
            Event::InitDone => {
                self.complete = true;
                None
            }
            Event::Apply(object) | Event::InitApply(object) => {
                let name = name_of(&object);
                let before = self.objects.insert(name.clone(), object);
                Some((name, before))
            }
            Event::Delete(object) => {
                let name = name_of(&object);
                let before = self.objects.remove(&name);
                Some((name, before))
            }
        }
    }

    fn of_namespace<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a K> {
        let first = (namespace.to_owned(), String::new());
        let all = self.objects.range(first..);
        all.take_while(move |(name, _)| name.0 == namespace)
            .map(|(_, object)| object)
    }
}

/// All that decisions are made from.
#[derive(Debug, Default)]
pub struct Cluster {
    services: Known<Service>,
    pods: Known<Pod>,
    nodes: Known<Node>,
    slices: Known<EndpointSlice>,
    /// The slices of each Service, by the name of the Service.
    slices_of: BTreeMap<Name, BTreeSet<Name>>,
    /// The Services to be decided on.
    changed: BTreeSet<Name>,
}

impl Cluster {
    pub fn service(&mut self, event: Event<Service>) {
        match self.services.follow(event) {
            Some((name, _)) => {
                self.changed.insert(name);
            }
            None => self.all_changed(),
        }
    }

    pub fn pod(&mut self, event: Event<Pod>) {
        let Some((name, before)) = self.pods.follow(event) else {
            return self.all_changed();
        };
        let now = self.pods.objects.get(&name);
        // Until all pods are known, all Services are to be decided on anyway.
        if !self.pods.complete {
            return;
        }
        let affected = self.services.of_namespace(&name.0).filter(|service| {
            let selected = |pod: Option<&Pod>| pod.is_some_and(|pod| selects(service, pod));
            selected(before.as_ref()) || selected(now)
        });
        self.changed.extend(affected.map(name_of));
    }

    pub fn node(&mut self, event: Event<Node>) {
        let zone = |node: Option<&Node>| node.and_then(|n| n.labels().get(super::endpoint::ZONE).cloned());
        match self.nodes.follow(event) {
            Some((name, before)) if zone(before.as_ref()) == zone(self.nodes.objects.get(&name)) => {}
            _ => self.all_changed(),
        }
    }

    pub fn slice(&mut self, event: Event<EndpointSlice>) {
        let Some((name, before)) = self.slices.follow(event) else {
            self.slices_of.clear();
            return self.all_changed();
        };
        self.index(&name, before.as_ref());
    }

    /// Remembers what was written, so that it counts before the watch reports it.
    pub fn wrote(&mut self, wrote: Wrote) {
        let (name, before) = match wrote {
            Wrote::Slice(slice) => {
                let name = name_of(&*slice);
                let before = self.slices.objects.insert(name.clone(), *slice);
                (name, before)
            }
            Wrote::Gone(name) => {
                let before = self.slices.objects.remove(&name);
                (name, before)
            }
        };
        self.index(&name, before.as_ref());
    }

    /// Decides on a Service once more.
    pub fn again(&mut self, service: Name) {
        self.changed.insert(service);
    }

    fn index(&mut self, name: &Name, before: Option<&EndpointSlice>) {
        let now = self.slices.objects.get(name);
        if let Some(service) = before.and_then(service_of) {
            if let Some(slices) = self.slices_of.get_mut(&service) {
                slices.remove(name);
                if slices.is_empty() {
                    self.slices_of.remove(&service);
                }
            }
            self.changed.insert(service);
        }
        if let Some(service) = now.and_then(service_of) {
            self.slices_of
                .entry(service.clone())
                .or_default()
                .insert(name.clone());
            self.changed.insert(service);
        }
    }

    fn all_changed(&mut self) {
        self.changed.extend(self.services.objects.keys().cloned());
        self.changed.extend(self.slices_of.keys().cloned());
    }

    /// What is to be done for each Service that something changed about.
    pub fn decide(&mut self) -> Vec<(Name, Vec<Action>)> {
        let complete =
            self.services.complete && self.pods.complete && self.nodes.complete && self.slices.complete;
        if !complete {
            return Vec::new();
        }
        let changed = std::mem::take(&mut self.changed);
        let decided = changed.into_iter().map(|name| {
            let actions = self.plan(&name);
            (name, actions)
        });
        decided.filter(|(_, actions)| !actions.is_empty()).collect()
    }

    /// All slices.
    #[cfg(test)]
    pub fn slices(&self) -> Vec<EndpointSlice> {
        self.slices.objects.values().cloned().collect()
    }

    fn plan(&self, name: &Name) -> Vec<Action> {
        let slices: Vec<&EndpointSlice> = self
            .slices_of
            .get(name)
            .into_iter()
            .flatten()
            .filter_map(|slice| self.slices.objects.get(slice))
            .collect();
        let Some(service) = self.services.objects.get(name) else {
            return slices
                .iter()
                .map(|slice| Action::Delete(slice.name_any()))
                .collect();
        };
        let pods: Vec<&Pod> = self
            .pods
            .of_namespace(&name.0)
            .filter(|pod| selects(service, pod))
            .collect();
        let node = |name: &str| self.nodes.objects.get(&(String::new(), name.to_owned()));
        plan(service, &pods, &node, &slices)
    }
}

/// The Service of a slice that this controller writes.
fn service_of(slice: &EndpointSlice) -> Option<Name> {
    let service = slice.labels().get(SERVICE_NAME).filter(|_| is_ours(slice))?;
    Some((slice.namespace().unwrap_or_default(), service.clone()))
}

/// Whether a Service's selector names a pod. A Service without one names none.
fn selects(service: &Service, pod: &Pod) -> bool {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| {
        !selector.is_empty()
            && selector
                .iter()
                .all(|(key, value)| pod.labels().get(key) == Some(value))
    })
}
