use crate::Addr;

/// Whose processes a network namespace holds, found by its cookie (`SO_NETNS_COOKIE`), which the kernel gives to no
/// other. What is in a namespace that is not known is left alone.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Netns {
    /// The IPv4 address that Services know its processes by, whatever their sockets are bound to: the pod's, or the
    /// node's first. Unspecified where there is none.
    pub v4: Addr,
    /// As `v4`: the IPv6 address.
    pub v6: Addr,
    /// A [`NetnsKind`].
    pub kind: u32,
    /// Zero.
    pub pad: u32,
}

/// What a network namespace is.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NetnsKind {
    /// A pod's: programs see its packets too.
    Pod = 1,
    /// The node's own, and that of the pods that share it.
    Node = 2,
}

/// One way of what a UDP socket exchanges with a Service.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketKey {
    /// The socket's cookie (`SO_COOKIE`), which the kernel gives to no other.
    pub cookie: u64,
    /// The Service's address as the process has it, or the backend's.
    pub address: Addr,
    /// The port (network byte order).
    pub port: u16,
    /// [`SocketKey::TO_SERVICE`] or [`SocketKey::FROM_BACKEND`].
    pub way: u16,
    /// Zero.
    pub pad: u32,
}

impl SocketKey {
    /// What the process sends to the Service's address, and goes to the backend's.
    pub const TO_SERVICE: u16 = 0;
    /// What comes from the backend's address, and the process sees come from the Service's.
    pub const FROM_BACKEND: u16 = 1;
}

/// What stands at the other side of a [`SocketKey`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketPeer {
    /// The backend's address, or the Service's.
    pub address: Addr,
    /// The port (network byte order).
    pub port: u16,
    /// Zero.
    pub pad: u16,
    /// The backend's id.
    pub backend: u32,
}

/// With whom a TCP socket speaks, and whom its process has asked for. It lies at the socket, and goes with it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectedPeer {
    /// The backend's address.
    pub backend: Addr,
    /// The Service's address.
    pub service: Addr,
    /// The backend's port (network byte order); 0: the socket is connected to no Service.
    pub backend_port: u16,
    /// The Service's port (network byte order).
    pub service_port: u16,
}

const _: () = assert!(size_of::<Netns>() == 40);
const _: () = assert!(size_of::<SocketKey>() == 32);
const _: () = assert!(size_of::<SocketPeer>() == 24);
const _: () = assert!(size_of::<ConnectedPeer>() == 36);
