//! Packets made to measure, down to the wrong ones.

use std::net::IpAddr;

use etherparse::{
    EtherType, Ethernet2Header, IcmpEchoHeader, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type,
    IpFragOffset, IpNumber, Ipv4Header, Ipv6FragmentHeader, Ipv6Header, TcpHeader, UdpHeader,
};

/// The UDP port of VXLAN (RFC 7348, 5).
pub const VXLAN_PORT: u16 = 4789;

/// An Ethernet frame in the making: the headers below the transport protocol. The last step (`udp`, `tcp`, `echo`,
/// `payload`) gives the bytes, with right lengths and checksums; to get wrong ones, change the bytes.
#[derive(Debug, Clone)]
pub struct Packet {
    ethernet: Ethernet2Header,
    source: IpAddr,
    destination: IpAddr,
    ttl: u8,
    dont_fragment: bool,
    fragment: Option<Fragment>,
    extensions: Vec<(IpNumber, Vec<u8>)>,
}

#[derive(Debug, Clone, Copy)]
struct Fragment {
    identification: u32,
    offset: IpFragOffset,
    more: bool,
}

impl Packet {
    /// A packet from one address to another, of the same family.
    ///
    /// # Panics
    /// When they are not of the same family.
    pub fn new(source: IpAddr, destination: IpAddr) -> Self {
        assert_eq!(
            source.is_ipv4(),
            destination.is_ipv4(),
            "{source} and {destination} are of different families"
        );
        let ether_type = if source.is_ipv4() {
            EtherType::IPV4
        } else {
            EtherType::IPV6
        };
        Self {
            ethernet: Ethernet2Header {
                source: [0; 6],
                destination: [0; 6],
                ether_type,
            },
            source,
            destination,
            ttl: 64,
            dont_fragment: true,
            fragment: None,
            extensions: Vec::new(),
        }
    }

    /// With these Ethernet addresses; zero otherwise.
    pub fn macs(mut self, source: [u8; 6], destination: [u8; 6]) -> Self {
        self.ethernet.source = source;
        self.ethernet.destination = destination;
        self
    }

    /// With this TTL or hop limit; 64 otherwise.
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// Routers may fragment it (IPv4).
    pub fn may_fragment(mut self) -> Self {
        self.dont_fragment = false;
        self
    }

    /// It is a fragment: what is given as its payload lies `offset` bytes (a multiple of 8) into the whole one.
    ///
    /// # Panics
    /// When the offset is none.
    pub fn fragment(mut self, identification: u32, offset: u16, more: bool) -> Self {
        assert_eq!(offset % 8, 0, "fragment offsets are multiples of 8 bytes");
        let offset =
            IpFragOffset::try_new(offset / 8).unwrap_or_else(|error| panic!("fragment offset: {error}"));
        self.fragment = Some(Fragment {
            identification,
            offset,
            more,
        });
        self.dont_fragment = false;
        self
    }

    /// With one more IPv6 extension header, as bytes of which the first will be set to name the next header.
    ///
    /// # Panics
    /// When the packet is IPv4, or the header is empty.
    pub fn extension(mut self, kind: IpNumber, header: &[u8]) -> Self {
        assert!(
            self.source.is_ipv6() && !header.is_empty(),
            "extension headers are of IPv6"
        );
        self.extensions.push((kind, header.to_vec()));
        self
    }

    /// A UDP datagram.
    pub fn udp(&self, source_port: u16, destination_port: u16, payload: &[u8]) -> Vec<u8> {
        let header = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let ip = self.ipv4(source.octets(), destination.octets());
                UdpHeader::with_ipv4_checksum(source_port, destination_port, &ip, payload)
            }
            (source, destination) => {
                let ip = self.ipv6(octets(source), octets(destination));
                UdpHeader::with_ipv6_checksum(source_port, destination_port, &ip, payload)
            }
        };
        let header = header.unwrap_or_else(|error| panic!("UDP: {error}"));
        self.payload(IpNumber::UDP, &[&header.to_bytes()[..], payload].concat())
    }

    /// A TCP segment; its checksum is set here.
    pub fn tcp(&self, mut header: TcpHeader, payload: &[u8]) -> Vec<u8> {
        let checksum = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                header.calc_checksum_ipv4_raw(source.octets(), destination.octets(), payload)
            }
            (source, destination) => {
                header.calc_checksum_ipv6_raw(octets(source), octets(destination), payload)
            }
        };
        header.checksum = checksum.unwrap_or_else(|error| panic!("TCP: {error}"));
        self.payload(IpNumber::TCP, &[&header.to_bytes()[..], payload].concat())
    }

    /// An ICMP or ICMPv6 echo request.
    pub fn echo(&self, id: u16, seq: u16, payload: &[u8]) -> Vec<u8> {
        let echo = IcmpEchoHeader { id, seq };
        if self.source.is_ipv4() {
            let header = Icmpv4Header::with_checksum(Icmpv4Type::EchoRequest(echo), payload);
            return self.payload(IpNumber::ICMP, &[&header.to_bytes()[..], payload].concat());
        }
        self.icmpv6(Icmpv6Type::EchoRequest(echo), payload)
    }

    /// Any ICMPv6 message.
    pub fn icmpv6(&self, kind: Icmpv6Type, payload: &[u8]) -> Vec<u8> {
        let header =
            Icmpv6Header::with_checksum(kind, octets(self.source), octets(self.destination), payload);
        let header = header.unwrap_or_else(|error| panic!("ICMPv6: {error}"));
        self.payload(IpNumber::IPV6_ICMP, &[&header.to_bytes()[..], payload].concat())
    }

    /// Whatever comes above IP, as it is.
    pub fn payload(&self, protocol: IpNumber, payload: &[u8]) -> Vec<u8> {
        let mut frame = self.ethernet.to_bytes().to_vec();
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut ip = self.ipv4(source.octets(), destination.octets());
                ip.protocol = protocol;
                ip.set_payload_len(payload.len())
                    .unwrap_or_else(|error| panic!("IPv4: {error}"));
                ip.header_checksum = ip.calc_header_checksum();
                frame.extend(ip.to_bytes());
            }
            (source, destination) => {
                let (first, extensions) = self.chain(protocol);
                let mut ip = self.ipv6(octets(source), octets(destination));
                ip.next_header = first;
                ip.set_payload_length(extensions.len() + payload.len())
                    .unwrap_or_else(|error| panic!("IPv6: {error}"));
                frame.extend(ip.to_bytes());
                frame.extend(extensions);
            }
        }
        frame.extend(payload);
        frame
    }

    fn ipv4(&self, source: [u8; 4], destination: [u8; 4]) -> Ipv4Header {
        let mut ip = Ipv4Header {
            time_to_live: self.ttl,
            dont_fragment: self.dont_fragment,
            source,
            destination,
            ..Default::default()
        };
        if let Some(fragment) = self.fragment {
            ip.identification = fragment.identification as u16;
            ip.fragment_offset = fragment.offset;
            ip.more_fragments = fragment.more;
        }
        ip
    }

    fn ipv6(&self, source: [u8; 16], destination: [u8; 16]) -> Ipv6Header {
        Ipv6Header {
            hop_limit: self.ttl,
            source,
            destination,
            ..Ipv6Header::default()
        }
    }

    /// The first header's number and all extension headers, the fragment header last.
    fn chain(&self, protocol: IpNumber) -> (IpNumber, Vec<u8>) {
        let mut headers = self.extensions.clone();
        headers.extend(self.fragment.map(|fragment| {
            let header =
                Ipv6FragmentHeader::new(protocol, fragment.offset, fragment.more, fragment.identification);
            (IpNumber::IPV6_FRAGMENTATION_HEADER, header.to_bytes().to_vec())
        }));
        let mut next = protocol;
        let mut bytes = Vec::new();
        for (kind, mut header) in headers.into_iter().rev() {
            header[0] = next.0;
            bytes.splice(0..0, header);
            next = kind;
        }
        (next, bytes)
    }
}

/// A frame as VXLAN carries it (RFC 7348, 5): `outer` says between whom, `vni` in which network.
pub fn vxlan(outer: &Packet, source_port: u16, vni: u32, inner: &[u8]) -> Vec<u8> {
    // The flag says that the VNI is valid.
    let mut payload = vec![0x08, 0, 0, 0];
    payload.extend((vni << 8).to_be_bytes());
    payload.extend(inner);
    outer.udp(source_port, VXLAN_PORT, &payload)
}

/// IPv4 as IPv4-mapped IPv6, as nothing should ever be on the wire.
fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}
