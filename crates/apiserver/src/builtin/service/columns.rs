//! What `kubectl get services` shows.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::resource::Column;

pub fn columns() -> Vec<Column> {
    vec![
        Column::text("Type", 0, |o| o["spec"]["type"].clone()),
        Column::text("Cluster-IP", 0, cluster_ip),
        Column::text("External-IP", 0, |o| external_ip(o).into()),
        Column::text("Port(s)", 0, ports),
        Column::age(),
        Column::text("Selector", 1, selector),
    ]
}

fn cluster_ip(service: &Value) -> Value {
    match &service["spec"]["clusterIPs"][0] {
        Value::String(ip) => ip.as_str().into(),
        _ => "<none>".into(),
    }
}

fn external_ip(service: &Value) -> String {
    let spec = &service["spec"];
    let own = || texts(&spec["externalIPs"]).map(str::to_owned);
    match spec["type"].as_str() {
        Some("ExternalName") => spec["externalName"].as_str().unwrap_or_default().to_owned(),
        Some("LoadBalancer") => {
            let ingress = service["status"]["loadBalancer"]["ingress"].as_array();
            let points = ingress.into_iter().flatten();
            let points = points.filter_map(|p| p["ip"].as_str().or(p["hostname"].as_str()));
            let points: BTreeSet<&str> = points.collect();
            let all: Vec<String> = points.into_iter().map(str::to_owned).chain(own()).collect();
            or("<pending>", &all)
        }
        _ => or("<none>", &own().collect::<Vec<_>>()),
    }
}

fn ports(service: &Value) -> Value {
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let ports: Vec<String> = ports
        .map(|port| {
            let protocol = port["protocol"].as_str().unwrap_or_default();
            match port["nodePort"].as_i64() {
                Some(node) if node > 0 => format!("{}:{node}/{protocol}", port["port"]),
                _ => format!("{}/{protocol}", port["port"]),
            }
        })
        .collect();
    or("<none>", &ports).into()
}

fn selector(service: &Value) -> Value {
    let terms = service["spec"]["selector"].as_object().into_iter().flatten();
    let terms: Vec<String> = terms
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    or("<none>", &terms).into()
}

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn or(empty: &str, items: &[String]) -> String {
    if items.is_empty() {
        empty.to_owned()
    } else {
        items.join(",")
    }
}
