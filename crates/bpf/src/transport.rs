//! The first bytes of a transport header: what tells flows apart.

use tombolo_abi::{FlowKey, Outcome};

use crate::{
    fragments::{self, FragmentKey},
    parse::{Packet, protocol},
    skb::Skb,
};

/// ICMP echo reply and request.
const ECHO_V4: [u8; 2] = [0, 8];
/// ICMPv6 echo request and reply.
const ECHO_V6: [u8; 2] = [128, 129];

/// TCP flags (RFC 9293, section 3.1).
pub mod tcp {
    /// The sender has said its last.
    pub const FIN: u8 = 1;
    /// A connection begins.
    pub const SYN: u8 = 2;
    /// The connection is broken off.
    pub const RST: u8 = 4;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 16;
}

/// What a transport header says.
#[derive(Clone, Copy)]
pub struct Transport {
    /// Source port (network byte order), or what stands for it: the identifier of ICMP echo; otherwise 0.
    pub source_port: u16,
    /// As `source_port`.
    pub destination_port: u16,
    /// TCP's flags; otherwise 0.
    pub flags: u8,
}

impl Transport {
    /// Reads the header of a packet, or the note that its first fragment has left. `None`: it has no flow, being ICMP
    /// other than echo, or a fragment of which no more is known.
    ///
    /// # Errors
    /// `Malformed`: no room for ports.
    #[inline(always)]
    pub fn read(skb: Skb, packet: &Packet, fragment: &mut FragmentKey) -> Result<Option<Self>, Outcome> {
        if packet.is_later_fragment() {
            return Ok(fragments::ports(packet, fragment).map(|ports| Self::of_ports(ports, 0)));
        }
        let found = match packet.protocol {
            protocol::TCP => {
                let header: [u16; 7] = skb.load(packet.transport).ok_or(Outcome::Malformed)?;
                let [_, flags] = header[6].to_ne_bytes();
                Self::of_ports([header[0], header[1]], flags)
            }
            protocol::UDP | protocol::SCTP => {
                let ports: [u16; 2] = skb.load(packet.transport).ok_or(Outcome::Malformed)?;
                Self::of_ports(ports, 0)
            }
            protocol::ICMP | protocol::ICMPV6 => {
                let [kind, _, _, _, a, b] =
                    skb.load::<[u8; 6]>(packet.transport).ok_or(Outcome::Malformed)?;
                let echo = if packet.v4 { ECHO_V4 } else { ECHO_V6 };
                if kind != echo[0] && kind != echo[1] {
                    return Ok(None);
                }
                let id = u16::from_ne_bytes([a, b]);
                Self::of_ports([id, id], 0)
            }
            _ => Self::of_ports([0, 0], 0),
        };
        if packet.is_fragment() {
            fragments::note(packet, fragment, [found.source_port, found.destination_port]);
        }
        Ok(Some(found))
    }

    #[inline(always)]
    const fn of_ports([source_port, destination_port]: [u16; 2], flags: u8) -> Self {
        Self {
            source_port,
            destination_port,
            flags,
        }
    }

    /// Writes the key of the packet's direction of its flow: field by field, since a whole one would be put together
    /// on the stack first.
    #[inline(always)]
    pub fn write_key(self, packet: &Packet, key: &mut FlowKey) {
        key.source = packet.source;
        key.destination = packet.destination;
        key.source_port = self.source_port;
        key.destination_port = self.destination_port;
        key.protocol = packet.protocol;
        key.pad = [0; 3];
    }

    /// Whether this begins a TCP connection.
    #[inline(always)]
    pub const fn is_syn(self) -> bool {
        self.flags & (tcp::SYN | tcp::ACK | tcp::RST | tcp::FIN) == tcp::SYN
    }
}
