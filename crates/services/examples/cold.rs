//! What the start of an agent costs here: 10,000 Services with 2 endpoints each, from objects to rows, and the memory
//! that the tables keep. `cargo run --release -p tombolo-services --example cold [SERVICES]`

#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use std::time::Instant;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::json;
use tombolo_services::{Capacity, Facts, KernelRows, ServiceName, Tables, compile};

const CAPACITY: Capacity = Capacity {
    frontends: 262_144,
    slab_rows: 262_144,
    backends: 131_072,
    source_ranges: 16_384,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let count: u32 = std::env::args().nth(1).map_or(Ok(10_000), |n| n.parse())?;
    let objects = (0..count).map(objects).collect::<Result<Vec<_>, _>>()?;
    let facts = Facts {
        node: "node1".into(),
        ..Facts::default()
    };
    let start = Instant::now();
    let before = resident_kib()?;
    let mut tables = Tables::adopt(CAPACITY, KernelRows::default(), start);
    for (name, service, slice) in &objects {
        tables.apply(
            &name.clone().into(),
            compile(service, [slice], &facts).as_ref(),
            start,
        )?;
    }
    tables.settle(start);
    let changes = tables.take_changes();
    let took = start.elapsed();
    let rows = changes.writes();
    drop(changes);
    println!(
        "{count} Services: {rows} rows in {took:?}; {} KiB more resident",
        resident_kib()? - before
    );

    let (name, service, slice) = &objects[objects.len() / 2];
    let mut slice = slice.clone();
    slice.endpoints.pop();
    let start = Instant::now();
    tables.apply(
        &name.clone().into(),
        compile(service, [&slice], &facts).as_ref(),
        start,
    )?;
    let rows = tables.take_changes().writes();
    println!("one endpoint less: {rows} rows in {:?}", start.elapsed());
    Ok(())
}

fn objects(i: u32) -> Result<(ServiceName, Service, EndpointSlice), serde_json::Error> {
    let [_, a, b, c] = i.to_be_bytes();
    let name = format!("service-{i}");
    let ip = format!("10.{}.{b}.{c}", 96 + a);
    let service = json!({
        "metadata": {"namespace": "default", "name": name},
        "spec": {"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "ports": [{"port": 80, "protocol": "TCP"}]},
    });
    let endpoint =
        |half: u32| json!({"addresses": [format!("10.{}.{b}.{c}", 128 + 64 * half)], "nodeName": "node2"});
    let slice = json!({
        "metadata": {
            "namespace": "default", "name": format!("{name}-1"), "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        "endpoints": [endpoint(0), endpoint(1)],
    });
    Ok((
        ServiceName::new("default", name),
        serde_json::from_value(service)?,
        serde_json::from_value(slice)?,
    ))
}

/// The memory of this process.
fn resident_kib() -> Result<u64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let kib = line.and_then(|l| l.split_whitespace().next()).ok_or("no VmRSS")?;
    Ok(kib.parse()?)
}
