//! Whatever Services and slices there are, on whichever node: a client meets what the documentation says.
//!
//! The rows that the compiler and the tables write are read as the programs read them, and compared with the rules of
//! `rules.rs`, which know nothing of either.

#![allow(clippy::unwrap_used, reason = "what panics here fails the test")]

mod drawn;
mod rules;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use drawn::{dials, service, slice};
use proptest::prelude::*;
use rules::{Dial, Fate, NODE, ZONE, local_ready, oracle, own_addresses, proxied};
use support::{Kernel, ROOMY, cases};
use tombolo_abi::{Addr, FrontendKey};
use tombolo_services::{Facts, KernelRows, ServiceName, Tables, compile};

fn by_rows(kernel: &Kernel, dial: &Dial) -> Fate {
    let key = |address: Addr, port: u16, protocol: u8| FrontendKey {
        address,
        port: port.to_be(),
        protocol,
        pad: 0,
    };
    let protocol = if dial.udp { 17 } else { 6 };
    let address = Addr::from(dial.address);
    let any = if dial.address.is_ipv4() {
        Addr::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    } else {
        Addr::UNSPECIFIED
    };
    let mut row = kernel.frontends.get(&key(address, dial.port, protocol));
    if row.is_none() && own_addresses().contains(&dial.address) {
        row = kernel.frontends.get(&key(any, dial.port, protocol));
    }
    let Some(row) = row else {
        let whole = kernel.frontends.contains_key(&key(address, 0, 0));
        return if whole { Fate::Refused } else { Fate::Passes };
    };
    if let Some(clients) = kernel.clients(row.source_ranges) {
        let client = Addr::from(dial.client);
        if !clients.iter().any(|(len, range)| client.masked(*len) == *range) {
            return Fate::Dropped;
        }
    }
    let (slab, drop) = if dial.inside {
        (row.internal, tombolo_abi::Frontend::DROP_INTERNAL)
    } else {
        (row.external, tombolo_abi::Frontend::DROP_EXTERNAL)
    };
    let backends: BTreeSet<_> = kernel
        .slab(slab)
        .iter()
        .map(|b| (b.address.into(), u16::from_be(b.port)))
        .collect();
    match (backends.is_empty(), row.flags & drop != 0) {
        (true, true) => Fate::Dropped,
        (true, false) => Fate::Refused,
        (false, dropped) => {
            assert!(!dropped, "{row:?} drops, and has backends");
            assert_eq!(row.affinity == 0, row.affinity_timeout == 0);
            Fate::Goes(backends, row.affinity_timeout)
        }
    }
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn every_client_meets_what_the_documentation_says(
        services in (service(0), service(1), service(2)),
        slices in prop::collection::vec(any::<prop::sample::Index>(), 0..6)
            .prop_flat_map(|some| (0..some.len()).map(slice).collect::<Vec<_>>()),
    ) {
        let services = [services.0, services.1, services.2];
        let facts = Facts {
            node: NODE.into(),
            zone: Some(ZONE.into()),
            node_addresses: own_addresses().into(),
        };
        let now = Instant::now();
        let mut tables = Tables::adopt(ROOMY, KernelRows::default(), now);
        for service in &services {
            let name = ServiceName::new("default", service.metadata.name.clone().unwrap());
            let compiled = compile(service, &slices, &facts);
            // The order in which slices come does not matter.
            prop_assert_eq!(&compile(service, slices.iter().rev(), &facts), &compiled);
            prop_assert_eq!(compiled.is_some(), proxied(service));
            if let Some(check) = compiled.as_ref().and_then(|c| c.health_check) {
                prop_assert_eq!(check.local_endpoints, local_ready(service, &slices));
            }
            tables.apply(&name.clone().into(), compiled.as_ref(), now).unwrap();
        }
        let mut kernel = Kernel::default();
        kernel.write_all(&tables.take_changes());
        for dial in dials() {
            prop_assert_eq!(by_rows(&kernel, &dial), oracle(&services, &slices, &dial), "{:?}", dial);
        }
    }
}
