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

/// What is remembered of one direction of a flow, as all [versions](crate::version) know it. Both directions are made
/// together, and end together.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Direction {
    /// When the last packet of this direction passed, in nanoseconds of `CLOCK_MONOTONIC`; 0: none has.
    pub last_seen: u64,
    /// 1 in the direction of the first packet, 0 in the answering one.
    pub original: u32,
    /// The backend that was chosen, by its id; 0: none, and the packets stay as they are.
    pub backend: u32,
    /// With a backend, what a packet's source address becomes.
    pub source: Addr,
    /// As `source`: the destination address.
    pub destination: Addr,
    /// As `source`: the source port (network byte order).
    pub source_port: u16,
    /// As `source`: the destination port (network byte order).
    pub destination_port: u16,
    /// Bits of [`Direction::FIN`] and those after it.
    pub flags: u32,
}

impl Direction {
    /// This direction has said its last (TCP FIN).
    pub const FIN: u32 = 1;
    /// This direction has broken the connection off (TCP RST).
    pub const RST: u32 = 2;
    /// Past a connection's first packet: something without SYN has passed in this direction (TCP).
    pub const ESTABLISHED: u32 = 4;
    /// The source of this direction's packets is a pod of another node: from an uplink they are held to the way
    /// that its packets take.
    pub const FROM_POD: u32 = 8;
}

/// What lies in the table of flows.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowState {
    /// What is remembered.
    pub direction: Direction,
    /// Ends the flow; in the row of the first packet's direction. The kernel's own: reads as zero.
    pub timer: bpf_timer,
    /// When the flow began, in nanoseconds of `CLOCK_MONOTONIC`.
    #[cfg(feature = "abi-next")]
    pub began: u64,
}

/// A timer in the kernel's hands. It is known by this very name, and where it lies in a value, by the type
/// information of the map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct bpf_timer {
    opaque: [u64; 2],
}

/// A [`FlowState`] in the table of a neighbouring [version](crate::version), and room for what the next one may add.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NeighbourFlow {
    /// What is remembered.
    pub direction: Direction,
    /// Never read, since the timer lies there; zero in what is written.
    pub added: [u64; 6],
}

/// After how many nanoseconds without a packet in either direction a flow ends. Told to the programs before they
/// are loaded.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP, once the client has answered the server: longer than an idle connection lives between two keepalives
    /// (RFC 5382, section 5, REQ-5: not less than 2 hours and 4 minutes).
    pub established: u64,
    /// TCP, before that.
    pub half_open: u64,
    /// TCP, when both sides have said their last, or one has broken off.
    pub closing: u64,
    /// UDP, when both sides have sent (RFC 4787, section 4.3, has a minimum of 2 minutes).
    pub stream: u64,
    /// All else.
    pub other: u64,
}

impl Timeouts {
    const SECOND: u64 = 1_000_000_000;

    /// Those of production.
    pub const DEFAULT: Self = Self {
        established: (2 * 3600 + 300) * Self::SECOND,
        half_open: 30 * Self::SECOND,
        closing: 3 * Self::SECOND,
        stream: 180 * Self::SECOND,
        other: 30 * Self::SECOND,
    };
}

impl Default for Timeouts {
    fn default() -> Self {
        Self::DEFAULT
    }
}

const _: () = assert!(size_of::<FlowKey>() == 40);
#[cfg(not(feature = "abi-next"))]
const _: () = assert!(size_of::<FlowState>() == 72);
const _: () = assert!(core::mem::offset_of!(FlowState, timer) == core::mem::offset_of!(NeighbourFlow, added));
const _: () = assert!(size_of::<FlowState>() <= size_of::<NeighbourFlow>());
