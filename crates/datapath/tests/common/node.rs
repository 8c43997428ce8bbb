//! A node with real devices.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use tombolo_abi::{Hook, Outcome};
use tombolo_datapath::{Attach, Datapath, Options};

use super::{
    bed::{Bed, Other, eventually, ifindex, run},
    cluster::{Cluster, MTU, OVERLAY_PORT, V4, V6},
    frame::ip,
};

/// A node with two pods, and at the other end of its uplink a namespace that plays everybody else.
pub struct Node {
    pub cluster: Cluster,
    pub pod_a: Other,
    pub pod_b: Other,
    pub wire: Other,
    pub bed: Bed,
}

impl Node {
    pub fn new(attach: Attach) -> Self {
        Self::with(attach, false)
    }

    /// With flows tracked.
    pub fn tracking(attach: Attach) -> Self {
        Self::with(attach, true)
    }

    fn with(attach: Attach, track_flows: bool) -> Self {
        let bed = Bed::new();
        let (pod_a, pod_b, wire) = (Other::new(), Other::new(), Other::new());
        for key in ["net.ipv4.conf.all.forwarding", "net.ipv6.conf.all.forwarding"] {
            run(&format!("sysctl -q -w {key}=1"));
        }
        let gateway = "02:74:6f:6d:62:01";
        for (link, pod, mac, a) in [
            (
                "tmba",
                &pod_a,
                "02:00:00:00:00:0a",
                ["10.244.1.5", "fd00:10:244:1::5"],
            ),
            (
                "tmbb",
                &pod_b,
                "02:00:00:00:00:0b",
                ["10.244.1.6", "fd00:10:244:1::6"],
            ),
        ] {
            run(&format!(
                "ip link add {link} mtu {MTU} address {gateway} type veth peer name eth0 mtu {MTU} address {mac} netns {}",
                pod.tid
            ));
            run(&format!("ip link set {link} addrgenmode none up"));
            for address in a {
                run(&format!("ip route add {address} dev {link}"));
                run(&format!(
                    "ip neigh add {address} lladdr {mac} dev {link} nud permanent"
                ));
                pod.run(move || run(&format!("ip addr add {address} dev eth0 nodad")));
            }
            pod.commands(&[
                "ip link set eth0 addrgenmode none up",
                "ip neigh add 169.254.1.1 lladdr 02:74:6f:6d:62:01 dev eth0 nud permanent",
                "ip neigh add fe80::1 lladdr 02:74:6f:6d:62:01 dev eth0 nud permanent",
                "ip route add 169.254.1.1 dev eth0 scope link",
                "ip route add default via 169.254.1.1 dev eth0",
                "ip -6 route add fe80::1 dev eth0",
                "ip -6 route add default via fe80::1 dev eth0",
            ]);
        }
        run(&format!(
            "ip link add up0 address 02:00:00:00:01:00 type veth peer name wire0 address 02:00:00:00:02:00 netns {}",
            wire.tid
        ));
        run("ip addr add 172.20.1.11/24 dev up0");
        run("ip -6 addr add fd00:20:1::11/64 dev up0 nodad");
        run("ip link set up0 up");
        wire.commands(&[
            "ip addr add 172.20.1.1/24 dev wire0",
            "ip addr add 172.20.1.12/24 dev wire0",
            "ip -6 addr add fd00:20:1::1/64 dev wire0 nodad",
            "ip -6 addr add fd00:20:1::12/64 dev wire0 nodad",
            "ip link set wire0 up",
            "ip addr add 172.20.2.13/32 dev lo",
            "ip addr add 172.20.9.9/32 dev lo",
            "ip -6 addr add fd00:20:2::13/128 dev lo nodad",
            "ip addr add 10.244.2.5/32 dev lo",
            "ip -6 addr add fd00:10:244:2::5/128 dev lo nodad",
            "ip route add 10.244.1.0/24 via 172.20.1.11 src 10.244.2.5",
            "ip -6 route add fd00:10:244:1::/112 via fd00:20:1::11 src fd00:10:244:2::5",
        ]);
        run("ip route add 172.20.0.0/16 via 172.20.1.1");
        run("ip -6 route add fd00:20::/32 via fd00:20:1::1");
        run(&format!(
            "ip link add tombolo_vxlan mtu {MTU} type vxlan external dstport {OVERLAY_PORT} nolearning udp6zerocsumrx"
        ));
        run("ip link set tombolo_vxlan arp off addrgenmode none up");
        run("ip route add 10.244.0.0/16 dev tombolo_vxlan src 172.20.1.11");
        run("ip -6 route add fd00:10:244::/48 dev tombolo_vxlan src fd00:20:1::11");
        let cluster = Cluster::on_devices(
            Datapath::load(&Options {
                attach,
                track_flows,
                ..bed.options()
            })
            .unwrap(),
        );
        let datapath = &cluster.datapath;
        for (device, hooks) in [
            ("tmba", [Hook::FromPod, Hook::ToPod]),
            ("tmbb", [Hook::FromPod, Hook::ToPod]),
            ("tombolo_vxlan", [Hook::FromOverlay, Hook::ToOverlay]),
            ("up0", [Hook::FromUplink, Hook::ToUplink]),
        ] {
            for hook in hooks {
                datapath.attach(hook, device, ifindex(device)).unwrap();
            }
        }
        // The wire's own MAC is node 2's.
        let key = tombolo_abi::MacKey {
            node: 2,
            mac: [2, 0, 0, 0, 2, 0],
            pad: [0; 2],
        };
        datapath.uplink_macs().insert(&key, &1).unwrap();
        Self {
            cluster,
            pod_a,
            pod_b,
            wire,
            bed,
        }
    }

    /// What a hook has counted, but for the multicast reports that every namespace's own stack sends
    /// when it pleases.
    pub fn counted(&self, hook: Hook) -> BTreeMap<Outcome, u64> {
        let packets = self.cluster.packets().into_iter();
        packets
            .filter(|((h, o), _)| *h == hook && *o != Outcome::NotRoutable)
            .map(|((_, o), n)| (o, n))
            .collect()
    }

    /// Does something, and waits until a hook has counted this, and nothing else.
    #[track_caller]
    pub fn expect(&self, hook: Hook, outcome: Outcome, what: &str, act: impl FnOnce()) {
        let mut wanted = self.counted(hook);
        *wanted.entry(outcome).or_default() += 1;
        act();
        eventually(what, || {
            let found = self.counted(hook);
            if found == wanted {
                Ok(())
            } else {
                Err(format!(
                    "{}: wanted {wanted:?}, found {found:?}\n{}",
                    hook.word(),
                    self.cluster.state()
                ))
            }
        });
    }

    /// Sends a VXLAN frame from an address of the wire to the node.
    pub fn send_encapsulated(&self, outer: &str, vni: u32, frame: &[u8]) {
        let from = ip(outer);
        let to = if from.is_ipv4() { ip(V4.node) } else { ip(V6.node) };
        let mut bytes = vec![8, 0, 0, 0];
        bytes.extend((vni << 8).to_be_bytes());
        bytes.extend(frame);
        self.wire.run(move || {
            let socket = UdpSocket::bind((from, 0)).unwrap();
            socket.send_to(&bytes, (to, OVERLAY_PORT)).unwrap();
        });
    }
}

/// A socket in a namespace, that gives up in the end.
pub fn listen(place: &Other, address: &str, port: u16) -> UdpSocket {
    let address = SocketAddr::new(ip(address), port);
    place.run(move || timed(UdpSocket::bind(address).unwrap()))
}

pub fn timed(socket: UdpSocket) -> UdpSocket {
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

/// The next datagram, and where it came from.
pub fn next(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut bytes = vec![0; 65536];
    let (len, from) = socket.recv_from(&mut bytes).expect("nothing arrived");
    bytes.truncate(len);
    (bytes, from)
}
