//! Nobody notices when things change.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use socket2::{SockRef, TcpKeepalive, Type};

use crate::host_ports;
use crate::objects::{NODES, addresses, cluster_ips, load_balancer_ips, node_port, pod, service, start};
use crate::support::agents::{Agent, Build};
use crate::support::asking::{Client, Protocol, ask_udp};
use crate::support::connections::PodNetwork;
use crate::support::load::Load;
use crate::support::{Lab, eventually, succeed};

/// How long what happens soon may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Pods of a set are replaced one by one, and their clients do not notice.
pub fn a_rolling_restart_fails_nobody(lab: &Lab) {
    let old: Vec<Value> = (0..3).map(|i| pod(&format!("roll-{i}"), "roll", "1")).collect();
    start(lab, &old);
    lab.apply(&[service(
        "roll",
        json!({"app": "roll"}),
        json!({"type": "NodePort"}),
    )]);
    let object = lab.object("service", "roll");
    let port = node_port(&object, Protocol::Tcp);
    let from_outside: Vec<SocketAddr> = (0..NODES.len())
        .map(|n| SocketAddr::new(addresses(n)[0], port))
        .collect();
    let (inside, outside) = (Client::pod(lab, "b1"), Client::outside(lab));
    let loads = [(&inside, cluster_ips(&object)), (&outside, from_outside)];
    let loads = loads.map(|(client, targets)| Load::start(lab, client, targets));
    for i in 0..3 {
        start(lab, &[pod(&format!("rolled-{i}"), "roll", "1")]);
        succeed(&mut lab.kubectl(&["delete", "pod", &format!("roll-{i}")]));
    }
    let new: Vec<String> = (0..3)
        .flat_map(|i| lab.addresses(&format!("rolled-{i}")))
        .collect();
    for load in loads {
        load.wait_for_more();
        let last = load.finish(lab);
        assert!(
            new.contains(&last.to_string()),
            "{last} answered last, and not one of {new:?}"
        );
    }
}

/// A client that never connects anew reaches the backend that takes the place of its own, within a second.
pub fn a_connected_udp_socket_moves_to_the_new_backend(lab: &Lab) {
    start(lab, &[pod("moves-0", "moves", "0")]);
    lab.apply(&[service("moves", json!({"app": "moves"}), json!({}))]);
    let client = Client::pod(lab, "b2");
    for to in cluster_ips(&lab.object("service", "moves")) {
        client.ask_until_answered(lab, Protocol::Udp, to);
    }
    let connected = |to| {
        let socket = client.socket(Type::DGRAM, to).unwrap();
        socket.connect(&to.into()).unwrap();
        socket.into()
    };
    let targets = cluster_ips(&lab.object("service", "moves"));
    let sockets: Vec<UdpSocket> = targets.into_iter().map(connected).collect();
    let old = lab.addresses("moves-0");
    for socket in &sockets {
        let seen = ask_udp(socket, Duration::from_secs(3)).unwrap();
        assert!(old.contains(&seen.server.ip().to_string()), "{seen:?}");
    }
    start(lab, &[pod("moves-1", "moves", "0")]);
    let new = lab.addresses("moves-1");
    thread::scope(|scope| {
        for socket in &sockets {
            scope.spawn(|| {
                let deadline = Instant::now() + Duration::from_secs(30);
                let mut last_of_old = Instant::now();
                loop {
                    assert!(
                        Instant::now() < deadline,
                        "nobody has taken over\n{}",
                        lab.datapath()
                    );
                    match ask_udp(socket, Duration::from_millis(20)) {
                        Ok(seen) if old.contains(&seen.server.ip().to_string()) => {
                            last_of_old = Instant::now()
                        }
                        Ok(seen) => {
                            assert!(new.contains(&seen.server.ip().to_string()), "{seen:?}");
                            break;
                        }
                        Err(error) => {
                            let silent = [
                                ErrorKind::WouldBlock,
                                ErrorKind::TimedOut,
                                ErrorKind::ConnectionRefused,
                            ];
                            assert!(silent.contains(&error.kind()), "{error}");
                        }
                    }
                }
                let gap = last_of_old.elapsed();
                assert!(
                    gap < Duration::from_secs(1),
                    "the new backend took over after {gap:?}"
                );
            });
        }
        succeed(&mut lab.kubectl(&["delete", "pod", "moves-0"]));
    });
}

/// A backend is there no longer, with no warning, while its clients send nothing and wait for what it sends. They are told
/// whether it goes on sending, or only asks whether they are there.
pub fn who_only_reads_hears_that_a_backend_has_gone(lab: &Lab) {
    const PORT: u16 = 7999;
    let server = PodNetwork::of(lab, "a1");
    let bind = |address: &IpAddr| {
        let listen = || TcpListener::bind(SocketAddr::new(*address, PORT));
        server.namespace.run(listen).unwrap().unwrap()
    };
    let listeners: Vec<TcpListener> = server.addresses.iter().map(bind).collect();
    let mut object = service("pushes", json!({}), json!({"type": "NodePort"}));
    object["spec"]["selector"].take();
    object["spec"]["ports"][0]["targetPort"] = PORT.into();
    let slice = |address: &IpAddr| {
        let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
            "metadata": {
                "name": format!("pushes-{}", family.to_lowercase()),
                "labels": {"kubernetes.io/service-name": "pushes"},
            },
            "ports": [{"name": "tcp", "port": PORT}],
            "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        })
    };
    lab.apply(&[object]);
    lab.apply(&server.addresses.iter().map(slice).collect::<Vec<_>>());
    let object = lab.object("service", "pushes");
    let port = node_port(&object, Protocol::Tcp);
    let at_nodes = (0..2)
        .flat_map(addresses)
        .map(|address| SocketAddr::new(address, port));
    let mut ways = vec![(Client::outside(lab), at_nodes.collect())];
    if !lab.socket_hooks {
        let pods = ["b1", "b2"].map(|name| (Client::pod(lab, name), cluster_ips(&object)));
        ways.extend(pods);
    }
    let mut connections = Vec::new();
    for (client, targets) in &ways {
        for to in targets {
            for pushes in [true, false] {
                let connected = eventually("a connection", 10, || {
                    let socket = client.socket(Type::STREAM, *to).unwrap();
                    socket.connect_timeout(&(*to).into(), PATIENCE).ok()?;
                    Some(TcpStream::from(socket))
                });
                connected.set_read_timeout(Some(PATIENCE)).unwrap();
                let listener = listeners
                    .iter()
                    .find(|l| l.local_addr().unwrap().is_ipv4() == to.is_ipv4());
                let accepted = listener.unwrap().accept().unwrap().0;
                if !pushes {
                    let second = Duration::from_secs(1);
                    let asks = TcpKeepalive::new().with_time(second).with_interval(second);
                    SockRef::from(&accepted).set_tcp_keepalive(&asks).unwrap();
                }
                connections.push((*to, connected, accepted, pushes));
            }
        }
    }
    succeed(&mut lab.kubectl(&[
        "delete",
        "endpointslices",
        "-l",
        "kubernetes.io/service-name=pushes",
    ]));
    thread::scope(|scope| {
        for (to, mut reader, mut writer, pushes) in connections {
            scope.spawn(move || {
                let start = Instant::now();
                let error = loop {
                    if pushes {
                        // It is told, too, and then this fails.
                        let _ = writer.write(b"news");
                    }
                    match reader.read(&mut [0; 64]) {
                        Ok(read) => assert!(read > 0 && start.elapsed() < PATIENCE, "{to}: {read}"),
                        Err(error) => break error,
                    }
                };
                assert_eq!(
                    error.kind(),
                    ErrorKind::ConnectionReset,
                    "{to}: {error}\n{}",
                    lab.datapath()
                );
                eventually("the backend is told", 10, || {
                    writer
                        .write(b"more")
                        .is_err_and(|error| error.kind() != ErrorKind::WouldBlock)
                        .then_some(())
                });
            });
        }
    });
}

/// ClusterIP, NodePort, LoadBalancer, ExternalName and back.
pub fn the_type_is_patched_under_traffic(lab: &Lab) {
    lab.apply(&[service("kinds", json!({"name": "a3"}), json!({}))]);
    let (inside, outside) = (Client::pod(lab, "b3"), Client::outside(lab));
    let patch = |spec: Value| {
        let patch = json!({"spec": spec}).to_string();
        succeed(&mut lab.kubectl(&["patch", "service", "kinds", "-p", &patch]));
        lab.object("service", "kinds")
    };
    let object = lab.object("service", "kinds");
    let load = Load::start(lab, &inside, cluster_ips(&object));
    let object = patch(json!({"type": "NodePort"}));
    let at_node = |object: &Value| SocketAddr::new(addresses(1)[0], node_port(object, Protocol::Tcp));
    outside.ask_until_answered(lab, Protocol::Tcp, at_node(&object));
    patch(json!({"type": "LoadBalancer"}));
    let balanced = load_balancer_ips(lab, "kinds");
    for &to in &balanced {
        outside.ask_until_answered(lab, Protocol::Tcp, to);
    }
    load.wait_for_more();
    load.finish(lab);

    let before = cluster_ips(&object);
    patch(json!({"type": "ExternalName", "externalName": "example.com"}));
    for &to in before.iter().chain([&at_node(&object)]) {
        eventually("the Service is reached no longer", 10, || {
            let asked = inside.ask(Protocol::Tcp, to);
            asked
                .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
                .then_some(())
        });
    }

    // It has lost all that belongs to its addresses.
    let families = json!({"type": "ClusterIP", "externalName": null, "ipFamilyPolicy": "RequireDualStack"});
    let object = patch(families);
    for to in cluster_ips(&object) {
        inside.ask_until_answered(lab, Protocol::Tcp, to);
    }
    let load = Load::start(lab, &inside, cluster_ips(&object));
    let object = patch(json!({"type": "LoadBalancer"}));
    for to in load_balancer_ips(lab, "kinds")
        .into_iter()
        .chain([at_node(&object)])
    {
        outside.ask_until_answered(lab, Protocol::Tcp, to);
    }
    patch(json!({"type": "ClusterIP"}));
    eventually("the node port is given up", 10, || {
        let asked = outside.ask(Protocol::Tcp, at_node(&object));
        asked
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
            .then_some(())
    });
    load.finish(lab);
}

/// Agents are killed, and others begin where they left off.
pub fn agents_come_and_go(lab: &Lab) {
    let all = |name: &str| service(name, json!({"letter": "a"}), json!({"type": "NodePort"}));
    lab.apply(&[all("stays")]);
    start(
        lab,
        &[host_ports::pod(
            "has-ports",
            0,
            &[(8080, ""), (8081, NODES[0][1])],
        )],
    );
    let object = lab.object("service", "stays");
    let at_nodes = ["172.20.1.11", "172.20.1.12"]
        .map(|a| SocketAddr::new(a.parse().unwrap(), node_port(&object, Protocol::Tcp)));
    let host_ports = [(0, 8080), (1, 8080), (1, 8081)];
    let host_ports = host_ports
        .map(|(family, port)| SocketAddr::new(addresses(0)[family], port))
        .to_vec();
    let (inside, outside) = (Client::pod(lab, "b1"), Client::outside(lab));
    let loads = [
        Load::start(lab, &inside, cluster_ips(&object)),
        Load::start(lab, &outside, at_nodes.to_vec()),
        Load::start(lab, &outside, host_ports),
    ];
    let mut agents = [Agent::replace(lab, "node1"), Agent::replace(lab, "node2")];
    for round in 0..2 {
        for agent in &mut agents {
            agent.end(Signal::SIGKILL);
        }
        // While nobody is there to see, a Service comes.
        let name = format!("comes-{round}");
        lab.apply(&[all(&name)]);
        loads.iter().for_each(Load::wait_for_more);
        for agent in &mut agents {
            agent.start(Build::This);
        }
        agents.iter_mut().for_each(Agent::wait_ready);
        for to in cluster_ips(&lab.object("service", &name)) {
            inside.ask_until_answered(lab, Protocol::Tcp, to);
        }
        loads.iter().for_each(Load::wait_for_more);
    }
    for load in loads {
        load.finish(lab);
    }
}
