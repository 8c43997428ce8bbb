/// A pod on this node, found by its address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Interface index of the host side of the pod's link.
    pub ifindex: u32,
    /// The pod's own MAC address.
    pub mac: [u8; 6],
    /// The largest IP packet, in bytes, that the pod's link carries.
    pub mtu: u16,
    /// Which of the pod's packets take the slow path: bits of [`Endpoint::SLOW_INGRESS`] and
    /// [`Endpoint::SLOW_EGRESS`].
    pub flags: u32,
    /// Zero: only makes the layout another.
    #[cfg(feature = "abi-next")]
    pub added: u32,
}

impl Endpoint {
    /// What is for the pod leaves by the host side of its link, where somebody else's queueing discipline
    /// or filter sees it, instead of entering the pod at once.
    pub const SLOW_INGRESS: u32 = 1;
    /// What the pod sends goes on, once it is checked, to somebody else's filter at the host side of its
    /// link, and then to the node's stack, instead of being forwarded at once.
    pub const SLOW_EGRESS: u32 = 2;
}

#[cfg(not(feature = "abi-next"))]
const _: () = assert!(size_of::<Endpoint>() == 16);
