//! What a load balancer in front of the cluster is to a real one: the router sends what is for a Service's load
//! balancer address to a node that can serve it.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use tokio::sync::Notify;
use tombolo_kube::Watch;
use tombolo_netlink::{Namespace, Netlink, Route};

use super::endpoint_slices::SERVICE_NAME;
use crate::api::Api;
use crate::error::Result;
use crate::fabric::STATIC;
use crate::place::ROUTER;
use crate::plan::Plan;
use crate::state::LabDir;

/// The pause before what failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Keeps the router's routes in accord with the Services, for ever.
pub async fn run(api: Api, lab: LabDir, plan: Plan) {
    if plan.network.load_balancer_pools.is_empty() {
        return;
    }
    let changed = Arc::new(Notify::new());
    let notify = || {
        let changed = changed.clone();
        move || changed.notify_one()
    };
    let client = api.client();
    let services = Watch::<Service>::start(kube::Api::all(client.clone()), notify());
    let slices = Watch::<EndpointSlice>::start(kube::Api::all(client.clone()), notify());
    let nodes = Watch::<Node>::start(kube::Api::all(client.clone()), notify());
    let mut routes = BTreeMap::new();
    let mut failed = false;
    loop {
        let next = changed.notified();
        if failed {
            let _ = tokio::time::timeout(RETRY, next).await;
        } else {
            next.await;
        }
        let (Some(services), Some(slices), Some(nodes)) =
            (services.objects(), slices.objects(), nodes.objects())
        else {
            continue;
        };
        let wanted = wanted(&plan, &services, &slices, &nodes);
        failed = false;
        if wanted != routes
            && let Err(error) = set(&lab, &mut routes, wanted)
        {
            tracing::warn!(%error, "cannot route load balancer addresses; trying again");
            failed = true;
        }
    }
}

/// The next hop for each address, where a node can serve it.
fn wanted(
    plan: &Plan,
    services: &[Arc<Service>],
    slices: &[Arc<EndpointSlice>],
    nodes: &[Arc<Node>],
) -> BTreeMap<IpAddr, IpAddr> {
    let healthy: BTreeSet<String> = nodes
        .iter()
        .filter(|node| is_ready(node))
        .map(|node| node.name_any())
        .collect();
    let pools = &plan.network.load_balancer_pools;
    let mut routes = BTreeMap::new();
    for service in services {
        let addresses = addresses(service).filter(|ip| pools.iter().any(|pool| pool.contains(ip)));
        let local = is_local(service).then(|| nodes_with_endpoints(service, slices));
        for address in addresses {
            let able = healthy
                .iter()
                .filter(|node| local.as_ref().is_none_or(|local| local.contains(*node)));
            // Each address has an order of the nodes of its own: it moves only if its node is no longer able.
            let chosen = able.max_by_key(|node| weight(address, node));
            let chosen = chosen.and_then(|node| plan.node(node));
            let hops = chosen
                .into_iter()
                .flat_map(|node| &node.addresses)
                .map(IpNet::addr);
            let hop = hops.into_iter().find(|hop| hop.is_ipv4() == address.is_ipv4());
            routes.extend(hop.map(|hop| (address, hop)));
        }
    }
    routes
}

fn weight(address: IpAddr, node: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (address, node).hash(&mut hasher);
    hasher.finish()
}

fn addresses(service: &Service) -> impl Iterator<Item = IpAddr> {
    let status = service
        .status
        .iter()
        .filter_map(|status| status.load_balancer.as_ref());
    let points = status.flat_map(|balancer| balancer.ingress.iter().flatten());
    points.filter_map(|point| point.ip.as_ref()?.parse().ok())
}

fn is_local(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.external_traffic_policy.as_deref()) == Some("Local")
}

/// The nodes that have a ready endpoint of a Service; where there is none at all, those whose endpoints still serve
/// while they end (KEP-1669).
fn nodes_with_endpoints(service: &Service, slices: &[Arc<EndpointSlice>]) -> BTreeSet<String> {
    let (namespace, name) = (service.namespace(), service.name_any());
    let of_service = |slice: &&Arc<EndpointSlice>| {
        slice.namespace() == namespace && slice.labels().get(SERVICE_NAME) == Some(&name)
    };
    let endpoints: Vec<_> = slices
        .iter()
        .filter(of_service)
        .flat_map(|slice| &slice.endpoints)
        .collect();
    let with = |is_good: fn(Option<bool>, Option<bool>, Option<bool>) -> bool| -> BTreeSet<String> {
        let good = endpoints.iter().filter(|endpoint| {
            let conditions = endpoint.conditions.clone().unwrap_or_default();
            is_good(conditions.ready, conditions.serving, conditions.terminating)
        });
        good.filter_map(|endpoint| endpoint.node_name.clone()).collect()
    };
    let ready = with(|ready, _, _| ready != Some(false));
    if ready.is_empty() {
        with(|_, serving, terminating| serving != Some(false) && terminating == Some(true))
    } else {
        ready
    }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Makes the router's routes what is wanted, and `routes` what they are.
fn set(lab: &LabDir, routes: &mut BTreeMap<IpAddr, IpAddr>, wanted: BTreeMap<IpAddr, IpAddr>) -> Result<()> {
    let mut router = Netlink::open_in(&Namespace::open(&lab.netns(ROUTER))?)?;
    let route = |address: IpAddr, hop: IpAddr| Route {
        gateway: Some(hop),
        protocol: STATIC,
        ..Route::new(IpNet::from(address))
    };
    let gone: Vec<(IpAddr, IpAddr)> = routes
        .iter()
        .filter(|(address, _)| !wanted.contains_key(*address))
        .map(|(address, hop)| (*address, *hop))
        .collect();
    for (address, hop) in gone {
        router.delete_route(&route(address, hop))?;
        routes.remove(&address);
    }
    for (address, hop) in wanted {
        if routes.get(&address) == Some(&hop) {
            continue;
        }
        // A route through another next hop may stand beside the new one where the family allows several.
        if let Some(old) = routes.get(&address) {
            router.delete_route(&route(address, *old))?;
        }
        router.replace_route(&route(address, hop))?;
        routes.insert(address, hop);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::{Value, json};

    use super::*;
    use crate::options::UpArgs;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: UpArgs,
    }

    fn plan() -> Plan {
        let words = [
            "up",
            "--nodes",
            "3",
            "--lb-pool",
            "203.0.113.0/24",
            "--lb-pool",
            "2001:db8:99::/120",
        ];
        Plan::new(&Command::parse_from(words).args).unwrap()
    }

    fn object<K: serde::de::DeserializeOwned>(value: Value) -> Arc<K> {
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn service(policy: &str, ips: &[&str]) -> Arc<Service> {
        let ingress: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
        object(json!({
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"externalTrafficPolicy": policy},
            "status": {"loadBalancer": {"ingress": ingress}},
        }))
    }

    fn slice(endpoints: &[(&str, bool, bool)]) -> Arc<EndpointSlice> {
        let endpoints: Vec<Value> = endpoints
            .iter()
            .map(|(node, ready, terminating)| {
                json!({"addresses": ["10.244.0.1"], "nodeName": node,
                       "conditions": {"ready": ready, "serving": true, "terminating": terminating}})
            })
            .collect();
        object(json!({
            "metadata": {"name": "web-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4", "endpoints": endpoints,
        }))
    }

    fn nodes(ready: &[&str]) -> Vec<Arc<Node>> {
        let node = |name: &&str| {
            object(
                json!({"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
            )
        };
        ready.iter().map(node).collect()
    }

    #[test]
    fn an_address_leads_to_one_healthy_node_and_stays_there() {
        let all = ["node1", "node2", "node3"];
        let services = [service(
            "Cluster",
            &["203.0.113.1", "2001:db8:99::1", "192.0.2.1"],
        )];
        let first = wanted(&plan(), &services, &[], &nodes(&all));
        assert_eq!(first.len(), 2, "what is in no pool is not routed: {first:?}");
        assert!(
            first
                .iter()
                .all(|(address, hop)| address.is_ipv4() == hop.is_ipv4())
        );
        let hop = first[&"203.0.113.1".parse::<IpAddr>().unwrap()];
        let plan = plan();
        let name = |hop| {
            plan.nodes
                .iter()
                .find(|node| node.all_addresses().any(|a| a == hop))
                .unwrap()
                .name
                .clone()
        };
        let rest: Vec<&str> = all.into_iter().filter(|node| *node != name(hop)).collect();
        let second = wanted(&plan, &services, &[], &nodes(&rest));
        assert_ne!(second[&"203.0.113.1".parse::<IpAddr>().unwrap()], hop);
        assert!(wanted(&plan, &services, &[], &[]).is_empty());
    }

    #[test]
    fn with_the_policy_local_the_node_has_an_endpoint() {
        let (plan, nodes) = (plan(), nodes(&["node1", "node2", "node3"]));
        let services = [service("Local", &["203.0.113.1"])];
        for (endpoints, hop) in [
            (
                &[("node1", false, false), ("node3", true, false)][..],
                Some("172.20.1.13"),
            ),
            (
                &[("node1", false, true), ("node2", true, false)],
                Some("172.20.1.12"),
            ),
            (&[("node1", false, true)], Some("172.20.1.11")),
            (&[("node1", false, false)], None),
            (&[("node9", true, false)], None),
        ] {
            let routes = wanted(&plan, &services, &[slice(endpoints)], &nodes);
            let found = routes.values().next().map(ToString::to_string);
            assert_eq!(found.as_deref(), hop, "{endpoints:?}");
        }
    }
}
