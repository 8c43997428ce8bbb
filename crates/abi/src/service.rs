use crate::Addr;

/// Where a Service is reached.
///
/// A node port has the unspecified address of its family (`0.0.0.0` mapped, or `::`), and stands for that port on
/// every address of the node that takes node ports; with [`Frontend::HOST_PORT`], on every address of the node. At a
/// loopback address only the node's own sockets find a frontend. Port and protocol 0 stand for an address as a whole:
/// what is for another of its ports is refused, since the address is nobody else's.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrontendKey {
    /// The address.
    pub address: Addr,
    /// The port (network byte order).
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub pad: u8,
}

/// What becomes of what is for a frontend.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frontend {
    /// The backends for clients of this cluster: pods of this node and the node itself.
    pub internal: Slab,
    /// The backends for all others: what comes in by an uplink or the overlay.
    pub external: Slab,
    /// Which Service's port this is, for session affinity: the same in all frontends of that port, and given to no
    /// other until its [`Affinity`] rows are gone. 0: no affinity.
    pub affinity: u32,
    /// For how many seconds a client without traffic keeps its backend; 0 where `affinity` is.
    pub affinity_timeout: u32,
    /// Which [`SourceRangeKey`] rows name the clients that are let in; 0: all are.
    pub source_ranges: u32,
    /// Bits of [`Frontend::DROP_INTERNAL`] and those after it.
    pub flags: u32,
}

impl Frontend {
    /// Without internal backends, packets are dropped and not refused: a traffic policy keeps them on this node,
    /// and there are backends on others.
    pub const DROP_INTERNAL: u32 = 1;
    /// As [`Frontend::DROP_INTERNAL`], for `external`.
    pub const DROP_EXTERNAL: u32 = 2;
    /// The external slab is a Maglev table: a flow's backend is that at the flow's hash modulo the slab's length.
    /// Otherwise a slab names each backend once, and one is picked at random.
    pub const MAGLEV_EXTERNAL: u32 = 4;
    /// This is the `hostPort` of a pod on this node, and no Service's.
    pub const HOST_PORT: u32 = 8;
}

/// Where the backends of a frontend stand in [`SLABS`](crate::map::SLABS). One 64-bit word, which a program reads
/// once: it is of one moment whole.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slab(pub u64);

impl Slab {
    /// No backends.
    pub const NONE: Self = Self(0);

    /// `len` backend ids from the beginning of the row `base`. The generation tells it from what was there before.
    pub const fn new(base: u32, len: u16, generation: u16) -> Self {
        Self(base as u64 | (len as u64) << 32 | (generation as u64) << 48)
    }

    /// The first row.
    pub const fn base(self) -> u32 {
        self.0 as u32
    }

    /// How many ids there are; 0: no backend.
    pub const fn len(self) -> u16 {
        (self.0 >> 32) as u16
    }

    /// Whether there is no backend.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Different from that of the last slab which began at this row.
    pub const fn generation(self) -> u16 {
        (self.0 >> 48) as u16
    }
}

/// How many backend ids a row of [`SLABS`](crate::map::SLABS) holds.
pub const SLAB_ROW: usize = 16;

/// One row of a slab. A slab begins with a row; what is left of its last one is zero. Rows are written before a
/// frontend names them, and never while one does.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlabRow {
    /// Ids of backends, which are indexes in [`BACKENDS`](crate::map::BACKENDS).
    pub backends: [u32; SLAB_ROW],
}

/// Where connections to a Service go: a port of a pod, or of whatever a slice names. One row for each address,
/// port and protocol, however many Services lead there, and another where host ports do. Id 0 is nobody's.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backend {
    /// The address.
    pub address: Addr,
    /// The port (network byte order).
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// A [`BackendState`].
    pub state: u8,
}

/// What may still go to a backend.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BackendState {
    /// There is none by this id: its flows are void.
    Gone = 0,
    /// It serves.
    Serving = 1,
    /// A slice names it still, but it does not serve: TCP connections go on, UDP flows choose again.
    NotServing = 2,
}

/// A client that is to keep its backend ([`Frontend::affinity`]).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AffinityKey {
    /// The client's address.
    pub client: Addr,
    /// As [`Frontend::affinity`].
    pub affinity: u32,
}

/// The backend that a client keeps.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Affinity {
    /// When the client began a flow last, in nanoseconds of `CLOCK_MONOTONIC`.
    pub last_seen: u64,
    /// The backend's id.
    pub backend: u32,
    /// Zero.
    pub pad: u32,
}

/// A range of clients that a Service lets in (`loadBalancerSourceRanges`); in the shape that a trie of longest
/// prefixes wants.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceRangeKey {
    /// Bits that count, those of `ranges` first: 32 and the prefix length in bits of the 16 bytes.
    pub prefix_len: u32,
    /// As [`Frontend::source_ranges`] (network byte order).
    pub ranges: u32,
    /// The range's address, masked.
    pub address: Addr,
}

const _: () = assert!(size_of::<FrontendKey>() == 20);
const _: () = assert!(size_of::<Frontend>() == 32);
const _: () = assert!(size_of::<SlabRow>() == 64);
const _: () = assert!(size_of::<Backend>() == 20);
const _: () = assert!(size_of::<AffinityKey>() == 20);
const _: () = assert!(size_of::<Affinity>() == 16);
const _: () = assert!(size_of::<SourceRangeKey>() == 24);

/// The ports that translated flows have their sources from, where a client's own is taken or their source is the node's
/// address. The node's own processes are kept out of them.
pub const SOURCE_PORTS: core::ops::RangeInclusive<u16> = 40_960..=65_535;
