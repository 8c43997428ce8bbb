//! Programs at the sockets of a control group: attached, moved, replaced, and gone.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::PathBuf,
    time::Duration,
};

use common::{
    bed::eventually,
    cgroup::Cgroup,
    cluster::V4,
    frame::{TCP, UDP, ip},
    hooked::Hooked,
    service::{PORT, TARGET_PORT, cluster_ip, publish, slab},
};
use tombolo_abi::{Hook, Outcome};
use tombolo_datapath::{Datapath, Error, remove};

/// For what does not come.
const PATIENCE: Duration = Duration::from_millis(300);

fn vip() -> SocketAddr {
    SocketAddr::new(ip(cluster_ip(V4)), PORT)
}

/// A node with a Service that a server of its second pod backs, which takes whatever connects.
fn node() -> (Hooked, TcpListener) {
    let node = Hooked::new();
    for protocol in [TCP, UDP] {
        let (base, first) = if protocol == TCP { (0, 1) } else { (1, 2) };
        let slab = slab(&node.cluster, base, first, protocol, &[V4.b]);
        publish(&node.cluster, cluster_ip(V4), PORT, protocol, slab);
    }
    let server = node
        .pod_b
        .run(|| TcpListener::bind((ip(V4.b), TARGET_PORT)).unwrap());
    (node, server)
}

/// Connects from the pod, by the programs at sockets or past them.
#[track_caller]
fn connect(node: &Hooked, outcome: Option<Outcome>) -> TcpStream {
    let connect = || node.pod_a.run(|| TcpStream::connect(vip()).unwrap());
    match outcome {
        Some(outcome) => node.counts(Hook::SockConnect, outcome, connect),
        None => {
            let before = node.count(Hook::SockConnect, Outcome::Translated);
            let stream = connect();
            assert_eq!(node.count(Hook::SockConnect, Outcome::Translated), before);
            stream
        }
    }
}

fn pins(node: &Hooked) -> usize {
    fs::read_dir(node.bed.directory.join("links/sockets")).map_or(0, Iterator::count)
}

#[test]
fn programs_are_at_one_group_and_move() {
    let (node, _server) = node();
    let datapath = &node.cluster.datapath;
    let first = node.cgroup.path();
    assert!(datapath.are_sockets_attached(first).unwrap());
    datapath.attach_sockets(first).unwrap();
    connect(&node, Some(Outcome::Translated));
    assert_eq!(pins(&node), 10);
    let second = Cgroup::new();
    datapath.attach_sockets(second.path()).unwrap();
    assert!(!datapath.are_sockets_attached(first).unwrap());
    assert!(datapath.are_sockets_attached(second.path()).unwrap());
    assert_eq!(pins(&node), 10);
    connect(&node, None);
    datapath.attach_sockets(first).unwrap();
    connect(&node, Some(Outcome::Translated));
    // A group that goes takes its programs along.
    datapath.attach_sockets(second.path()).unwrap();
    let gone: PathBuf = second.path().into();
    drop(second);
    assert!(!datapath.are_sockets_attached(&gone).unwrap());
    eventually("the group's programs are gone", || {
        node.bed.load();
        if pins(&node) == 0 {
            Ok(())
        } else {
            Err(format!("{} are left", pins(&node)))
        }
    });
    datapath.attach_sockets(first).unwrap();
    connect(&node, Some(Outcome::Translated));
    remove(&node.bed.directory).unwrap();
    eventually("the programs are gone", || {
        let before = node.count(Hook::SockConnect, Outcome::Translated);
        // (Those of packets are gone too.)
        node.pod_a
            .run(|| drop(TcpStream::connect_timeout(&vip(), PATIENCE)));
        if node.count(Hook::SockConnect, Outcome::Translated) == before {
            Ok(())
        } else {
            Err("they are there".to_owned())
        }
    });
}

#[test]
fn only_a_folder_of_control_groups_will_do() {
    let (node, _server) = node();
    let datapath = &node.cluster.datapath;
    datapath.detach_sockets().unwrap();
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path().to_owned(), folder.path().join("none")] {
        let error = datapath.attach_sockets(&path).unwrap_err();
        assert!(
            matches!(&error, Error::Cgroup { path: at, .. } if *at == path),
            "{error}"
        );
        assert!(error.to_string().contains("cgroup v2"), "{error}");
        assert!(!datapath.are_sockets_attached(&path).unwrap());
        assert_eq!(pins(&node), 0, "nothing is half-made");
    }
}

#[test]
fn who_starts_anew_replaces_the_programs_and_no_peer_is_forgotten() {
    let (node, _server) = node();
    let connected = connect(&node, Some(Outcome::Translated));
    let server = node
        .pod_b
        .run(|| UdpSocket::bind((ip(V4.b), TARGET_PORT)).unwrap());
    let client = node.pod_a.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    client.send_to(b"x", vip()).unwrap();
    let (_, from) = server.recv_from(&mut [0]).unwrap();
    drop(node.bed.load());
    assert_eq!(connected.peer_addr().unwrap(), vip());
    server.send_to(b"y", from).unwrap();
    assert_eq!(client.recv_from(&mut [0]).unwrap().1, vip());
    connect(&node, Some(Outcome::Translated));
}

/// As at devices: programs whose tables are empty do not replace those that know the Services.
#[test]
fn programs_wait_for_their_rows() {
    let (node, _server) = node();
    fs::remove_dir_all(node.bed.directory.join("v1")).unwrap();
    let anew = Datapath::load(&node.bed.options()).unwrap();
    anew.attach_sockets(node.cgroup.path()).unwrap();
    connect(&node, Some(Outcome::Translated));
    anew.replace_programs().unwrap();
    let error = node
        .pod_a
        .run(|| TcpStream::connect_timeout(&vip(), PATIENCE).unwrap_err());
    // Nobody knows the Service any more, nor the pod.
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    assert!(
        anew.counters()
            .unwrap()
            .iter()
            .any(|(hook, outcome, _)| { (*hook, *outcome) == (Hook::SockConnect, Outcome::NotOurs) })
    );
}
