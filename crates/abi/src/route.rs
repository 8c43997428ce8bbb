use crate::Addr;

/// A prefix in [`ROUTES`](crate::map::ROUTES): a node's block of pod addresses, or (at 128 bits) one
/// address of a node.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteKey {
    /// Prefix length in bits of the 16 bytes: an IPv4 /24 is 120.
    pub prefix_len: u32,
    /// The address, masked to `prefix_len`.
    pub addr: Addr,
}

/// What lies behind a prefix.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteKind {
    /// Pod addresses of a node.
    Pods = 1,
    /// An address of a node itself.
    Node = 2,
    /// Addresses of Services (the API server's Service ranges): way `Local` everywhere. What no frontend takes is
    /// refused.
    Services = 3,
}

/// How packets get to a prefix.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// It is here: an endpoint of this node, or this node's stack.
    Local = 1,
    /// Unencapsulated through an uplink.
    Direct = 2,
    /// Encapsulated, through the overlay device.
    Overlay = 3,
}

/// Where a prefix is and how to get there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// Index of the node that owns the prefix; unique in the cluster, never 0.
    pub node: u32,
    /// A [`RouteKind`].
    pub kind: u8,
    /// A [`Way`].
    pub way: u8,
    /// The largest IP packet, in bytes, that fits on this way up to and including that node's pods.
    pub mtu: u16,
    /// `Direct`: the uplink's interface index. `Overlay`: the overlay device's. `Local`: 0.
    pub ifindex: u32,
    /// `Direct`: the next hop's address on that uplink (of either family). `Overlay`: the remote
    /// tunnel endpoint. `Local`: unspecified.
    pub next_hop: Addr,
    /// `Overlay`: the uplink towards the remote tunnel endpoint, by which leaves what a program
    /// encapsulates itself; 0: all passes through the overlay device. Otherwise 0.
    pub underlay_ifindex: u32,
    /// `Overlay` with an `underlay_ifindex`: the next hop's address on that uplink (of either family).
    /// Otherwise unspecified.
    pub underlay_next_hop: Addr,
    /// Bits of [`Route::NODE_PORTS`].
    pub flags: u32,
    /// Zero: only makes the layout another.
    #[cfg(feature = "abi-next")]
    pub added: u32,
}

impl Route {
    /// A node's own address takes node ports.
    pub const NODE_PORTS: u32 = 1;
}

/// A MAC address that a node's uplinks may send from.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacKey {
    /// The node's index.
    pub node: u32,
    /// The address.
    pub mac: [u8; 6],
    /// Zero.
    pub pad: [u8; 2],
}

const _: () = assert!(size_of::<RouteKey>() == 20);
#[cfg(not(feature = "abi-next"))]
const _: () = assert!(size_of::<Route>() == 52);
const _: () = assert!(size_of::<MacKey>() == 12);
