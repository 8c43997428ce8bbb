//! Manifests in, tables out: every `tests/fixtures/*.yaml` compiles to the `.txt` beside it.
//!
//! After a wanted change, `UPDATE_FIXTURES=1 cargo test -p tombolo-layout` writes the texts anew;
//! read the difference before you commit it.

#![allow(clippy::unwrap_used, reason = "what panics here fails the test")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;

use serde::Deserialize;
use tombolo_abi::{Config, Route, RouteKind, Way};
use tombolo_kube::{Network, NodeNetwork};
use tombolo_layout::{Desired, Error, Input, KernelRoute, Local, LocalUplink, Reach, compile};

#[derive(Deserialize)]
#[serde(tag = "kind")]
enum Document {
    Network(#[serde(deserialize_with = "object")] Network),
    NodeNetwork(#[serde(deserialize_with = "object")] NodeNetwork),
    Local(LocalDocument),
}

/// The tag has eaten `kind`, which the object wants to see too.
fn object<'de, D, K>(deserializer: D) -> Result<K, D::Error>
where
    D: serde::Deserializer<'de>,
    K: serde::de::DeserializeOwned + kube::Resource<DynamicType = ()>,
{
    let mut value = serde_json::Value::deserialize(deserializer)?;
    value["kind"] = K::kind(&()).into();
    value["apiVersion"] = K::api_version(&()).into();
    serde_json::from_value(value).map_err(serde::de::Error::custom)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LocalDocument {
    node: String,
    #[serde(default)]
    uplinks: Vec<UplinkDocument>,
    #[serde(default)]
    addresses: Vec<IpAddr>,
    overlay_ifindex: Option<u32>,
    #[serde(default)]
    reach: BTreeMap<IpAddr, ReachDocument>,
    #[serde(default)]
    services: bool,
}

#[derive(Deserialize)]
struct UplinkDocument {
    name: String,
    ifindex: u32,
    mtu: u32,
}

#[derive(Deserialize)]
struct ReachDocument {
    ifindex: u32,
    gateway: Option<IpAddr>,
}

impl From<&LocalDocument> for Local {
    fn from(d: &LocalDocument) -> Self {
        let uplink = |u: &UplinkDocument| LocalUplink {
            name: u.name.clone(),
            ifindex: u.ifindex,
            mtu: u.mtu,
            mac: [2, 0, 0, 0, 0, u.ifindex as u8],
        };
        let reach = |(a, r): (&IpAddr, &ReachDocument)| {
            (
                *a,
                Reach {
                    ifindex: r.ifindex,
                    gateway: r.gateway,
                },
            )
        };
        Local {
            uplinks: d.uplinks.iter().map(uplink).collect(),
            addresses: d.addresses.clone(),
            overlay_ifindex: d.overlay_ifindex,
            reach: d.reach.iter().map(reach).collect(),
            services: d.services,
        }
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
        names.len() >= 10,
        "fixtures are missing from {}",
        folder.display()
    );
    let update = std::env::var_os("UPDATE_FIXTURES").is_some();
    let mut different = String::new();
    for manifest in names {
        let text = render(&run(&std::fs::read_to_string(&manifest).unwrap(), &manifest));
        let expected = manifest.with_extension("txt");
        if update {
            std::fs::write(&expected, &text).unwrap();
        } else {
            let want = std::fs::read_to_string(&expected).unwrap_or_default();
            if want != text {
                writeln!(
                    different,
                    "{}:\n--- expected\n{want}\n--- found\n{text}",
                    manifest.display()
                )
                .unwrap();
            }
        }
    }
    assert!(different.is_empty(), "{different}");
}

fn run(manifests: &str, path: &Path) -> Result<Desired, Error> {
    let documents: Vec<Document> =
        serde_saphyr::from_multiple(manifests).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let (mut network, mut nodes, mut local) = (None, Vec::new(), None);
    for document in documents {
        match document {
            Document::Network(n) => network = Some(n),
            Document::NodeNetwork(n) => nodes.push(n),
            Document::Local(l) => local = Some(l),
        }
    }
    let (network, local) = (network.expect("a Network"), local.expect("a Local"));
    compile(&Input {
        node: &local.node,
        network: &network,
        nodes: &nodes,
        local: &Local::from(&local),
    })
}

fn render(result: &Result<Desired, Error>) -> String {
    let mut out = String::new();
    let o = &mut out;
    let desired = match result {
        Ok(desired) => desired,
        Err(e) => return format!("error: {e}\n"),
    };
    let config = &desired.config;
    let lens: Vec<String> = config
        .prefix_lens
        .iter()
        .take_while(|&&l| l != 0)
        .map(u8::to_string)
        .collect();
    writeln!(o, "config").unwrap();
    writeln!(
        o,
        "  node {} overlay ifindex {}",
        config.node, config.overlay_ifindex
    )
    .unwrap();
    writeln!(
        o,
        "  icmp source {} {}",
        IpAddr::from(config.node_v4),
        IpAddr::from(config.node_v6)
    )
    .unwrap();
    writeln!(o, "  prefix lengths {}", lens.join(" ")).unwrap();
    if config.flags & Config::SERVICES != 0 {
        writeln!(o, "  services").unwrap();
    }
    writeln!(
        o,
        "pods\n  mtu {} blocks {}",
        desired.pod_mtu,
        join(&desired.blocks)
    )
    .unwrap();
    writeln!(o, "addresses\n  {}", join(&desired.addresses)).unwrap();
    match &desired.overlay {
        Some(v) => writeln!(o, "overlay\n  port {} mtu {} mac {}", v.port, v.mtu, mac(&v.mac)).unwrap(),
        None => writeln!(o, "overlay\n  none").unwrap(),
    }
    writeln!(o, "routes").unwrap();
    for (key, route) in &desired.routes {
        let addr = IpAddr::from(key.addr);
        let len = if addr.is_ipv4() {
            key.prefix_len - 96
        } else {
            key.prefix_len
        };
        writeln!(o, "  {addr}/{len} {}", row(route)).unwrap();
    }
    writeln!(o, "uplink macs").unwrap();
    for key in desired.uplink_macs.keys() {
        writeln!(o, "  node {} {}", key.node, mac(&key.mac)).unwrap();
    }
    writeln!(o, "kernel routes").unwrap();
    for (destination, route) in &desired.kernel_routes {
        writeln!(o, "  {destination} {}", kernel_route(route)).unwrap();
    }
    writeln!(o, "masquerade\n  from {}", join(&desired.masquerade.pods)).unwrap();
    writeln!(o, "  unless to {}", join(&desired.masquerade.cluster)).unwrap();
    for warning in &desired.warnings {
        writeln!(o, "warning: {warning}").unwrap();
    }
    out
}

fn row(r: &Route) -> String {
    let kind = match r.kind {
        k if k == RouteKind::Pods as u8 => "pods",
        k if k == RouteKind::Services as u8 => return "services".into(),
        _ => "address",
    };
    let node_ports = match r.flags {
        Route::NODE_PORTS => " takes node ports",
        _ => "",
    };
    let way = match r.way {
        w if w == Way::Local as u8 => {
            return format!("{kind} of node {} local mtu {}{node_ports}", r.node, r.mtu);
        }
        w if w == Way::Direct as u8 => "direct",
        _ => "overlay",
    };
    let next_hop = IpAddr::from(r.next_hop);
    let underlay = match r.underlay_ifindex {
        0 => String::new(),
        ifindex => format!(
            " underlay via {} ifindex {ifindex}",
            IpAddr::from(r.underlay_next_hop)
        ),
    };
    format!(
        "{kind} of node {} {way} to {next_hop} ifindex {} mtu {}{underlay}",
        r.node, r.ifindex, r.mtu
    )
}

fn kernel_route(route: &KernelRoute) -> String {
    let from = |source: &Option<IpAddr>| source.map_or("any".into(), |s| s.to_string());
    match route {
        KernelRoute::Unreachable => "unreachable".into(),
        KernelRoute::Overlay { source, mtu } => format!("overlay source {} mtu {mtu}", from(source)),
        KernelRoute::Direct {
            ifindex,
            next_hop,
            source,
            mtu,
        } => {
            format!(
                "via {next_hop} ifindex {ifindex} source {} mtu {mtu}",
                from(source)
            )
        }
    }
}

fn mac(mac: &[u8; 6]) -> String {
    mac.map(|b| format!("{b:02x}")).join(":")
}

fn join<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|i| i.to_string()).collect();
    if items.is_empty() {
        "-".into()
    } else {
        items.join(" ")
    }
}
