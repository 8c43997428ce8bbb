use crate::Addr;

/// How many prefix lengths of [`ROUTES`](crate::map::ROUTES) keys a node can look up.
pub const MAX_BLOCK_SIZES: usize = 8;

/// What the programs need to know of their node. One row, at index 0; live: a change takes effect
/// with the next packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// This node's index, as in [`Route::node`](crate::Route::node).
    pub node: u32,
    /// The overlay device's interface index; 0 where there is no overlay.
    pub overlay_ifindex: u32,
    /// This node's own IPv4 address: the source of ICMP errors and of what a program encapsulates, since
    /// other nodes refuse what comes through the overlay from nobody. Unspecified where it has none: ICMP
    /// errors then have the gateway's address, which own pods take.
    pub node_v4: Addr,
    /// This node's own IPv6 address, as `node_v4`.
    pub node_v6: Addr,
    /// Prefix lengths (in bits of the 16 bytes, so an IPv4 /24 is 120) that exist in `ROUTES`, most
    /// looked-up first; the first 0 ends the list. Blocks and node addresses never overlap, so the
    /// order does not change the answer.
    pub prefix_lens: [u8; MAX_BLOCK_SIZES],
    /// The UDP port of the overlay's packets (network byte order); 0 where there is no overlay.
    pub overlay_port: u16,
    /// Bits of [`Config::SERVICES`].
    pub flags: u16,
}

impl Config {
    /// There are frontends, or were: packets are looked up among them, and among translated flows.
    pub const SERVICES: u16 = 1;
}

const _: () = assert!(size_of::<Config>() == 52);
