//! Objects go in, slices come out.

use std::collections::BTreeSet;

use kube::ResourceExt;
use serde_json::{Value, json};

use super::plan::MOST_ENDPOINTS;
use super::*;

/// A cluster whose API does what it is told.
#[derive(Default)]
struct World {
    cluster: Cluster,
    made: usize,
}

fn object<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn service(more: Value) -> Service {
    let mut spec = json!({
        "type": "ClusterIP", "clusterIP": "10.96.0.5", "ipFamilies": ["IPv4"], "selector": {"app": "web"},
        "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
    });
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    object(
        json!({"metadata": {"name": "web", "namespace": "default", "uid": "s-1", "labels": {"tier": "front"}}, "spec": spec}),
    )
}

fn pod(n: usize, ready: bool) -> Pod {
    object(json!({
        "metadata": {"name": format!("p{n}"), "namespace": "default", "uid": format!("u{n:04}"), "labels": {"app": "web"}},
        "spec": {"nodeName": format!("n{}", n % 2), "containers": [{"name": "main", "ports": [{"name": "web", "containerPort": 8000 + n % 2}]}]},
        "status": {
            "phase": "Running",
            "podIPs": [{"ip": format!("10.244.{}.{}", n / 250, n % 250 + 1)}, {"ip": format!("fd00::{n:x}1")}],
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
        },
    }))
}

fn ending(mut pod: Pod) -> Pod {
    pod.metadata.deletion_timestamp = Some(object(json!("2026-01-01T00:00:00Z")));
    pod
}

impl World {
    fn new(service: Service, pods: impl IntoIterator<Item = Pod>) -> Self {
        let mut world = Self::default();
        let cluster = &mut world.cluster;
        cluster.service(Event::InitApply(service));
        for pod in pods {
            cluster.pod(Event::InitApply(pod));
        }
        for n in 0..2 {
            cluster.node(Event::InitApply(object(json!({
                "metadata": {"name": format!("n{n}"), "labels": {"topology.kubernetes.io/zone": format!("z{n}")}},
            }))));
        }
        assert!(
            cluster.decide().is_empty(),
            "nothing is decided before all is known"
        );
        cluster.service(Event::InitDone);
        cluster.pod(Event::InitDone);
        cluster.node(Event::InitDone);
        cluster.slice(Event::InitDone);
        world.settle();
        world
    }

    /// Does what is decided; how many slices that wrote.
    fn settle(&mut self) -> usize {
        let mut wrote = 0;
        for (service, actions) in self.cluster.decide() {
            for action in actions {
                wrote += 1;
                self.cluster.wrote(match action {
                    Action::Create(mut slice) => {
                        self.made += 1;
                        slice.metadata.name = Some(format!("web-{}", self.made));
                        Wrote::Slice(Box::new(slice))
                    }
                    Action::Replace(slice) => Wrote::Slice(Box::new(slice)),
                    Action::Delete(name) => Wrote::Gone((service.0.clone(), name)),
                });
            }
        }
        let more: Vec<_> = self.cluster.decide();
        assert!(more.is_empty(), "it is settled: {more:?}");
        wrote
    }

    fn slices(&self) -> Vec<EndpointSlice> {
        self.cluster.slices()
    }

    /// `address ready/serving/terminating` of each endpoint, in the order of addresses.
    fn endpoints(&self) -> Vec<String> {
        let slices = self.slices();
        let all = slices.iter().flat_map(|slice| &slice.endpoints);
        let shown = all.map(|e| {
            let c = e.conditions.clone().unwrap();
            let letter = |is: Option<bool>, letter: char| if is == Some(true) { letter } else { '-' };
            let letters = [
                letter(c.ready, 'r'),
                letter(c.serving, 's'),
                letter(c.terminating, 't'),
            ];
            format!("{} {}", e.addresses.join(","), letters.iter().collect::<String>())
        });
        shown.collect::<BTreeSet<_>>().into_iter().collect()
    }
}

#[test]
fn a_slice_says_what_a_pod_is_like() {
    let mut over = pod(3, true);
    over.status.as_mut().unwrap().phase = Some("Succeeded".to_owned());
    let mut other = pod(4, true);
    other.metadata.labels = None;
    let world = World::new(
        service(json!({})),
        [pod(0, true), pod(1, false), ending(pod(2, true)), over, other],
    );
    assert_eq!(
        world.endpoints(),
        ["10.244.0.1 rs-", "10.244.0.2 ---", "10.244.0.3 -st"]
    );
    let slices = world.slices();
    let [slice] = slices.as_slice() else {
        panic!("{slices:?}")
    };
    let labels = serde_json::to_value(slice.labels()).unwrap();
    assert_eq!(
        labels,
        json!({
            "tier": "front",
            "kubernetes.io/service-name": "web",
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        })
    );
    assert_eq!(slice.owner_references()[0].uid, "s-1");
    let first = serde_json::to_value(&slice.endpoints[0]).unwrap();
    assert_eq!((&first["nodeName"], &first["zone"]), (&json!("n0"), &json!("z0")));
    assert_eq!(first["targetRef"]["name"], "p0");
    assert_eq!(
        serde_json::to_value(&slice.ports).unwrap(),
        json!([{"name": "http", "port": 8080, "protocol": "TCP"}])
    );
}

#[test]
fn what_is_not_ready_is_published_where_that_is_asked_for() {
    let world = World::new(
        service(json!({"publishNotReadyAddresses": true})),
        [pod(0, false), ending(pod(1, true))],
    );
    assert_eq!(world.endpoints(), ["10.244.0.1 r--", "10.244.0.2 rst"]);
}

#[test]
fn each_family_has_its_slices_and_a_headless_service_is_marked() {
    let both = json!({"ipFamilies": ["IPv6", "IPv4"], "clusterIP": "None"});
    let mut world = World::new(service(both), [pod(0, true)]);
    assert_eq!(world.endpoints(), ["10.244.0.1 rs-", "fd00::01 rs-"]);
    assert!(
        world
            .slices()
            .iter()
            .all(|s| s.labels()["service.kubernetes.io/headless"].is_empty())
    );
    world
        .cluster
        .service(Event::Apply(service(json!({"ipFamilies": ["IPv6"]}))));
    world.settle();
    assert_eq!(world.endpoints(), ["fd00::01 rs-"]);
    assert!(
        !world.slices()[0]
            .labels()
            .contains_key("service.kubernetes.io/headless")
    );
}

#[test]
fn a_named_port_is_each_pods_own() {
    let named = json!({"ports": [{"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"}]});
    let world = World::new(service(named), [pod(0, true), pod(1, true), pod(2, true)]);
    let slices = world.slices();
    let mut found: Vec<(i32, usize)> = slices
        .iter()
        .map(|s| (s.ports.as_ref().unwrap()[0].port.unwrap(), s.endpoints.len()))
        .collect();
    found.sort_unstable();
    assert_eq!(found, [(8000, 2), (8001, 1)]);
}

#[test]
fn hints_name_the_zone_and_the_node_of_ready_endpoints() {
    for (wish, zones, nodes) in [
        ("PreferClose", json!([{"name": "z0"}]), Value::Null),
        ("PreferSameZone", json!([{"name": "z0"}]), Value::Null),
        ("PreferSameNode", json!([{"name": "z0"}]), json!([{"name": "n0"}])),
    ] {
        let world = World::new(
            service(json!({"trafficDistribution": wish})),
            [pod(0, true), pod(1, false)],
        );
        let slice = serde_json::to_value(&world.slices()[0]).unwrap();
        let hints = &slice["endpoints"][0]["hints"];
        assert_eq!(
            (&hints["forZones"], &hints["forNodes"]),
            (&zones, &nodes),
            "{wish}"
        );
        assert!(slice["endpoints"][1]["hints"].is_null(), "it is not ready");
    }
}

#[test]
fn a_change_is_written_where_the_endpoint_is_and_slices_stay_small() {
    let mut world = World::new(service(json!({})), (0..250).map(|n| pod(n, true)));
    let sizes = |world: &World| {
        let mut sizes: Vec<usize> = world.slices().iter().map(|s| s.endpoints.len()).collect();
        sizes.sort_unstable();
        sizes
    };
    assert_eq!(sizes(&world), [50, MOST_ENDPOINTS, MOST_ENDPOINTS]);
    world.cluster.pod(Event::Apply(pod(7, false)));
    assert_eq!(world.settle(), 1);
    assert!(world.endpoints().contains(&"10.244.0.8 ---".to_owned()));
    world.cluster.pod(Event::Delete(pod(8, true)));
    assert_eq!(world.settle(), 1);
    world.cluster.pod(Event::Apply(pod(300, true)));
    assert_eq!(world.settle(), 1);
    assert_eq!(sizes(&world).iter().sum::<usize>(), 250);
    world.cluster.pod(Event::Apply(pod(300, true)));
    assert_eq!(world.settle(), 0, "nothing has changed");
}

#[test]
fn without_endpoints_a_slice_says_so_and_goes_with_the_service() {
    let mut world = World::new(service(json!({})), []);
    assert_eq!((world.slices().len(), world.endpoints().len()), (1, 0));
    world.cluster.pod(Event::Apply(pod(0, true)));
    world.settle();
    assert_eq!((world.slices().len(), world.endpoints().len()), (1, 1));
    world.cluster.pod(Event::Delete(pod(0, true)));
    world.settle();
    assert_eq!((world.slices().len(), world.endpoints().len()), (1, 0));
    world.cluster.service(Event::Delete(service(json!({}))));
    world.settle();
    assert!(world.slices().is_empty());
}

#[test]
fn what_others_say_of_a_service_is_left_alone() {
    let theirs: EndpointSlice = object(json!({
        "metadata": {"name": "theirs", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "endpoints": [],
    }));
    let mut world = World::new(service(json!({"selector": null})), [pod(0, true)]);
    world.cluster.slice(Event::Apply(theirs));
    assert_eq!(world.settle(), 0);
    world.cluster.service(Event::Delete(service(json!({}))));
    assert_eq!(world.settle(), 0);
    assert_eq!(world.slices().len(), 1);
}

#[test]
fn a_slice_that_somebody_changed_is_put_right() {
    let mut world = World::new(service(json!({})), [pod(0, true)]);
    let mut slice = world.slices().remove(0);
    slice.endpoints.clear();
    world.cluster.slice(Event::Apply(slice.clone()));
    assert_eq!(world.settle(), 1);
    assert_eq!(world.endpoints(), ["10.244.0.1 rs-"]);
    let gone = world.slices().remove(0);
    world.cluster.slice(Event::Delete(gone));
    assert_eq!(world.settle(), 1);
    assert_eq!(world.endpoints(), ["10.244.0.1 rs-"]);
}
