//! The Services that stay as they are, of several kinds, each with a pod of its own: whose answer comes tells where a
//! question went.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use super::clients::Target;
use super::model::Others;
use crate::objects::{addresses, balanced, cluster_ips, node_port, pod, service, start};
use crate::reach::ALL_WAYS;
use crate::support::{Lab, eventually, succeed};

/// How many there are.
const COUNT: usize = 20;

/// All of them.
pub struct Stable(Vec<One>);

struct One {
    object: Value,
    /// The addresses of the pod.
    servers: BTreeSet<IpAddr>,
}

impl Stable {
    /// Makes them, and waits until they have all that they get.
    #[track_caller]
    pub fn make(lab: &Lab) -> Self {
        let name = |i| format!("stable-{i}");
        let spec = |i| match i % 3 {
            0 => json!({"type": "NodePort"}),
            1 => json!({"type": "NodePort", "sessionAffinity": "ClientIP"}),
            _ => json!({"type": "LoadBalancer"}),
        };
        let services = (0..COUNT).map(|i| service(&name(i), json!({"app": name(i)}), spec(i)));
        lab.apply(&services.collect::<Vec<_>>());
        let pods: Vec<Value> = (0..COUNT).map(|i| pod(&name(i), &name(i), "0")).collect();
        start(lab, &pods);
        let objects = eventually("addresses of load balancers", 10, || {
            let all = succeed(&mut lab.kubectl(&["get", "services", "-o", "json"]));
            let all: Value = serde_json::from_str(&all).unwrap();
            let named = |i| {
                let mut all = all["items"].as_array().unwrap().iter();
                let object = all.find(|o| o["metadata"]["name"] == name(i)).unwrap();
                let is_ready = object["spec"]["type"] != "LoadBalancer" || balanced(object).len() == 2;
                is_ready.then(|| object.clone())
            };
            (0..COUNT).map(named).collect::<Option<Vec<Value>>>()
        });
        let status = lab.status();
        let running = status["pods"].as_array().unwrap();
        let made = |(i, object): (usize, Value)| {
            let running = running.iter().find(|p| p["name"] == name(i)).unwrap();
            let servers = running["addresses"].as_array().unwrap().iter();
            One {
                object,
                servers: servers.map(|a| a.as_str().unwrap().parse().unwrap()).collect(),
            }
        };
        Self(objects.into_iter().enumerate().map(made).collect())
    }

    /// What pods and nodes ask.
    pub fn inside(&self) -> Vec<Target> {
        let mut targets = Vec::new();
        for One { object, servers } in &self.0 {
            for protocol in ALL_WAYS {
                let all = cluster_ips(object).into_iter().chain(balanced(object));
                targets.extend(all.map(|to| Target::new(protocol, to, servers)));
            }
        }
        targets
    }

    /// What somebody outside asks: every address of so many nodes, and the load balancers'.
    pub fn outside(&self, nodes: usize) -> Vec<Target> {
        let mut targets = Vec::new();
        for One { object, servers } in &self.0 {
            for protocol in ALL_WAYS {
                let port = node_port(object, protocol);
                let at_nodes = (0..nodes)
                    .flat_map(addresses)
                    .map(|address| SocketAddr::new(address, port));
                let all = at_nodes.chain(balanced(object));
                targets.extend(all.map(|to| Target::new(protocol, to, servers)));
            }
        }
        targets
    }

    /// What is theirs.
    pub fn own(&self) -> Others {
        let addresses = |one: &One| [cluster_ips(&one.object), balanced(&one.object)].concat();
        Others {
            servers: self.0.iter().flat_map(|one| one.servers.clone()).collect(),
            services: self
                .0
                .iter()
                .flat_map(addresses)
                .map(|address| address.ip())
                .collect(),
        }
    }
}
