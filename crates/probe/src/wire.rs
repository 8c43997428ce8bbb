//! What goes over the wire between client and server.
//!
//! TCP: the server speaks first, one line of JSON ([`Seen`]) ended by a newline; after that it echoes
//! every byte until the client shuts its direction down.
//!
//! UDP: a request is a [`Header`] with empty addresses, filled up with [`pattern`] to any size of at least
//! [`Header::SIZE`]; the reply has the same size and the same bytes, its header filled in.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

/// The two ends of a conversation, as the server saw them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The source of the client's packets when they arrived.
    pub client: SocketAddr,
    /// The destination that they carried when they arrived.
    pub server: SocketAddr,
}

/// The start of every datagram: 8 bytes magic, 8 bytes number, then (reply only) the client's address
/// (16 bytes, IPv4 as IPv4-mapped IPv6) and port (2 bytes), and the server's; big-endian throughout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Chosen by the client; a reply repeats it.
    pub number: u64,
    /// What the server saw; `None` in a request.
    pub seen: Option<Seen>,
}

const REQUEST: [u8; 8] = *b"tmbprbRQ";
const REPLY: [u8; 8] = *b"tmbprbRP";

impl Header {
    /// The size of a header in bytes: the least that a datagram may have.
    pub const SIZE: usize = 52;

    /// Writes the header into the first [`Self::SIZE`] bytes of a datagram; a shorter buffer is left alone.
    pub fn write(&self, datagram: &mut [u8]) {
        let Some(head) = datagram.first_chunk_mut::<{ Self::SIZE }>() else {
            return;
        };
        head.fill(0);
        head[8..16].copy_from_slice(&self.number.to_be_bytes());
        match &self.seen {
            None => head[..8].copy_from_slice(&REQUEST),
            Some(seen) => {
                head[..8].copy_from_slice(&REPLY);
                write_address(&mut head[16..34], seen.client);
                write_address(&mut head[34..52], seen.server);
            }
        }
    }

    /// Reads the header of a datagram; `None` if it has none.
    pub fn read(datagram: &[u8]) -> Option<Self> {
        let head = datagram.first_chunk::<{ Self::SIZE }>()?;
        let number = u64::from_be_bytes(*head[8..].first_chunk()?);
        let seen = match head[..8].try_into().ok()? {
            REQUEST => None,
            REPLY => Some(Seen {
                client: read_address(&head[16..34])?,
                server: read_address(&head[34..52])?,
            }),
            _ => return None,
        };
        Some(Self { number, seen })
    }
}

fn write_address(bytes: &mut [u8], address: SocketAddr) {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    bytes[..16].copy_from_slice(&ip.octets());
    bytes[16..18].copy_from_slice(&address.port().to_be_bytes());
}

fn read_address(bytes: &[u8]) -> Option<SocketAddr> {
    let ip = Ipv6Addr::from(*bytes.first_chunk::<16>()?).to_canonical();
    Some(SocketAddr::new(
        ip,
        u16::from_be_bytes(*bytes[16..].first_chunk()?),
    ))
}

/// Fills `bytes` with the part of an endless, never repeating pattern that starts at byte `offset`, so
/// that lost, doubled, moved and changed bytes are all told apart from the right ones.
pub fn pattern(offset: u64, bytes: &mut [u8]) {
    let mut at = offset;
    let mut rest = bytes;
    while !rest.is_empty() {
        let word = mix(at / 8).to_le_bytes();
        let from = (at % 8) as usize;
        let n = rest.len().min(8 - from);
        let (now, later) = rest.split_at_mut(n);
        now.copy_from_slice(&word[from..from + n]);
        at += n as u64;
        rest = later;
    }
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators").
fn mix(index: u64) -> u64 {
    let mut z = index
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_the_wire() {
        let seen = Seen {
            client: "10.244.1.5:40000".parse().unwrap(),
            server: "[fd00:10:244::5]:7070".parse().unwrap(),
        };
        for header in [
            Header {
                number: 7,
                seen: None,
            },
            Header {
                number: u64::MAX,
                seen: Some(seen),
            },
        ] {
            let mut datagram = [0xff; 80];
            header.write(&mut datagram);
            assert_eq!(Header::read(&datagram), Some(header));
        }
    }

    #[test]
    fn nonsense_has_no_header() {
        assert_eq!(Header::read(&[]), None);
        assert_eq!(Header::read(&[0; Header::SIZE - 1]), None);
        assert_eq!(Header::read(&[0; 4096]), None);
    }

    #[test]
    fn the_pattern_does_not_depend_on_how_it_is_cut() {
        let mut whole = [0; 100];
        pattern(0, &mut whole);
        for cut in 0..100 {
            let (mut left, mut right) = (vec![0; cut], vec![0; 100 - cut]);
            pattern(0, &mut left);
            pattern(cut as u64, &mut right);
            assert_eq!([left, right].concat(), whole);
        }
    }
}
