//! Services in, addresses out.
#![allow(clippy::unwrap_used, reason = "what panics here fails the test")]

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use serde_json::{Value, json};
use tombolo_operator::load_balancer::plan;

/// A Service that was made in the `age`th second.
fn service(name: &str, age: u32, more: Value, has: &[&str]) -> Service {
    let mut spec = json!({"type": "LoadBalancer", "ipFamilies": ["IPv4"], "ports": [{"port": 80}]});
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    let ingress: Vec<Value> = has.iter().map(|ip| json!({"ip": ip})).collect();
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "default", "uid": name, "creationTimestamp": format!("2026-01-01T00:00:{age:02}Z")},
        "spec": spec,
        "status": {"loadBalancer": {"ingress": ingress}},
    }))
    .unwrap()
}

/// What is done, as `name: addresses`, and what is said, as `name! words`.
fn done(pools: &[&str], services: &[Service]) -> Vec<String> {
    let pools: Vec<IpNet> = pools.iter().map(|p| p.parse().unwrap()).collect();
    let plan = plan(&pools, services);
    let given = plan.assignments.iter().map(|a| {
        let addresses: Vec<String> = a.addresses.iter().map(ToString::to_string).collect();
        format!("{}: {}", a.service.name_any(), addresses.join(","))
    });
    let said = plan
        .problems
        .iter()
        .map(|p| format!("{}! {}", p.service.name_any(), p.message));
    given.chain(said).collect()
}

const POOLS: &[&str] = &["203.0.113.0/29", "2001:db8:99::/120"];

#[test]
fn each_gets_an_address_of_each_family_and_keeps_it() {
    let dual = json!({"ipFamilies": ["IPv6", "IPv4"]});
    assert_eq!(
        done(
            POOLS,
            &[service("b", 2, dual, &[]), service("a", 1, json!({}), &[])]
        ),
        ["a: 203.0.113.1", "b: 2001:db8:99::1,203.0.113.2"]
    );
    let settled = [
        service("a", 2, json!({}), &["203.0.113.5"]),
        service("b", 1, json!({}), &["203.0.113.1"]),
    ];
    assert!(done(POOLS, &settled).is_empty());
    let newer = [&settled[..], &[service("c", 0, json!({}), &[])]].concat();
    assert_eq!(
        done(POOLS, &newer),
        ["c: 203.0.113.2"],
        "not what a younger one has"
    );
}

#[test]
fn others_services_are_left_alone() {
    for more in [
        json!({"type": "NodePort"}),
        json!({"loadBalancerClass": "example.com/other"}),
    ] {
        assert!(done(POOLS, &[service("a", 1, more, &[])]).is_empty());
    }
    assert!(done(&[], &[service("a", 1, json!({}), &["192.0.2.1"])]).is_empty());
    let ours = json!({"loadBalancerClass": "tombolo.dev/lb"});
    assert_eq!(
        done(POOLS, &[service("a", 1, ours.clone(), &[])]),
        ["a: 203.0.113.1"]
    );
    assert!(done(&[], &[service("a", 1, ours, &[])])[0].contains("has no loadBalancerPools of IPv4"));
}

#[test]
fn an_address_that_is_asked_for_is_given_if_it_can_be() {
    let asks = |ip: &str| json!({"loadBalancerIP": ip});
    assert_eq!(
        done(POOLS, &[service("a", 1, asks("203.0.113.4"), &["203.0.113.1"])]),
        ["a: 203.0.113.4"]
    );
    let refused = done(POOLS, &[service("a", 1, asks("192.0.2.1"), &[])]);
    assert!(
        refused[0].starts_with("a! spec.loadBalancerIP 192.0.2.1 is in none"),
        "{refused:?}"
    );
    let refused = done(
        POOLS,
        &[
            service("a", 1, asks("203.0.113.4"), &[]),
            service("b", 2, json!({}), &["203.0.113.4"]),
        ],
    );
    assert!(refused[0].contains("another Service's"), "{refused:?}");
}

#[test]
fn of_two_that_have_the_same_the_older_keeps_it() {
    let both = [
        service("young", 2, json!({}), &["203.0.113.1"]),
        service("old", 1, json!({}), &["203.0.113.1"]),
    ];
    assert_eq!(done(POOLS, &both), ["young: 203.0.113.2"]);
}

#[test]
fn a_pool_that_is_used_up_says_so_until_an_address_is_free() {
    let many: Vec<Service> = (0..7)
        .map(|n| service(&format!("s{n}"), n, json!({}), &[]))
        .collect();
    let done_first = done(POOLS, &many);
    assert_eq!(done_first.len(), 7);
    assert_eq!(
        done_first[5], "s5: 203.0.113.6",
        "neither the network's nor the broadcast address"
    );
    assert!(
        done_first[6].starts_with("s6! no IPv4 address is left"),
        "{done_first:?}"
    );
    let mut settled: Vec<Service> = (0..6)
        .map(|n| service(&format!("s{n}"), n, json!({}), &[&format!("203.0.113.{}", n + 1)]))
        .collect();
    settled.remove(3);
    settled.push(many[6].clone());
    assert_eq!(done(POOLS, &settled), ["s6: 203.0.113.4"]);
}

#[test]
fn an_address_outside_of_the_pools_is_taken_back() {
    assert_eq!(
        done(POOLS, &[service("a", 1, json!({}), &["192.0.2.1"])]),
        ["a: 203.0.113.1"]
    );
}
