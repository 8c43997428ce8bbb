//! Connections between pods, idle until they are asked for a sign of life.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tombolo_netlink::Namespace;

use super::{Background, Lab, eventually};

/// How long a byte may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// A pod's network.
pub struct PodNetwork {
    pub namespace: Namespace,
    pub addresses: Vec<IpAddr>,
}

impl PodNetwork {
    /// That of a pod of a lab.
    pub fn of(lab: &Lab, pod: &str) -> Self {
        let mut command = lab.exec(pod, &["sleep", "infinity"]);
        let inside = Background(command.stdin(Stdio::null()).spawn().unwrap());
        let process = PathBuf::from(format!("/proc/{}", inside.0.id()));
        eventually("a process inside the pod", 10, || {
            (std::fs::read_to_string(process.join("comm")).ok()?.trim() == "sleep").then_some(())
        });
        Self {
            namespace: Namespace::open(&process.join("ns/net")).unwrap(),
            addresses: lab.addresses(pod).iter().map(|a| a.parse().unwrap()).collect(),
        }
    }
}

/// Both ends of each.
pub struct Connections(Vec<[TcpStream; 2]>);

impl Connections {
    /// Opens `count` of them, half of them begun by either pod, over each family in turn.
    pub fn open(pods: [&PodNetwork; 2], count: usize) -> Self {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
        let mut connections = Vec::new();
        for [from, to] in [pods, [pods[1], pods[0]]] {
            for &address in &to.addresses {
                let bind = || TcpListener::bind(SocketAddr::new(address, 0)).unwrap();
                let listener = to.namespace.run(bind).unwrap();
                let target = listener.local_addr().unwrap();
                let connect = || -> Vec<[TcpStream; 2]> {
                    (0..count / 2 / to.addresses.len())
                        .map(|_| {
                            let client = TcpStream::connect_timeout(&target, DEADLINE).unwrap();
                            [client, listener.accept().unwrap().0]
                        })
                        .collect()
                };
                connections.extend(from.namespace.run(connect).unwrap());
            }
        }
        assert_eq!(connections.len(), count);
        Self(connections)
    }

    /// Each end of each sends a byte, which the other one gets.
    #[track_caller]
    pub fn assert_alive(&self, what: impl Fn() -> String) {
        for (number, [client, server]) in self.0.iter().enumerate() {
            let byte = number as u8;
            for (mut from, mut to) in [(client, server), (server, client)] {
                to.set_read_timeout(Some(DEADLINE)).unwrap();
                let mut came = [!byte];
                let exchanged = from.write_all(&[byte]).and_then(|()| to.read_exact(&mut came));
                assert!(
                    exchanged.is_ok() && came == [byte],
                    "connection {number}, {:?}: {exchanged:?}, {came:?}\n{}",
                    to.peer_addr(),
                    what()
                );
            }
        }
    }
}
