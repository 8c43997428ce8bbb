//! Frames by hand: what a library would not let one get wrong.

use std::net::IpAddr;

use tombolo_abi::GATEWAY_MAC;

pub const POD_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xa];

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMP: u8 = 1;
pub const ICMPV6: u8 = 58;

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A packet to be: its fields can be set before it is built.
#[derive(Clone, Debug)]
pub struct Frame {
    pub destination_mac: [u8; 6],
    pub source_mac: [u8; 6],
    pub source: IpAddr,
    pub destination: IpAddr,
    pub ttl: u8,
    pub protocol: u8,
    pub payload: Vec<u8>,
    pub dont_fragment: bool,
    /// Explicit congestion notification: 0 to 3.
    pub ecn: u8,
    /// In bytes.
    pub fragment_offset: u16,
    /// IPv4: there are more.
    pub more_fragments: bool,
}

impl Frame {
    /// A UDP packet, from a pod by its looks.
    pub fn udp(source: &str, destination: &str) -> Self {
        let mut payload = vec![0x12, 0x34, 0, 53, 0, 12, 0, 0];
        payload.extend(b"data");
        Self {
            destination_mac: GATEWAY_MAC,
            source_mac: POD_MAC,
            source: ip(source),
            destination: ip(destination),
            ttl: 64,
            protocol: UDP,
            payload,
            dont_fragment: false,
            ecn: 0,
            fragment_offset: 0,
            more_fragments: false,
        }
    }

    /// Of this many bytes from the IP header on.
    pub fn sized(mut self, size: usize) -> Self {
        let header = if self.source.is_ipv4() { 20 } else { 40 };
        self.payload.resize(size - header, b'x');
        self
    }

    pub fn ttl(self, ttl: u8) -> Self {
        Self { ttl, ..self }
    }

    pub fn dont_fragment(self) -> Self {
        Self {
            dont_fragment: true,
            ..self
        }
    }

    pub fn protocol(self, protocol: u8, payload: &[u8]) -> Self {
        Self {
            protocol,
            payload: payload.to_vec(),
            ..self
        }
    }

    /// An ICMP message of either family.
    pub fn icmp(self, v4_type: u8, v6_type: u8) -> Self {
        let (protocol, kind) = if self.source.is_ipv4() {
            (ICMP, v4_type)
        } else {
            (ICMPV6, v6_type)
        };
        self.protocol(protocol, &[kind, 0, 0, 0, 0, 7, 0, 1])
    }

    /// The ICMP message that it is already, with this past its type, and summed up.
    pub fn icmp_message(mut self, mut message: Vec<u8>) -> Self {
        message[0] = self.payload[0];
        self.payload = message;
        self.resummed_icmp()
    }

    /// With the checksum of its ICMP message filled in.
    pub fn resummed_icmp(mut self) -> Self {
        self.payload[2..4].fill(0);
        let sum = if self.protocol == ICMP {
            checksum(&[&self.payload])
        } else {
            self.transport_sum()
        };
        self.payload[2..4].copy_from_slice(&sum.to_be_bytes());
        self
    }

    /// A TCP segment without options, summed up.
    pub fn tcp(source: &str, destination: &str, ports: [u16; 2], flags: u8, data: &[u8]) -> Self {
        let mut header = vec![0; 20];
        header[0..2].copy_from_slice(&ports[0].to_be_bytes());
        header[2..4].copy_from_slice(&ports[1].to_be_bytes());
        header[4..8].copy_from_slice(&1000_u32.to_be_bytes());
        header[8..12].copy_from_slice(&2000_u32.to_be_bytes());
        header[12] = 5 << 4;
        header[13] = flags;
        header.extend(data);
        Self::udp(source, destination).protocol(TCP, &header).resummed()
    }

    /// A UDP datagram between ports.
    pub fn datagram(source: &str, destination: &str, ports: [u16; 2]) -> Self {
        let mut frame = Self::udp(source, destination);
        frame.payload[0..2].copy_from_slice(&ports[0].to_be_bytes());
        frame.payload[2..4].copy_from_slice(&ports[1].to_be_bytes());
        frame.resummed()
    }

    /// With the checksum of its TCP or UDP header filled in.
    pub fn resummed(mut self) -> Self {
        let at = if self.protocol == TCP { 16 } else { 6 };
        self.payload[at..at + 2].fill(0);
        let sum = self.transport_sum();
        self.payload[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        self
    }

    /// The checksum over pseudo-header and payload: 0 where it is filled in, and right.
    pub fn transport_sum(&self) -> u16 {
        let octets = |address: IpAddr| match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let len = (self.payload.len() as u16).to_be_bytes();
        let pseudo = [
            octets(self.source),
            octets(self.destination),
            vec![0, self.protocol],
            len.to_vec(),
        ]
        .concat();
        checksum(&[&pseudo, &self.payload])
    }

    /// Source and destination port.
    pub fn ports(&self) -> [u16; 2] {
        [0, 2].map(|at| u16::from_be_bytes([self.payload[at], self.payload[at + 1]]))
    }

    /// Reads a frame without extension headers, and checks the checksums in it.
    pub fn read(bytes: &[u8]) -> Self {
        let mut frame = Self {
            destination_mac: bytes[0..6].try_into().unwrap(),
            source_mac: bytes[6..12].try_into().unwrap(),
            ..Self::udp("10.0.0.1", "10.0.0.2")
        };
        let body = &bytes[14..];
        if bytes[12..14] == [8, 0] {
            assert_eq!(checksum(&[&body[..20]]), 0, "header checksum");
            let total = usize::from(u16::from_be_bytes([body[2], body[3]]));
            assert_eq!(total, body.len());
            let [source, destination]: [[u8; 4]; 2] = [12, 16].map(|at| body[at..at + 4].try_into().unwrap());
            (frame.source, frame.destination) = (source.into(), destination.into());
            (frame.ttl, frame.protocol) = (body[8], body[9]);
            frame.payload = body[20..].to_vec();
        } else {
            let [source, destination]: [[u8; 16]; 2] =
                [8, 24].map(|at| body[at..at + 16].try_into().unwrap());
            (frame.source, frame.destination) = (source.into(), destination.into());
            (frame.protocol, frame.ttl) = (body[6], body[7]);
            frame.payload = body[40..].to_vec();
        }
        let fragment = frame.source.is_ipv4() && u16::from_be_bytes([body[6], body[7]]) & 0x3fff != 0;
        if !fragment && [TCP, UDP].contains(&frame.protocol) && frame.payload.get(6..8) != Some(&[0, 0]) {
            assert_eq!(frame.transport_sum(), 0, "transport checksum: {frame:?}");
        }
        frame
    }

    /// An IPv6 extension header of eight bytes before what is there.
    pub fn extended(mut self, header: u8) -> Self {
        let mut payload = vec![self.protocol, 0, 0, 0, 0, 0, 0, 0];
        payload.append(&mut self.payload);
        self.protocol(header, &payload)
    }

    pub fn with_mac(self, source_mac: [u8; 6]) -> Self {
        Self { source_mac, ..self }
    }

    /// With its UDP checksum filled in, so that a socket takes it.
    pub fn summed(mut self) -> Self {
        let octets = |address: IpAddr| match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let len = (self.payload.len() as u16).to_be_bytes();
        self.payload[4..6].copy_from_slice(&len);
        self.payload[6..8].fill(0);
        let pseudo = [
            octets(self.source),
            octets(self.destination),
            vec![0, UDP],
            len.to_vec(),
        ]
        .concat();
        let sum = checksum(&[&pseudo, &self.payload]);
        self.payload[6..8].copy_from_slice(&sum.to_be_bytes());
        self
    }

    /// The fragment at an offset, in bytes.
    pub fn fragment(mut self, offset: u16) -> Self {
        if self.source.is_ipv4() {
            self.fragment_offset = offset;
            return self;
        }
        let [hi, lo] = (offset | 1).to_be_bytes();
        let mut payload = vec![self.protocol, 0, hi, lo, 0, 0, 0, 9];
        payload.append(&mut self.payload);
        self.protocol(44, &payload)
    }

    /// The bytes on the wire.
    pub fn build(&self) -> Vec<u8> {
        let mut bytes = [self.destination_mac, self.source_mac].concat();
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                bytes.extend([8, 0, 0x45, self.ecn]);
                bytes.extend((20 + self.payload.len() as u16).to_be_bytes());
                let flags = if self.dont_fragment { 0x4000 } else { 0 };
                let more = if self.more_fragments { 0x2000 } else { 0 };
                let fragment = flags | more | (self.fragment_offset / 8);
                bytes.extend([0, 1]);
                bytes.extend(u16::to_be_bytes(fragment));
                bytes.extend([self.ttl, self.protocol, 0, 0]);
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
                let sum = checksum(&[&bytes[14..34]]);
                bytes[24..26].copy_from_slice(&sum.to_be_bytes());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                bytes.extend([0x86, 0xdd, 0x60, self.ecn << 4, 0, 0]);
                bytes.extend((self.payload.len() as u16).to_be_bytes());
                bytes.extend([self.protocol, self.ttl]);
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
            }
            _ => panic!("one family"),
        }
        bytes.extend(&self.payload);
        bytes
    }
}

/// The checksum of some bytes (RFC 1071); 0 of bytes that hold their own.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let words = bytes
        .chunks(2)
        .map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0)));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !(((sum & 0xffff) + (sum >> 16)) as u16)
}

/// What an ICMP error says.
#[derive(Debug, PartialEq, Eq)]
pub struct IcmpError {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub kind: u8,
    pub code: u8,
    pub mtu: u32,
    /// From the IP header on.
    pub quote: Vec<u8>,
}

impl IcmpError {
    /// Reads a frame, and checks everything in it that can be checked.
    pub fn read(frame: &[u8]) -> Self {
        let body = &frame[14..];
        let (source, destination, icmp) = if frame[12..14] == [8, 0] {
            assert_eq!(body[0], 0x45);
            assert_eq!(
                usize::from(u16::from_be_bytes([body[2], body[3]])),
                body.len(),
                "total length"
            );
            assert_eq!(checksum(&[&body[..20]]), 0, "header checksum");
            assert_eq!(body[9], ICMP);
            assert!(body.len() <= 576);
            let source: [u8; 4] = body[12..16].try_into().unwrap();
            let destination: [u8; 4] = body[16..20].try_into().unwrap();
            assert_eq!(checksum(&[&body[20..]]), 0, "ICMP checksum");
            (source.into(), destination.into(), &body[20..])
        } else {
            assert_eq!(frame[12..14], [0x86, 0xdd]);
            assert_eq!(body[0], 0x60);
            assert_eq!(
                usize::from(u16::from_be_bytes([body[4], body[5]])),
                body.len() - 40,
                "payload length"
            );
            assert_eq!(body[6], ICMPV6);
            assert!(body.len() <= 1280);
            let source: [u8; 16] = body[8..24].try_into().unwrap();
            let destination: [u8; 16] = body[24..40].try_into().unwrap();
            let len = (body.len() as u32 - 40).to_be_bytes();
            assert_eq!(
                checksum(&[&body[8..40], &len, &[0, 0, 0, ICMPV6], &body[40..]]),
                0,
                "ICMPv6 checksum"
            );
            (source.into(), destination.into(), &body[40..])
        };
        Self {
            source,
            destination,
            kind: icmp[0],
            code: icmp[1],
            mtu: u32::from_be_bytes(icmp[4..8].try_into().unwrap()),
            quote: icmp[8..].to_vec(),
        }
    }
}
