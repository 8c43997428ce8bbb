//! What a hostile pod sends, and how it is refused.

use std::net::{IpAddr, Ipv6Addr};

use tombolo_testkit::etherparse::{Icmpv6Type, IpNumber};
use tombolo_testkit::{Packet, vxlan};

/// The MAC address of the host side of every pod's link.
pub const GATEWAY_MAC: [u8; 6] = [0x02, 0x74, 0x6f, 0x6d, 0x62, 0x01];

/// The UDP port that the attacks are for.
pub const PORT: u16 = 7_777;

/// In every attack, so that it is known wherever it arrives.
pub struct Marks {
    /// In all of them.
    pub any: &'static [u8],
    /// In those of which not even a part may be seen on the wire.
    pub not_on_the_wire: &'static [u8],
}

pub const MARK: Marks = Marks {
    any: b"hostile: ",
    not_on_the_wire: b"hostile: nowhere",
};

/// For what may lawfully travel to a node, and must end there.
const ENDS_AT_A_NODE: &[u8] = b"hostile: no pods";

const BROADCAST_MAC: [u8; 6] = [0xff; 6];

/// Where an attack ends.
#[derive(Clone, Copy, Debug)]
pub struct Refusal {
    /// The number of the node.
    pub node: usize,
    pub hook: &'static str,
    pub reason: &'static str,
}

/// One frame.
pub struct Attack {
    pub what: String,
    pub frame: Vec<u8>,
    pub refusal: Refusal,
}

/// Addresses of one family.
pub struct Family {
    pub own: IpAddr,
    pub neighbour: IpAddr,
    pub remote: IpAddr,
    pub node: IpAddr,
    pub other_node: IpAddr,
    pub outside: IpAddr,
}

/// Whom the pod finds around it.
pub struct Cluster {
    pub v4: Family,
    pub v6: Family,
    pub own_mac: [u8; 6],
    pub neighbour_mac: [u8; 6],
    /// Whether nodes take tunnel packets.
    pub overlay: bool,
}

/// All of them.
pub fn all(cluster: &Cluster) -> Vec<Attack> {
    let mut attacks = Vec::new();
    for family in [&cluster.v4, &cluster.v6] {
        attacks.extend(sources(cluster, family));
        attacks.extend(vlans(cluster, family));
        if cluster.overlay {
            attacks.extend(tunnels(cluster, family));
        }
    }
    attacks.extend(arp(cluster));
    attacks.extend(neighbour_discovery(cluster));
    attacks.extend(router_advertisements(cluster));
    attacks.extend(dhcp(cluster));
    attacks.extend(destinations(cluster));
    attacks.extend(mapped_addresses(cluster));
    attacks.extend(nonsense(cluster));
    attacks
}

fn attack(what: String, frame: Vec<u8>, reason: &'static str) -> Attack {
    let refusal = Refusal {
        node: 1,
        hook: "from_pod",
        reason,
    };
    Attack { what, frame, refusal }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn packet(cluster: &Cluster, source: IpAddr, destination: IpAddr) -> Packet {
    Packet::new(source, destination).macs(cluster.own_mac, GATEWAY_MAC)
}

fn udp(packet: &Packet) -> Vec<u8> {
    packet.udp(PORT, PORT, MARK.not_on_the_wire)
}

/// Somebody else's address, with and without somebody else's MAC.
fn sources(cluster: &Cluster, f: &Family) -> Vec<Attack> {
    let gateway = if f.own.is_ipv4() { "169.254.1.1" } else { "fe80::1" };
    let loopback = if f.own.is_ipv4() { "127.0.0.1" } else { "::1" };
    let unspecified = if f.own.is_ipv4() { "0.0.0.0" } else { "::" };
    let strangers = [gateway, loopback, unspecified].map(address);
    let mut attacks = Vec::new();
    for source in [f.neighbour, f.remote, f.node, f.other_node, f.outside]
        .into_iter()
        .chain(strangers)
    {
        for destination in [f.neighbour, f.remote, f.node, f.other_node, f.outside] {
            let packet = packet(cluster, source, destination);
            let what = format!("{source} as source, to {destination}");
            attacks.push(attack(what.clone(), udp(&packet), "spoofed_source"));
            let echo = packet.echo(7, 7, MARK.not_on_the_wire);
            attacks.push(attack(format!("echo with {what}"), echo, "spoofed_source"));
        }
        let packet = Packet::new(source, f.node).macs(cluster.neighbour_mac, GATEWAY_MAC);
        attacks.push(attack(
            format!("{source} as source, and another pod's MAC"),
            udp(&packet),
            "spoofed_source",
        ));
        let fragment = packet
            .fragment(7, 8, false)
            .payload(IpNumber::UDP, MARK.not_on_the_wire);
        attacks.push(attack(
            format!("a fragment with {source} as source"),
            fragment,
            "spoofed_source",
        ));
    }
    attacks
}

/// Tags of IEEE 802.1Q and 802.1ad, and both.
fn vlans(cluster: &Cluster, f: &Family) -> Vec<Attack> {
    let customer = [0x81, 0, 0, 5];
    let service = [0x88, 0xa8, 0, 5];
    let priority = [0x81, 0, 0x60, 0];
    let mut attacks = Vec::new();
    for tags in [
        customer.to_vec(),
        service.to_vec(),
        priority.to_vec(),
        [service, customer].concat(),
    ] {
        for destination in [f.neighbour, f.node, f.outside] {
            let mut frame = udp(&packet(cluster, f.own, destination));
            frame.splice(12..12, tags.iter().copied());
            attacks.push(attack(
                format!("tags {tags:02x?} before a packet to {destination}"),
                frame,
                "not_ip",
            ));
        }
    }
    attacks
}

/// Packets for the nodes' tunnel, with whatever inside.
fn tunnels(cluster: &Cluster, f: &Family) -> Vec<Attack> {
    let mut attacks = Vec::new();
    for inner_family in [&cluster.v4, &cluster.v6] {
        for source in [
            inner_family.remote,
            inner_family.other_node,
            inner_family.neighbour,
        ] {
            for destination in [inner_family.neighbour, inner_family.remote, inner_family.node] {
                if source == destination {
                    continue;
                }
                let inner = |mark| packet(cluster, source, destination).udp(PORT, PORT, mark);
                let what = |outer: &str| format!("{source} to {destination} in a tunnel packet {outer}");
                for (node, to) in [(1, f.node), (2, f.other_node)] {
                    let outer = packet(cluster, f.own, to);
                    attacks.push(Attack {
                        what: what(&format!("to {to}")),
                        frame: vxlan(&outer, PORT, 1, &inner(ENDS_AT_A_NODE)),
                        refusal: Refusal {
                            node,
                            hook: "from_overlay",
                            reason: "unknown_node",
                        },
                    });
                    let outer = packet(cluster, f.other_node, to);
                    attacks.push(attack(
                        what("with a node as source"),
                        vxlan(&outer, PORT, 1, &inner(MARK.not_on_the_wire)),
                        "spoofed_source",
                    ));
                }
                // Out there it would have the node's address as its source.
                let outer = packet(cluster, f.own, f.outside);
                attacks.push(attack(
                    what("out of the cluster"),
                    vxlan(&outer, PORT, 1, &inner(MARK.not_on_the_wire)),
                    "tunnel_port",
                ));
            }
        }
    }
    attacks
}

/// Questions and answers for others (RFC 826).
fn arp(cluster: &Cluster) -> Vec<Attack> {
    let frame = |operation: u8, to: [u8; 6], sender: IpAddr, target: IpAddr| {
        let (IpAddr::V4(sender), IpAddr::V4(target)) = (sender, target) else {
            unreachable!("ARP is of IPv4")
        };
        let mut frame = [to, cluster.own_mac].concat();
        frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
        frame.extend(cluster.own_mac);
        frame.extend(sender.octets());
        frame.extend([0; 6]);
        frame.extend(target.octets());
        frame.extend(MARK.not_on_the_wire);
        frame
    };
    let f = &cluster.v4;
    let gateway = address("169.254.1.1");
    let mut attacks = Vec::new();
    for claimed in [f.own, f.neighbour, f.remote, f.node, gateway] {
        for to in [BROADCAST_MAC, GATEWAY_MAC, cluster.neighbour_mac] {
            for (operation, target) in [(1, f.neighbour), (1, claimed), (2, f.neighbour), (2, f.node)] {
                attacks.push(attack(
                    format!("ARP {operation} to {to:02x?}: {claimed} is here; {target}"),
                    frame(operation, to, claimed, target),
                    "not_ip",
                ));
            }
        }
    }
    attacks
}

/// An ICMPv6 message of neighbour discovery (RFC 4861, section 4), valid, with an option that nobody knows.
fn discovery(packet: Packet, kind: u8, word: [u8; 4], body: &[u8]) -> Vec<u8> {
    let kind = Icmpv6Type::Unknown {
        type_u8: kind,
        code_u8: 0,
        bytes5to8: word,
    };
    let mut option = vec![253, 3];
    option.extend(MARK.not_on_the_wire);
    option.resize(24, 0);
    packet.ttl(255).icmpv6(kind, &[body, &option].concat())
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V6(v6) => v6.octets(),
        IpAddr::V4(_) => unreachable!("neighbour discovery is of IPv6"),
    }
}

/// Solicitations, advertisements and redirects: of and for others, to all and to single addresses.
fn neighbour_discovery(cluster: &Cluster) -> Vec<Attack> {
    let f = &cluster.v6;
    let (all_nodes, gateway) = (address("ff02::1"), address("fe80::1"));
    let link_address = |option: u8| [&[option, 1][..], &cluster.own_mac].concat();
    let mut attacks = Vec::new();
    for destination in [
        all_nodes,
        gateway,
        f.neighbour,
        f.remote,
        f.node,
        f.other_node,
        f.outside,
    ] {
        for source in [f.own, address("fe80::bad"), f.neighbour] {
            for claimed in [f.own, f.neighbour, f.remote, f.node, gateway] {
                let target = octets(claimed);
                let base = || packet(cluster, source, destination);
                let messages = [
                    (135, [0; 4], [&target[..], &link_address(1)].concat()),
                    (136, [0x60, 0, 0, 0], [&target[..], &link_address(2)].concat()),
                    (137, [0; 4], [&target[..], &octets(f.outside)].concat()),
                ];
                for (kind, word, body) in messages {
                    attacks.push(attack(
                        format!("neighbour discovery {kind} of {claimed}, from {source} to {destination}"),
                        discovery(base(), kind, word, &body),
                        "not_routable",
                    ));
                }
            }
            attacks.push(attack(
                format!("a router solicitation from {source} to {destination}"),
                discovery(packet(cluster, source, destination), 133, [0; 4], &[]),
                "not_routable",
            ));
        }
    }
    attacks
}

/// From whomever, to whomever, and behind extension headers.
fn router_advertisements(cluster: &Cluster) -> Vec<Attack> {
    let f = &cluster.v6;
    // Hop limit 64, a lifetime of half an hour; a prefix for addresses of one's own making.
    let word = [64, 0, 7, 8];
    let mut body = vec![0; 8];
    body.extend([3, 4, 64, 0xc0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    body.extend("2001:db8:bad::".parse::<Ipv6Addr>().unwrap().octets());
    let mut attacks = Vec::new();
    for source in [address("fe80::bad"), address("fe80::1"), f.own, f.node] {
        for destination in [address("ff02::1"), f.neighbour, f.remote, f.node, f.outside] {
            let base = packet(cluster, source, destination);
            for (how, packet) in [
                ("", base.clone()),
                (
                    " behind hop-by-hop options",
                    base.clone()
                        .extension(IpNumber::IPV6_HEADER_HOP_BY_HOP, &[0, 0, 1, 4, 0, 0, 0, 0]),
                ),
                (" in a fragment", base.fragment(9, 0, false)),
            ] {
                attacks.push(attack(
                    format!("a router advertisement from {source} to {destination}{how}"),
                    discovery(packet, 134, word, &body),
                    "router_advertisement",
                ));
            }
        }
    }
    attacks
}

/// Questions to whoever serves addresses, and answers as if from one (RFC 2131; RFC 8415).
fn dhcp(cluster: &Cluster) -> Vec<Attack> {
    let message = |operation: u8| {
        let mut message = vec![operation, 1, 6, 0, 1, 2, 3, 4];
        message.resize(236, 0);
        message.extend([99, 130, 83, 99, 53, 1, 1, 255]);
        message.extend(MARK.not_on_the_wire);
        message
    };
    let [any, broadcast, servers] = ["0.0.0.0", "255.255.255.255", "ff02::1:2"].map(address);
    let to_all = |source| Packet::new(source, broadcast).macs(cluster.own_mac, BROADCAST_MAC);
    let solicit = [&[1, 1, 2, 3][..], MARK.not_on_the_wire].concat();
    let link_local = address("fe80::bad");
    [
        (
            "a DHCP discover",
            to_all(any).udp(68, 67, &message(1)),
            "not_routable",
        ),
        (
            "a DHCP discover with the pod's address",
            to_all(cluster.v4.own).udp(68, 67, &message(1)),
            "not_routable",
        ),
        (
            "a DHCP offer to all",
            to_all(cluster.v4.own).udp(67, 68, &message(2)),
            "not_routable",
        ),
        (
            "a DHCP offer to a pod, from its node",
            packet(cluster, cluster.v4.node, cluster.v4.neighbour).udp(67, 68, &message(2)),
            "spoofed_source",
        ),
        (
            "a DHCPv6 solicit",
            packet(cluster, link_local, servers).udp(546, 547, &solicit),
            "not_routable",
        ),
        (
            "a DHCPv6 solicit with the pod's address",
            packet(cluster, cluster.v6.own, servers).udp(546, 547, &solicit),
            "not_routable",
        ),
    ]
    .map(|(what, frame, reason)| attack(what.into(), frame, reason))
    .into()
}

/// What lies on no way from a pod: loopback, link-local, multicast, broadcast, unspecified.
fn destinations(cluster: &Cluster) -> Vec<Attack> {
    let v4 = [
        "127.0.0.1",
        "127.1.2.3",
        "127.255.255.255",
        "169.254.0.1",
        "169.254.1.1",
        "169.254.169.254",
        "224.0.0.1",
        "224.0.0.251",
        "239.255.255.250",
        "255.255.255.255",
        "240.0.0.1",
        "0.0.0.0",
        "0.1.2.3",
    ];
    let v6 = [
        "::1",
        "::",
        "fe80::1",
        "fe80::74:6fff:fe6d:6201",
        "febf::1",
        "ff01::1",
        "ff02::1",
        "ff02::2",
        "ff02::fb",
        "ff05::2",
        "ff0e::1",
    ];
    let mut attacks = Vec::new();
    for (own, destinations) in [(cluster.v4.own, &v4[..]), (cluster.v6.own, &v6[..])] {
        for to in destinations {
            let packet = packet(cluster, own, address(to));
            for (what, frame) in [
                ("UDP", udp(&packet)),
                ("echo", packet.echo(7, 7, MARK.not_on_the_wire)),
                (
                    "UDP to every MAC",
                    udp(&packet.clone().macs(cluster.own_mac, BROADCAST_MAC)),
                ),
            ] {
                attacks.push(attack(format!("{what}, to {to}"), frame, "not_routable"));
            }
        }
    }
    attacks
}

/// IPv4-mapped addresses, which stand for IPv4 in the tables, on the wire (RFC 4942, section 2.2).
fn mapped_addresses(cluster: &Cluster) -> Vec<Attack> {
    let mapped = |address: IpAddr| match address {
        IpAddr::V4(v4) => IpAddr::V6(v4.to_ipv6_mapped()),
        v6 @ IpAddr::V6(_) => v6,
    };
    let (v4, v6) = (&cluster.v4, &cluster.v6);
    let mut pairs = Vec::new();
    for destination in [v4.neighbour, v4.remote, v4.node, v4.outside, address("127.0.0.1")] {
        pairs.push((v6.own, mapped(destination)));
        pairs.push((mapped(v4.own), mapped(destination)));
    }
    for source in [v4.own, v4.neighbour, v4.node] {
        for destination in [v6.neighbour, v6.remote, v6.node] {
            pairs.push((mapped(source), destination));
        }
    }
    pairs
        .into_iter()
        .map(|(source, destination)| {
            attack(
                format!("{source} to {destination} in IPv6"),
                udp(&packet(cluster, source, destination)),
                "mapped_address",
            )
        })
        .collect()
}

/// What is no IP packet, or a broken one.
fn nonsense(cluster: &Cluster) -> Vec<Attack> {
    let mut attacks = Vec::new();
    // Spanning tree (as a length), LLDP, PPPoE, MPLS, MACsec, PTP.
    for kind in [0x0026_u16, 0x88cc, 0x8863, 0x8847, 0x88e5, 0x88f7] {
        let mut frame = [[0x01, 0x80, 0xc2, 0, 0, 0], cluster.own_mac].concat();
        frame.extend(kind.to_be_bytes());
        frame.extend([0x42, 0x42, 3, 0]);
        frame.extend(MARK.not_on_the_wire);
        frame.resize(60, 0);
        attacks.push(attack(format!("EtherType {kind:#06x}"), frame, "not_ip"));
    }
    for f in [&cluster.v4, &cluster.v6] {
        let good = udp(&packet(cluster, f.own, f.neighbour));
        let mut version = good.clone();
        version[14] ^= 0x20;
        let mut longer = good.clone();
        // The upper byte of the length.
        longer[if f.own.is_ipv4() { 16 } else { 18 }] = 0x7f;
        for (what, frame) in [("another version", version), ("a length past its end", longer)] {
            attacks.push(attack(format!("{what} to {}", f.neighbour), frame, "malformed"));
        }
    }
    attacks
}
