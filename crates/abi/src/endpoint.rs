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
    /// Zero: only makes the layout another.
    #[cfg(feature = "abi-next")]
    pub added: u32,
}

#[cfg(not(feature = "abi-next"))]
const _: () = assert!(size_of::<Endpoint>() == 12);
