/// An IP address of either family: 16 bytes, IPv4 as `::ffff:a.b.c.d`.
///
/// Kept as four words *as they lie in memory on the wire*, so that the kernel side copies and
/// compares words and never swaps bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Addr(pub [u32; 4]);

impl Addr {
    /// No address (`::`).
    pub const UNSPECIFIED: Self = Self([0; 4]);

    /// The second-to-last word of every IPv4-mapped address, as it lies on the wire.
    pub const MAPPED_WORD: u32 = 0x0000_ffff_u32.to_be();

    /// The address of an IPv4 word as it lies on the wire.
    #[inline(always)]
    pub const fn from_v4_word(word: u32) -> Self {
        Self([0, 0, Self::MAPPED_WORD, word])
    }

    /// The address of sixteen bytes as they lie on the wire.
    pub const fn from_bytes(b: [u8; 16]) -> Self {
        // SAFETY: both are 16 bytes of plain data, and every bit pattern is a value of either.
        Self(unsafe { core::mem::transmute::<[u8; 16], [u32; 4]>(b) })
    }

    /// The sixteen bytes as they lie on the wire.
    pub const fn to_bytes(self) -> [u8; 16] {
        // SAFETY: both are 16 bytes of plain data, and every bit pattern is a value of either.
        unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(self.0) }
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        // One comparison: each is a branch that the verifier follows.
        self.0[0] | self.0[1] | (self.0[2] ^ Self::MAPPED_WORD) == 0
    }

    /// Whether this is [`Addr::UNSPECIFIED`].
    #[inline(always)]
    pub const fn is_unspecified(&self) -> bool {
        self.0[0] | self.0[1] | self.0[2] | self.0[3] == 0
    }

    /// Whether this is an address of whoever asks (`127.0.0.0/8`, `::1`), which no packet on a link may have.
    #[inline(always)]
    pub const fn is_loopback(&self) -> bool {
        const FIRST_BYTE: u32 = 0xff00_0000_u32.to_be();
        const V4: u32 = 0x7f00_0000_u32.to_be();
        const V6: u32 = 1_u32.to_be();
        let Self(words) = self;
        words[0] | words[1] == 0
            && (words[2] == Self::MAPPED_WORD && words[3] & FIRST_BYTE == V4
                || words[2] == 0 && words[3] == V6)
    }

    /// The first `prefix_len` bits (0 to 128; more count as 128), the rest zero.
    #[inline(always)]
    pub const fn masked(&self, prefix_len: u32) -> Self {
        Self([
            self.0[0] & mask_word(prefix_len, 0),
            self.0[1] & mask_word(prefix_len, 32),
            self.0[2] & mask_word(prefix_len, 64),
            self.0[3] & mask_word(prefix_len, 96),
        ])
    }
}

/// The mask of the word that begins at bit `start`, as it lies on the wire.
#[inline(always)]
const fn mask_word(prefix_len: u32, start: u32) -> u32 {
    if prefix_len <= start {
        0
    } else if prefix_len >= start + 32 {
        u32::MAX
    } else {
        (u32::MAX << (start + 32 - prefix_len)).to_be()
    }
}

impl From<core::net::IpAddr> for Addr {
    fn from(ip: core::net::IpAddr) -> Self {
        match ip {
            core::net::IpAddr::V4(v4) => Self::from_bytes(v4.to_ipv6_mapped().octets()),
            core::net::IpAddr::V6(v6) => Self::from_bytes(v6.octets()),
        }
    }
}

impl From<Addr> for core::net::IpAddr {
    fn from(a: Addr) -> Self {
        core::net::Ipv6Addr::from(a.to_bytes()).to_canonical()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::IpAddr;

    #[test]
    fn both_families_survive_the_round_trip() {
        for s in ["10.0.0.1", "255.255.255.255", "2001:db8::1", "fe80::1", "::"] {
            let ip: IpAddr = s.parse().unwrap();
            assert_eq!(IpAddr::from(Addr::from(ip)), ip, "{s}");
            assert_eq!(Addr::from(ip).is_v4(), ip.is_ipv4(), "{s}");
        }
    }

    #[test]
    fn loopback_is_what_the_standard_library_says() {
        for s in [
            "127.0.0.1",
            "127.255.0.9",
            "::1",
            "126.0.0.1",
            "10.127.0.1",
            "::",
            "::2",
            "1::1",
            "0.0.0.1",
            "::127.0.0.1",
        ] {
            let ip: IpAddr = s.parse().unwrap();
            assert_eq!(Addr::from(ip).is_loopback(), ip.is_loopback(), "{s}");
        }
    }

    #[test]
    fn masks_keep_the_prefix_and_clear_the_rest() {
        let a = Addr::from("10.1.2.3".parse::<IpAddr>().unwrap());
        for (len, want) in [
            (128, "10.1.2.3"),
            (120, "10.1.2.0"),
            (127, "10.1.2.2"),
            (104, "10.0.0.0"),
        ] {
            assert_eq!(IpAddr::from(a.masked(len)).to_string(), want, "/{len}");
        }
        let a = Addr::from("2001:db8:1:2:3:4:5:6".parse::<IpAddr>().unwrap());
        for (len, want) in [
            (64, "2001:db8:1:2::"),
            (33, "2001:db8::"),
            (0, "::"),
            (112, "2001:db8:1:2:3:4:5:0"),
        ] {
            assert_eq!(IpAddr::from(a.masked(len)).to_string(), want, "/{len}");
        }
    }
}
