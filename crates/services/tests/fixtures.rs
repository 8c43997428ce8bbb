//! Manifests in, what is reached out: every `tests/fixtures/*.yaml` compiles to the `.txt` beside it.
//!
//! After a wanted change, `UPDATE_FIXTURES=1 cargo test -p tombolo-services` writes the texts anew; read the difference
//! before you commit it.

#![allow(clippy::unwrap_used, reason = "what panics here fails the test")]

mod support;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::time::Instant;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::Deserialize;
use support::ROOMY;
use tombolo_abi::{Backend, BackendState};
use tombolo_services::{
    Compiled, Facts, Frontend, KernelRows, Place, Port, Scope, ServiceName, Spread, Tables, compile,
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FactsDocument {
    #[serde(rename = "kind")]
    _kind: String,
    node: String,
    zone: Option<String>,
    #[serde(default)]
    node_addresses: BTreeSet<IpAddr>,
}

#[derive(Default)]
struct Manifests {
    facts: Facts,
    services: Vec<Service>,
    slices: Vec<EndpointSlice>,
}

impl Manifests {
    fn read(text: &str) -> Self {
        let mut all = Self::default();
        let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(text).unwrap();
        for mut document in documents {
            // Most slices are plain: the fixtures leave out what does not matter to them.
            let kind = document["kind"].as_str().unwrap().to_owned();
            document["metadata"]["namespace"] = "default".into();
            match kind.as_str() {
                "Service" => all.services.push(serde_json::from_value(document).unwrap()),
                "EndpointSlice" => {
                    let service = document["service"].take();
                    if !service.is_null() {
                        document["metadata"]["labels"]["kubernetes.io/service-name"] = service;
                    }
                    all.slices.push(serde_json::from_value(document).unwrap());
                }
                "Facts" => {
                    document.as_object_mut().unwrap().remove("metadata");
                    let facts: FactsDocument = serde_json::from_value(document).unwrap();
                    all.facts = Facts {
                        node: facts.node,
                        zone: facts.zone,
                        node_addresses: facts.node_addresses,
                    };
                }
                other => panic!("unknown kind {other}"),
            }
        }
        assert!(!all.facts.node.is_empty(), "the Facts are missing");
        all
    }
}

#[test]
fn every_fixture_compiles_to_its_text() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut names: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    names.retain(|p| p.extension().is_some_and(|e| e == "yaml"));
    names.sort();
    assert!(
        names.len() >= 25,
        "fixtures are missing from {}",
        folder.display()
    );
    let update = std::env::var_os("UPDATE_FIXTURES").is_some();
    let mut different = String::new();
    for path in names {
        let text = render(&Manifests::read(&std::fs::read_to_string(&path).unwrap()));
        let expected = path.with_extension("txt");
        if update {
            std::fs::write(&expected, &text).unwrap();
            continue;
        }
        let want = std::fs::read_to_string(&expected).unwrap_or_default();
        if want != text {
            let path = path.display();
            writeln!(different, "{path}:\n--- expected\n{want}\n--- found\n{text}").unwrap();
        }
    }
    assert!(different.is_empty(), "{different}");
}

fn render(manifests: &Manifests) -> String {
    let mut out = String::new();
    let now = Instant::now();
    let mut tables = Tables::adopt(ROOMY, KernelRows::default(), now);
    for service in &manifests.services {
        let name = ServiceName::new("default", service.metadata.name.clone().unwrap());
        let compiled = compile(service, &manifests.slices, &manifests.facts);
        tables
            .apply(&name.clone().into(), compiled.as_ref(), now)
            .unwrap();
        writeln!(out, "service {name}").unwrap();
        match compiled {
            Some(compiled) => render_service(&mut out, &compiled),
            None => writeln!(out, "  nothing to program").unwrap(),
        }
    }
    for conflict in tables.conflicts() {
        writeln!(out, "conflict: {conflict}").unwrap();
    }
    out
}

fn render_service(out: &mut String, service: &Compiled) {
    for port in &service.ports {
        render_port(out, port);
    }
    if !service.addresses.is_empty() {
        writeln!(
            out,
            "  other ports refused at {}",
            join(service.addresses.iter().map(|a| IpAddr::from(*a)))
        )
        .unwrap();
    }
    if !service.source_ranges.is_empty() {
        writeln!(out, "  source ranges {}", join(&service.source_ranges)).unwrap();
    }
    if let Some(check) = service.health_check {
        writeln!(
            out,
            "  health check at port {}: {} local",
            check.port, check.local_endpoints
        )
        .unwrap();
    }
    for problem in &service.problems {
        writeln!(out, "  problem: {problem}").unwrap();
    }
}

fn render_port(out: &mut String, port: &Port) {
    let family = port.family.name();
    writeln!(
        out,
        "  port `{}` {family}: {}",
        port.name,
        join(port.backends.iter().map(backend))
    )
    .unwrap();
    if port.affinity_timeout > 0 {
        writeln!(out, "    affinity for {} s", port.affinity_timeout).unwrap();
    }
    for frontend in &port.frontends {
        let scope = match frontend.scope {
            Scope::ClusterIp => "cluster IP ",
            Scope::LoadBalancer => "load balancer ",
            Scope::ExternalIp => "external IP ",
            Scope::NodePort | Scope::HostPort => "",
        };
        let limited = if frontend.limited {
            ", source ranges only"
        } else {
            ""
        };
        writeln!(out, "    {scope}{}{limited}", Place(frontend.key)).unwrap();
        let drops = |flag: u32| frontend.flags & flag != 0;
        let internal = set(
            port,
            frontend.internal,
            drops(tombolo_abi::Frontend::DROP_INTERNAL),
        );
        let external = set(
            port,
            frontend.external,
            drops(tombolo_abi::Frontend::DROP_EXTERNAL),
        );
        if same(frontend) {
            writeln!(out, "      {internal}").unwrap();
        } else {
            writeln!(out, "      internal: {internal}\n      external: {external}").unwrap();
        }
    }
}

fn same(frontend: &Frontend) -> bool {
    let both = tombolo_abi::Frontend::DROP_INTERNAL | tombolo_abi::Frontend::DROP_EXTERNAL;
    frontend.internal == frontend.external && (frontend.flags == 0 || frontend.flags == both)
}

fn set(port: &Port, set: Option<usize>, drops: bool) -> String {
    let Some(set) = set.map(|s| &port.sets[s]) else {
        return if drops { "dropped".into() } else { "refused".into() };
    };
    assert!(!drops, "dropped, and there are backends");
    let spread = match set.spread {
        Spread::Random => "random",
        Spread::Maglev => "maglev",
    };
    let address = |b: &Backend| format!("{}", Address(b));
    let members = set.members.iter().map(|m| address(&port.backends[*m as usize]));
    format!("{spread} {}", join(members))
}

fn backend(backend: &Backend) -> String {
    let serves = backend.state == BackendState::Serving as u8;
    format!(
        "{}{}",
        Address(backend),
        if serves { "" } else { " (not serving)" }
    )
}

struct Address<'a>(&'a Backend);

impl std::fmt::Display for Address<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::net::SocketAddr::new(self.0.address.into(), u16::from_be(self.0.port)).fmt(f)
    }
}

fn join<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|i| i.to_string()).collect();
    if items.is_empty() {
        "-".into()
    } else {
        items.join(", ")
    }
}
