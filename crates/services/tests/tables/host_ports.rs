//! Host ports of pods, alone and beside Services that lead to the same pods.

use std::collections::BTreeSet;
use std::time::Instant;

use tombolo_abi::{Backend, BackendState};
use tombolo_services::{
    Attachment, Compiled, HostPort, KernelRows, Owner, Place, Tables, compile_host_ports,
};

use crate::one_backend;
use crate::support::{Kernel, ROOMY};
use crate::views::PODS;
use crate::world::World;

fn pod(number: u8) -> (Owner, Attachment) {
    let owner = World::name(PODS + number);
    let attachment = owner.pod().unwrap().clone();
    (owner, attachment)
}

/// TCP host port 9000 of the pod that is the backend of [`one_backend`]`(0, 0)`.
fn of_the_same_pod() -> (Owner, Compiled) {
    let (owner, attachment) = pod(0);
    let port = HostPort {
        protocol: 6,
        port: 9000.try_into().unwrap(),
        address: None,
        container_port: 8080.try_into().unwrap(),
    };
    let compiled = compile_host_ports(
        &attachment,
        &["10.1.0.0".parse().unwrap()],
        &[port],
        &BTreeSet::new(),
    );
    (owner, compiled)
}

/// The Service whose only endpoint is that pod, which is not ready.
fn not_serving() -> (Owner, Compiled) {
    let (service, mut compiled) = one_backend(0, 0);
    let port = &mut compiled.ports[0];
    port.backends[0].state = BackendState::NotServing as u8;
    port.sets.clear();
    port.frontends.iter_mut().for_each(|f| f.internal = None);
    (service, compiled)
}

/// Where the host port leads.
fn led_to(kernel: &Kernel) -> Vec<Backend> {
    let mut rows = kernel.frontends.values();
    let row = rows.find(|row| row.flags & tombolo_abi::Frontend::HOST_PORT != 0);
    row.map(|row| kernel.slab(row.internal)).unwrap_or_default()
}

#[test]
fn a_host_port_does_not_hide_that_the_pod_no_longer_serves_its_services() {
    let now = Instant::now();
    let mut kernel = Kernel::default();
    let mut tables = Tables::adopt(ROOMY, KernelRows::default(), now);
    let (service, compiled) = one_backend(0, 0);
    let (pod, of_pod) = of_the_same_pod();
    tables.apply(&pod, Some(&of_pod), now).unwrap();
    tables.apply(&service, Some(&compiled), now).unwrap();
    kernel.write_all(&tables.take_changes());
    let row = kernel.frontends[&compiled.ports[0].frontends[0].key];
    let id = kernel.slab_rows[&row.internal.base()].backends[0];

    let (_, unready) = not_serving();
    tables.apply(&service, Some(&unready), now).unwrap();
    let changes = tables.take_changes();
    assert_eq!(
        changes.backends_down,
        [(id, unready.ports[0].backends[0])],
        "the Service's flows choose again"
    );
    kernel.write_all(&changes);
    assert_eq!(
        led_to(&kernel),
        of_pod.ports[0].backends,
        "an unready pod has its host ports"
    );

    // An agent after this one takes both for what they are.
    let mut fresh = Tables::adopt(ROOMY, kernel.rows(), now);
    fresh.apply(&pod, Some(&of_pod), now).unwrap();
    fresh.settle_host_ports(now);
    fresh.apply(&service, Some(&unready), now).unwrap();
    fresh.settle(now);
    let changes = fresh.take_changes();
    assert!(changes.is_empty(), "{changes:?}");

    // The host ports go with the pod, and what a slice still names stays.
    tables.apply(&pod, None, now).unwrap();
    kernel.write_all(&tables.take_changes());
    assert_eq!(kernel.backends[&id], unready.ports[0].backends[0]);
    let mut states = kernel.backends.values().map(|b| b.state);
    assert!(
        states.any(|state| state == BackendState::Gone as u8),
        "the other id"
    );
}

/// An agent that ends between two writes leaves a row that no frontend names: it must not pass for the Service's.
#[test]
fn a_row_that_nothing_names_does_not_take_the_place_of_a_services_backend() {
    let now = Instant::now();
    let mut kernel = Kernel::default();
    let mut tables = Tables::adopt(ROOMY, KernelRows::default(), now);
    let (pod, of_pod) = of_the_same_pod();
    let (service, unready) = not_serving();
    tables.apply(&pod, Some(&of_pod), now).unwrap();
    tables.apply(&service, Some(&unready), now).unwrap();
    kernel.write_all(&tables.take_changes());
    tables.apply(&pod, None, now).unwrap();
    let mut changes = tables.take_changes();
    let down = std::mem::take(&mut changes.backends_down);
    kernel.write_all(&changes);

    let mut tables = Tables::adopt(ROOMY, kernel.rows(), now);
    tables.settle_host_ports(now);
    tables.apply(&service, Some(&unready), now).unwrap();
    tables.settle(now);
    assert_eq!(tables.take_changes().backends_down, down, "what was left to do");
}

#[test]
fn a_host_port_leads_to_the_first_address_of_each_family() {
    let (_, attachment) = pod(0);
    let port = HostPort {
        protocol: 6,
        port: 80.try_into().unwrap(),
        address: None,
        container_port: 8080.try_into().unwrap(),
    };
    let addresses = ["10.1.0.7", "10.1.0.6", "fd00::7", "fd00::6"].map(|a| a.parse().unwrap());
    let compiled = compile_host_ports(&attachment, &addresses, &[port], &BTreeSet::new());
    let led_to = compiled.ports.iter().flat_map(|p| &p.backends);
    let led_to: Vec<std::net::IpAddr> = led_to.map(|b| b.address.into()).collect();
    assert_eq!(led_to, [addresses[0], addresses[2]]);
}

#[test]
fn a_pods_host_port_goes_before_the_oldest_service_and_leaves_it_after() {
    let now = Instant::now();
    let mut tables = Tables::adopt(ROOMY, KernelRows::default(), now);
    let (service, compiled) = one_backend(0, 0);
    tables.apply(&service, Some(&compiled), now).unwrap();
    tables.take_changes();
    let pod = World::name(PODS);
    let key = compiled.ports[0].frontends[0].key;
    let Owner::Pod(attachment) = &pod else {
        panic!("{pod}")
    };
    let port = HostPort {
        protocol: 6,
        port: 80.try_into().unwrap(),
        address: Some(key.address.into()),
        container_port: 8080.try_into().unwrap(),
    };
    let addresses = ["10.1.0.7".parse().unwrap(), "fd00::7".parse().unwrap()];
    let of_node = [key.address.into()].into();
    let of_pod = compile_host_ports(attachment, &addresses, std::slice::from_ref(&port), &of_node);
    tables.apply(&pod, Some(&of_pod), now).unwrap();
    let changes = tables.take_changes();
    assert_eq!((changes.frontends.len(), changes.frontends[0].0), (1, key));
    let told: Vec<String> = changes.conflicts.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "10.0.0.0:80/TCP is a host port of pod default/p4 on this node, which goes before Services; take it from the pod, or give Service default/s0 another"
        ]
    );
    assert_eq!(
        tables.owners().map(|(_, owner)| owner).collect::<Vec<_>>(),
        [&pod]
    );
    tables.apply(&pod, None, now).unwrap();
    assert_eq!(tables.take_changes().frontends.len(), 1);
    assert_eq!(
        tables.owners().map(|(_, owner)| owner).collect::<Vec<_>>(),
        [&service]
    );

    // Where the node does not have the address, it stays whose it is.
    let of_pod = compile_host_ports(attachment, &addresses, &[port], &BTreeSet::new());
    assert_eq!(
        of_pod.problems,
        ["pod default/p4: host port 10.0.0.0:80/TCP is not served: the node does not have 10.0.0.0 now"]
    );
    assert!(of_pod.ports.is_empty());
}

#[test]
fn host_ports_are_at_the_addresses_of_each_family() {
    let Owner::Pod(pod) = World::name(PODS) else {
        panic!("a pod")
    };
    let places = |address: Option<&str>| -> Vec<String> {
        let port = HostPort {
            protocol: 17,
            port: 53.try_into().unwrap(),
            address: address.map(|a| a.parse().unwrap()),
            container_port: 5353.try_into().unwrap(),
        };
        let addresses = ["10.1.0.7".parse().unwrap(), "fd00::7".parse().unwrap()];
        let compiled = compile_host_ports(&pod, &addresses, &[port], &BTreeSet::new());
        let ports = compiled.ports.iter();
        ports
            .map(|port| {
                assert_eq!(
                    (port.backends.len(), u16::from_be(port.backends[0].port)),
                    (1, 5353)
                );
                let [frontend] = &port.frontends[..] else {
                    panic!("{port:?}")
                };
                assert_eq!((frontend.internal, frontend.external), (Some(0), Some(0)));
                let backend = std::net::IpAddr::from(port.backends[0].address);
                format!("{} to {backend}", Place(frontend.key).of_host_port())
            })
            .collect()
    };
    let (v4, v6) = (
        "host port 53/UDP (IPv4) to 10.1.0.7",
        "host port 53/UDP (IPv6) to fd00::7",
    );
    assert_eq!(places(None), [v4, v6]);
    assert_eq!(places(Some("0.0.0.0")), [v4]);
    assert_eq!(places(Some("::")), [v6]);
    assert_eq!(places(Some("127.0.0.2")), ["127.0.0.2:53/UDP to 10.1.0.7"]);
    assert_eq!(places(Some("::1")), ["[::1]:53/UDP to fd00::7"]);
    assert_eq!(places(Some("192.0.2.1")), [""; 0]);

    let mut sctp = HostPort {
        protocol: 132,
        port: 80.try_into().unwrap(),
        address: None,
        container_port: 81.try_into().unwrap(),
    };
    let problems = |port: &HostPort| {
        let port = std::slice::from_ref(port);
        compile_host_ports(&pod, &["10.1.0.7".parse().unwrap()], port, &BTreeSet::new()).problems
    };
    assert!(
        problems(&sctp)[0].contains("which would be 81 to the pod"),
        "{:?}",
        problems(&sctp)
    );
    sctp.container_port = sctp.port;
    assert_eq!(problems(&sctp), [""; 0]);
}
