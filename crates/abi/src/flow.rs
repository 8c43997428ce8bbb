use crate::Addr;

/// One direction of a flow, as the packet on the wire has it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// Source address.
    pub source: Addr,
    /// Destination address.
    pub destination: Addr,
    /// Source port (network byte order); the echo identifier for ICMP echo requests and replies.
    pub source_port: u16,
    /// Destination port (network byte order); the echo identifier for ICMP.
    pub destination_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub pad: [u8; 3],
}

impl FlowKey {
    /// The key of the packets that answer.
    #[inline(always)]
    pub const fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
            pad: [0; 3],
        }
    }
}

/// What is remembered of one direction of a flow. Both directions are made together.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowState {
    /// When the last packet of this direction passed, in nanoseconds of `CLOCK_MONOTONIC`.
    pub last_seen: u64,
    /// 1 in the direction of the first packet, 0 in the answering one.
    pub original: u32,
    /// Zero.
    pub pad: u32,
    /// When the flow began, in nanoseconds of `CLOCK_MONOTONIC`.
    #[cfg(feature = "abi-next")]
    pub began: u64,
}

/// A [`FlowState`] in the table of a neighbouring [version](crate::version): the fields that all versions
/// have, and room for those that the next one may add.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NeighbourFlow {
    /// As in [`FlowState`].
    pub last_seen: u64,
    /// As in [`FlowState`].
    pub original: u32,
    /// Zero.
    pub pad: u32,
    /// Never read; zero in what is written.
    pub added: [u64; 6],
}

const _: () = assert!(size_of::<FlowKey>() == 40);
#[cfg(not(feature = "abi-next"))]
const _: () = assert!(size_of::<FlowState>() == 16);
const _: () = assert!(size_of::<FlowState>() <= size_of::<NeighbourFlow>());
