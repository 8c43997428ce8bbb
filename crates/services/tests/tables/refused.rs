//! Whom there is no room for at a restart.

use std::collections::BTreeSet;
use std::time::Instant;

use tombolo_abi::Frontend;
use tombolo_services::{Capacity, Changes, HostPort, KernelRows, Tables, compile_host_ports};

use crate::draft::v4;
use crate::one_backend;
use crate::support::{Kernel, ROOMY};
use crate::views::PODS;
use crate::world::{ID_REST, World};

/// A table that is full when an agent begins: whom there is no room for now keeps what the agent before has written.
#[test]
fn what_is_refused_at_a_restart_keeps_what_it_had() {
    let now = Instant::now();
    let capacity = Capacity { backends: 4, ..ROOMY };
    let (first, first_compiled) = one_backend(0, 0);
    let (second, second_compiled) = {
        let (name, mut compiled) = one_backend(1, 1);
        compiled.ports[0].affinity_timeout = 60;
        compiled.ports[0].frontends[0].limited = true;
        compiled.source_ranges = vec!["192.168.0.0/24".parse().unwrap()];
        compiled.addresses = vec![v4(0, 1)];
        (name, compiled)
    };
    let mut kernel = Kernel::default();
    let mut tables = Tables::adopt(capacity, KernelRows::default(), now);
    tables.apply(&first, Some(&first_compiled), now).unwrap();
    tables.apply(&second, Some(&second_compiled), now).unwrap();
    kernel.write_all(&tables.take_changes());
    let before = kernel.clone();

    // Meanwhile it has come to need more than there is, and the other one is as it was.
    let mut grown = second_compiled.clone();
    for backend in 2..4 {
        let mut more = grown.ports[0].backends[0];
        more.address = v4(1, backend);
        grown.ports[0].backends.push(more);
        grown.ports[0].sets[0].members.push(u32::from(backend) - 1);
    }
    let mut tables = Tables::adopt(capacity, kernel.rows(), now);
    let restart = |tables: &mut Tables| {
        tables.apply(&first, Some(&first_compiled), now).unwrap();
        tables.apply(&second, Some(&grown), now).unwrap_err();
        tables.settle(now);
        assert_eq!(tables.take_changes(), Changes::default());
    };
    restart(&mut tables);

    // There is room when the other one goes; nothing of what it had stays behind then.
    tables.apply(&first, None, now).unwrap();
    tables.apply(&second, Some(&grown), now).unwrap_err();
    kernel.write_all(&tables.take_changes());
    tables.apply(&second, Some(&grown), now).unwrap_err();
    tables.apply(&second, Some(&grown), now + ID_REST).unwrap();
    kernel.write_all(&tables.take_changes());
    let mut fresh = Tables::adopt(capacity, kernel.rows(), now + ID_REST);
    fresh.apply(&second, Some(&grown), now + ID_REST).unwrap();
    fresh.settle(now + ID_REST);
    assert!(fresh.take_changes().is_empty(), "all is as the Service says");

    // It goes itself, and so does what it had.
    let mut kernel = before;
    let mut tables = Tables::adopt(capacity, kernel.rows(), now);
    restart(&mut tables);
    tables.apply(&second, None, now).unwrap();
    kernel.write_all(&tables.take_changes());
    let mut fresh = Tables::adopt(capacity, kernel.rows(), now);
    fresh.apply(&first, Some(&first_compiled), now).unwrap();
    fresh.settle(now);
    assert!(fresh.take_changes().is_empty(), "nothing is left of it");
}

/// What a Service that is gone has left at an address is not the next one's that gets the address.
#[test]
fn what_is_refused_at_a_restart_does_not_get_what_another_had() {
    let now = Instant::now();
    let capacity = Capacity { backends: 3, ..ROOMY };
    let (gone, gone_compiled) = one_backend(0, 0);
    let (other, other_compiled) = one_backend(1, 1);
    let mut kernel = Kernel::default();
    let mut tables = Tables::adopt(capacity, KernelRows::default(), now);
    tables.apply(&gone, Some(&gone_compiled), now).unwrap();
    tables.apply(&other, Some(&other_compiled), now).unwrap();
    kernel.write_all(&tables.take_changes());

    let (next, mut compiled) = one_backend(2, 2);
    let key = gone_compiled.ports[0].frontends[0].key;
    compiled.ports[0].frontends[0].key = key;
    let mut tables = Tables::adopt(capacity, kernel.rows(), now);
    tables.apply(&other, Some(&other_compiled), now).unwrap();
    tables.apply(&next, Some(&compiled), now).unwrap_err();
    tables.settle(now);
    let changes = tables.take_changes();
    assert_eq!(changes.frontends_gone, [key]);
    assert_eq!(changes.backends_gone().count(), 1, "{changes:?}");
    kernel.write_all(&changes);
}

#[test]
fn what_is_refused_at_a_restart_loses_the_backends_that_it_no_longer_names() {
    let now = Instant::now();
    let with = |backends: &[u8]| {
        let (name, mut compiled) = one_backend(0, 0);
        let port = &mut compiled.ports[0];
        let of = |b: &u8| tombolo_abi::Backend {
            address: v4(1, *b),
            ..port.backends[0]
        };
        port.backends = backends.iter().map(of).collect();
        port.sets[0].members = (0..backends.len() as u32).collect();
        (name, compiled)
    };
    let mut kernel = Kernel::default();
    let mut tables = Tables::adopt(ROOMY, KernelRows::default(), now);
    let (name, compiled) = with(&[0, 1]);
    tables.apply(&name, Some(&compiled), now).unwrap();
    kernel.write_all(&tables.take_changes());

    let capacity = Capacity { backends: 4, ..ROOMY };
    let mut tables = Tables::adopt(capacity, kernel.rows(), now);
    let (_, grown) = with(&[1, 2, 3]);
    tables.apply(&name, Some(&grown), now).unwrap_err();
    tables.settle(now);
    let changes = tables.take_changes();
    let gone: Vec<_> = changes.backends_gone().map(|(_, b)| b.address).collect();
    assert_eq!((changes.writes(), gone), (1, vec![v4(1, 0)]));
}

#[test]
fn a_pod_that_is_refused_at_a_restart_keeps_what_it_had() {
    let now = Instant::now();
    let capacity = Capacity {
        frontends: 2,
        ..ROOMY
    };
    let pod = World::name(PODS);
    let ports = [9000, 9001].map(|port| HostPort {
        protocol: 6,
        port: port.try_into().unwrap(),
        address: (port == 9001).then(|| "192.0.2.1".parse().unwrap()),
        container_port: 8080.try_into().unwrap(),
    });
    let compiled = |node: &BTreeSet<std::net::IpAddr>| {
        let addresses = ["10.1.0.7".parse().unwrap()];
        compile_host_ports(pod.pod().unwrap(), &addresses, &ports, node)
    };
    let (service, of_service) = one_backend(0, 0);
    let mut kernel = Kernel::default();
    let mut tables = Tables::adopt(capacity, KernelRows::default(), now);
    tables
        .apply(&pod, Some(&compiled(&BTreeSet::new())), now)
        .unwrap();
    tables.apply(&service, Some(&of_service), now).unwrap();
    kernel.write_all(&tables.take_changes());

    // Meanwhile the node has got the address of the other one, for which there is no room.
    let grown = compiled(&["192.0.2.1".parse().unwrap()].into());
    let mut tables = Tables::adopt(capacity, kernel.rows(), now);
    tables.apply(&pod, Some(&grown), now).unwrap_err();
    tables.settle_host_ports(now);
    assert_eq!(tables.take_changes(), Changes::default());

    // It goes before any Service is known, and so does what it had.
    tables.apply(&pod, None, now).unwrap();
    let changes = tables.take_changes();
    assert_eq!(
        (changes.frontends_gone.len(), changes.backends_gone().count()),
        (1, 1)
    );

    // Or all become known, and it stays.
    let mut tables = Tables::adopt(capacity, kernel.rows(), now);
    tables.apply(&pod, Some(&grown), now).unwrap_err();
    tables.settle_host_ports(now);
    tables.apply(&service, Some(&of_service), now).unwrap();
    tables.settle(now);
    assert_eq!(tables.take_changes(), Changes::default());
    let has_host_port = |kernel: &Kernel| {
        let mut rows = kernel.frontends.values();
        rows.any(|row| row.flags & Frontend::HOST_PORT != 0)
    };
    assert!(has_host_port(&kernel));
    tables.apply(&pod, None, now).unwrap();
    kernel.write_all(&tables.take_changes());
    assert!(!has_host_port(&kernel));
}
