//! Nodes' own processes, which reach Services by their sockets alone.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use nix::errno::Errno;
use serde_json::{Value, json};
use socket2::Type;

use crate::objects::{NODES, addresses, cluster_ips, load_balancer_ips, node_port, pod, service, start};
use crate::reach::{ALL_WAYS, Case};
use crate::support::asking::{Client, Protocol, ask_udp};
use crate::support::{Lab, eventually, succeed};

/// By cluster IPs, load balancer addresses and every node's port, to backends on this node, past the overlay, and beside.
pub fn reach_services_as_pods_do(lab: &Lab) {
    let names = ["node-to-a1", "node-to-a2", "node-to-a3"];
    let of = |name: &&str| service(name, json!({"name": name[8..]}), json!({"type": "LoadBalancer"}));
    let mut objects: Vec<Value> = names.iter().map(of).collect();
    objects.push(service(
        "node-to-nobody",
        json!({"name": "nobody"}),
        json!({"type": "NodePort"}),
    ));
    lab.apply(&objects);
    let client = Client::node(lab, "node1", &addresses(0));
    for (home, name) in names.iter().enumerate() {
        let object = lab.object("service", name);
        let backend: Vec<IpAddr> = lab
            .addresses(&name[8..])
            .iter()
            .map(|a| a.parse().unwrap())
            .collect();
        for protocol in ALL_WAYS {
            let case = |to: SocketAddr, source| Case {
                client: &client,
                protocol,
                to,
                backend: &backend,
                source,
            };
            for to in [cluster_ips(&object), load_balancer_ips(lab, name)].concat() {
                case(to, client.address(to.ip())).holds(lab);
            }
            for node in 0..NODES.len() {
                for address in addresses(node) {
                    let to = SocketAddr::new(address, node_port(&object, protocol));
                    // That of another node is asked as anybody else asks it.
                    let is_kept = node == 0 || node == home;
                    let source = if is_kept { client.address(address) } else { address };
                    case(to, source).holds(lab);
                }
            }
        }
    }
    let (nobody, some) = (
        lab.object("service", "node-to-nobody"),
        lab.object("service", names[0]),
    );
    for protocol in ALL_WAYS {
        for family in 0..2 {
            client.is_refused(protocol, cluster_ips(&nobody)[family]);
            let own = SocketAddr::new(addresses(0)[family], node_port(&nobody, protocol));
            client.is_refused(protocol, own);
            let mut other_port = cluster_ips(&some)[family];
            other_port.set_port(81);
            client.is_refused(protocol, other_port);
        }
    }
}

/// Without programs at sockets they do not, and nothing leaves the node to look for them.
pub fn reach_no_services_by_packets(lab: &Lab) {
    lab.apply(&[service("not-for-nodes", json!({"name": "a2"}), json!({}))]);
    let (node, pod) = (Client::node(lab, "node1", &addresses(0)), Client::pod(lab, "b1"));
    for to in cluster_ips(&lab.object("service", "not-for-nodes")) {
        pod.ask_until_answered(lab, Protocol::Tcp, to);
        node.gets_nothing(Protocol::Tcp, to);
    }
}

/// A connected socket's backend cannot be another one. So its process is told, and has the new one when it connects anew.
pub fn hear_that_their_udp_backend_has_gone(lab: &Lab) {
    start(lab, &[pod("ends-0", "ends", "0")]);
    lab.apply(&[service("ends", json!({"app": "ends"}), json!({}))]);
    let client = Client::node(lab, "node1", &addresses(0));
    let targets = cluster_ips(&lab.object("service", "ends"));
    let connected = |to: &SocketAddr| {
        client.ask_until_answered(lab, Protocol::Udp, *to);
        let socket = client.socket(Type::DGRAM, *to).unwrap();
        socket.connect(&(*to).into()).unwrap();
        socket.into()
    };
    let sockets: Vec<UdpSocket> = targets.iter().map(connected).collect();
    let old = lab.addresses("ends-0");
    for socket in &sockets {
        let seen = ask_udp(socket, Duration::from_secs(3)).unwrap();
        assert!(old.contains(&seen.server.ip().to_string()), "{seen:?}");
    }
    start(lab, &[pod("ends-1", "ends", "0")]);
    let new = lab.addresses("ends-1");
    succeed(&mut lab.kubectl(&["delete", "pod", "ends-0"]));
    for (socket, to) in sockets.iter().zip(targets) {
        eventually("the process is told", 30, || {
            match ask_udp(socket, Duration::from_millis(20)) {
                Ok(seen) => assert!(old.contains(&seen.server.ip().to_string()), "{seen:?}"),
                // When it receives, or when it sends.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => return Some(()),
                Err(error) if error.raw_os_error() == Some(Errno::EDESTADDRREQ as i32) => return Some(()),
                Err(error) => {
                    let silent = [
                        ErrorKind::WouldBlock,
                        ErrorKind::TimedOut,
                        ErrorKind::ConnectionRefused,
                    ];
                    assert!(silent.contains(&error.kind()), "{error}");
                }
            }
            None
        });
        // Who was told when it sent has still to hear the same when it receives.
        socket.take_error().unwrap();
        socket.connect(to).unwrap();
        assert_eq!(socket.peer_addr().unwrap(), to);
        let seen = ask_udp(socket, Duration::from_secs(3)).unwrap();
        assert!(new.contains(&seen.server.ip().to_string()), "{seen:?}");
    }
}
