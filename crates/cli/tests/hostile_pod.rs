//! Everything that a hostile pod can send: root in its namespace, with raw sockets. Nothing of it gets to another
//! pod, to the wire or to what listens on a node, and each is counted at the node that refuses it, with the reason.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use serde_json::json;
use support::attacks::{self, Attack, Cluster, Family, MARK, PORT, Refusal};
use support::sandbox::Sandbox;
use support::{Lab, succeed};
use tombolo_testkit::{Packet, Tap, TestNamespace};

/// How often each is sent. Every stack has something to say to its link now and then, and is refused as well; so
/// much it never says at once.
const TIMES: u64 = 20;

/// How long a node may take to count what it has refused.
const DEADLINE: Duration = Duration::from_secs(10);

/// Where an agent serves metrics, inside its node.
const METRICS: &str = "127.0.0.1:9440";

/// Ends every list of what arrived.
const LAST: &[u8] = b"after all that";

type Drops = BTreeMap<(String, String), u64>;

/// What a node has dropped, by hook and reason, as its metrics say.
fn drops(node: &TestNamespace) -> Drops {
    let text = node.run(|| {
        let mut stream = TcpStream::connect(METRICS).unwrap();
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    });
    let rows = text
        .lines()
        .filter_map(|line| line.strip_prefix("tombolo_drops_total{"));
    rows.map(|row| {
        let words: Vec<&str> = row.split('"').collect();
        let [_, hook, _, reason, count] = words[..] else {
            panic!("not a count of drops: {row}")
        };
        let count = count.trim_start_matches('}').trim().parse().unwrap();
        ((hook.to_owned(), reason.to_owned()), count)
    })
    .collect()
}

fn counted(drops: &Drops, refusal: Refusal) -> u64 {
    let key = (refusal.hook.to_owned(), refusal.reason.to_owned());
    drops.get(&key).copied().unwrap_or(0)
}

/// Sends an attack, and waits until it has been counted as it must be.
fn launch(nodes: [&TestNamespace; 2], from: &Tap, attack: &Attack) {
    let node = nodes[attack.refusal.node - 1];
    let before = drops(node);
    for _ in 0..TIMES {
        from.send(&attack.frame);
    }
    let end = Instant::now() + DEADLINE;
    loop {
        let after = drops(node);
        if counted(&after, attack.refusal) >= counted(&before, attack.refusal) + TIMES {
            return;
        }
        if Instant::now() > end {
            let changed: Vec<_> = after
                .iter()
                .filter(|(key, n)| before.get(*key) != Some(n))
                .collect();
            panic!(
                "{}: not counted as {:?}; counted since: {changed:?}",
                attack.what, attack.refusal
            );
        }
    }
}

/// Whoever could hear of an attack.
struct Listener {
    who: &'static str,
    tap: Tap,
    /// What it must not hear.
    mark: &'static [u8],
}

fn contains(frame: &[u8], bytes: &[u8]) -> bool {
    frame.windows(bytes.len()).any(|window| window == bytes)
}

impl Listener {
    fn new(who: &'static str, namespace: &TestNamespace, mark: &'static [u8]) -> Self {
        let tap = Tap::open(namespace, "eth0");
        Self { who, tap, mark }
    }

    /// Looks at all that came until the last packet.
    fn expect_nothing(&self) {
        let mut heard = Vec::new();
        let last = self.tap.receive(DEADLINE, |frame| {
            heard.extend(contains(frame, self.mark).then(|| frame.to_vec()));
            contains(frame, LAST)
        });
        assert!(last.is_some(), "{}: the last packet never came", self.who);
        assert!(heard.is_empty(), "{} heard {heard:02x?}", self.who);
    }
}

/// What the attacks could have changed in a namespace: neighbours, routes, addresses.
fn learned(run: &dyn Fn(&[&str]) -> String, link: &str) -> String {
    [
        run(&["ip", "neigh", "show", "dev", link]),
        run(&["ip", "-4", "route"]),
        run(&["ip", "-6", "route"]),
        run(&["ip", "-o", "address", "show", "dev", link]),
    ]
    .join("\n")
}

fn family(v4: bool, [hostile, neighbour, remote]: [&Sandbox<'_>; 3]) -> Family {
    let [node, other_node, outside] = if v4 {
        ["172.20.1.11", "172.20.1.12", "198.51.100.10"]
    } else {
        ["fd00:20:1::11", "fd00:20:1::12", "2001:db8:100::10"]
    };
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    Family {
        own: hostile.address(v4),
        neighbour: neighbour.address(v4),
        remote: remote.address(v4),
        node: address(node),
        other_node: address(other_node),
        outside: address(outside),
    }
}

fn mac(namespace: &TestNamespace) -> [u8; 6] {
    namespace.netlink().require_link("eth0").unwrap().mac.unwrap()
}

fn nothing_crosses(routing: &str) {
    let lab = Lab::up(2, &["--routing", routing]);
    let [hostile, neighbour, remote] = ["node1", "node1", "node2"]
        .map(|node| Sandbox::connect(&lab, node, &[json!({"type": "tombolo-cni"})]));
    let pods = [&hostile, &neighbour, &remote];
    let [node, other_node, outside] = ["node1", "node2", "outside"].map(|place| lab.namespace(place));
    let cluster = Cluster {
        v4: family(true, pods),
        v6: family(false, pods),
        own_mac: mac(&hostile.namespace),
        neighbour_mac: mac(&neighbour.namespace),
        overlay: routing == "vxlan",
    };
    let listeners = [
        Listener::new("the neighbour", &neighbour.namespace, MARK.any),
        Listener::new("the pod on the other node", &remote.namespace, MARK.any),
        Listener::new("the node's uplink", &node, MARK.not_on_the_wire),
        Listener::new("the other node's uplink", &other_node, MARK.not_on_the_wire),
        Listener::new("the outside", &outside, MARK.any),
    ];
    // All of the node's addresses, loopback and link-local ones among them, of both families.
    let socket = node.run(|| UdpSocket::bind(("::", PORT)).unwrap());
    let link = hostile.host_link();
    let of_node = |words: &[&str]| succeed(&mut lab.exec("node1", words));
    let of_neighbour = |words: &[&str]| succeed(neighbour.namespace.command(words[0]).args(&words[1..]));
    let before = [learned(&of_node, &link), learned(&of_neighbour, "eth0")];

    let tap = Tap::open(&hostile.namespace, "eth0");
    let attacks = attacks::all(&cluster);
    assert!(attacks.len() > 100, "{} are not everything", attacks.len());
    for attack in &attacks {
        launch([&node, &other_node], &tap, attack);
    }

    // What is sent after them arrives: all that came of them would have come before.
    for family in [&cluster.v4, &cluster.v6] {
        for to in [family.neighbour, family.remote, family.node, family.outside] {
            let sender = hostile
                .namespace
                .run(|| UdpSocket::bind((family.own, 0)).unwrap());
            sender.send_to(LAST, SocketAddr::new(to, PORT)).unwrap();
        }
    }
    listeners.iter().for_each(Listener::expect_nothing);
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut buffer = [0; 2048];
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], LAST, "from {from}");
    let after = [learned(&of_node, &link), learned(&of_neighbour, "eth0")];
    assert_eq!(after, before, "somebody has learned something");
}

#[test]
fn nothing_crosses_in_direct_routing() {
    nothing_crosses("direct");
}

#[test]
fn nothing_crosses_in_the_overlay() {
    nothing_crosses("vxlan");
}

/// A MAC address names nobody: packets go by their IP addresses, and arrive with the gateway's.
#[test]
fn a_mac_address_means_nothing() {
    let lab = Lab::up(1, &[]);
    let [hostile, neighbour] =
        [(); 2].map(|()| Sandbox::connect(&lab, "node1", &[json!({"type": "tombolo-cni"})]));
    let (sender, receiver) = (
        Tap::open(&hostile.namespace, "eth0"),
        Tap::open(&neighbour.namespace, "eth0"),
    );
    let [own, its] = [&hostile, &neighbour].map(|sandbox| mac(&sandbox.namespace));
    for v4 in [true, false] {
        let packet = Packet::new(hostile.address(v4), neighbour.address(v4));
        for (number, (source, destination)) in
            [(its, attacks::GATEWAY_MAC), (own, its), ([0xff; 6], [0xff; 6])]
                .into_iter()
                .enumerate()
        {
            let mark = format!("frame {number} of IPv4 {v4}");
            sender.send(
                &packet
                    .clone()
                    .macs(source, destination)
                    .udp(PORT, PORT, mark.as_bytes()),
            );
            let came = receiver.receive(DEADLINE, |frame| frame.ends_with(mark.as_bytes()));
            let came = came.unwrap_or_else(|| panic!("{mark} did not come"));
            assert_eq!(came[..12], [its, attacks::GATEWAY_MAC].concat()[..], "{mark}");
        }
    }
    // A frame for somebody else is not the node's, whatever address is inside.
    let socket = lab
        .namespace("node1")
        .run(|| UdpSocket::bind(("0.0.0.0", PORT)).unwrap());
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let to_node = Packet::new(hostile.address(true), Ipv4Addr::new(172, 20, 1, 11).into());
    sender.send(
        &to_node
            .clone()
            .macs(own, its)
            .udp(PORT, PORT, b"for somebody else"),
    );
    sender.send(&to_node.macs(own, attacks::GATEWAY_MAC).udp(PORT, PORT, LAST));
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], LAST);
}
