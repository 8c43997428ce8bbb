/// Packets and bytes of one [`slot`], per CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// Packets (a GSO packet counts once).
    pub packets: u64,
    /// Bytes, from the Ethernet header on.
    pub bytes: u64,
}

const _: () = assert!(size_of::<Counter>() == 16);

/// Declares an enum of consecutive numbers together with its printed words, so that the number, the
/// metric's label and the word on the command line cannot drift apart.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $value:literal, $word:literal;)* }) => {
        $(#[$meta])*
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$doc])* $variant = $value,)* }

        impl $name {
            /// Every value, in order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The metric's label, and the word that the command line prints.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// The value of a number.
            #[inline(always)]
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($value => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

words! {
    /// Where a program is attached.
    Hook {
        /// Ingress of the host side of a pod's link: what the pod sends.
        FromPod = 0, "from_pod";
        /// Egress of the host side of a pod's link: what the node's stack sends to the pod.
        ToPod = 1, "to_pod";
        /// Ingress of the overlay device: what was decapsulated.
        FromOverlay = 2, "from_overlay";
        /// Egress of the overlay device: what will be encapsulated.
        ToOverlay = 3, "to_overlay";
        /// Ingress of an uplink.
        FromUplink = 4, "from_uplink";
        /// Egress of an uplink.
        ToUplink = 5, "to_uplink";
    }
}

words! {
    /// What became of a packet at a hook. Exactly one is counted for each packet that enters a program.
    Outcome {
        /// Delivered to a pod of this node.
        Delivered = 0, "delivered";
        /// Sent on through the overlay.
        Encapsulated = 1, "encapsulated";
        /// Sent on through an uplink, unencapsulated.
        Routed = 2, "routed";
        /// Given to the node's own stack.
        ToStack = 3, "to_stack";
        /// Not Tombolo's: left to the next program and the node's stack.
        NotOurs = 4, "not_ours";

        /// Dropped: not an IP packet (ARP too: a pod's gateway is a permanent neighbour).
        NotIp = 16, "not_ip";
        /// Dropped: a header is cut short or contradicts itself.
        Malformed = 17, "malformed";
        /// Dropped: an IPv6 header with an IPv4-mapped address, which would alias an IPv4 one.
        MappedAddress = 18, "mapped_address";
        /// Dropped: the source address is not that of the pod behind this link.
        SpoofedSource = 19, "spoofed_source";
        /// Dropped: a router advertisement from a pod.
        RouterAdvertisement = 20, "router_advertisement";
        /// Dropped: a multicast, broadcast, loopback or link-local destination, or neighbour discovery
        /// of a pod; pods have no L2.
        NotRoutable = 21, "not_routable";
        /// Dropped: TTL or hop limit exceeded; answered with ICMP time exceeded.
        TtlExceeded = 22, "ttl_exceeded";
        /// Dropped: larger than the path's MTU; answered with fragmentation needed or packet too big.
        TooBig = 23, "too_big";
        /// Dropped: an address of an own block that no pod has.
        UnknownEndpoint = 24, "unknown_endpoint";
        /// Dropped: an overlay packet whose outer source is no node, or whose inner source is not
        /// that node's.
        UnknownNode = 25, "unknown_node";
        /// Dropped: an overlay packet with another network identifier.
        WrongVni = 26, "wrong_vni";
        /// Dropped: an overlay packet for an address that is not on this node.
        NotLocal = 27, "not_local";
        /// Dropped: from outside of the cluster to a pod address.
        ExternalToPod = 28, "external_to_pod";
        /// Dropped: a source that is reached through the overlay, in a packet that came without.
        Unencapsulated = 29, "unencapsulated";
        /// Dropped: a pod's source address in a frame whose source MAC is none of its node's uplinks'.
        WrongUplinkMac = 30, "wrong_uplink_mac";
        /// Dropped: a pod's source address about to leave the cluster untranslated.
        Unmasqueraded = 31, "unmasqueraded";
        /// Dropped: no route, or a helper of the kernel refused (out of memory, no device).
        NoRoute = 32, "no_route";
        /// Dropped: the flow table is full.
        FlowTableFull = 33, "flow_table_full";
        /// Dropped: from a pod to the overlay's UDP port, outside of the cluster: it would leave as if
        /// this node's tunnel had sent it.
        TunnelPort = 34, "tunnel_port";
        /// Refused: a Service without a backend for this client; answered with TCP RST or ICMP port unreachable.
        NoBackend = 35, "no_backend";
        /// Refused, as `NoBackend`: an address of Services, at a port that none of them has.
        NoService = 36, "no_service";
        /// Dropped: a traffic policy keeps a Service's packets on this node, and its backends are on others.
        BackendElsewhere = 37, "backend_elsewhere";
        /// Refused, as `NoBackend`: the backend of this connection is gone.
        BackendGone = 38, "backend_gone";
        /// Refused, as `NoBackend`: a TCP packet to a Service that begins no connection, and is of none.
        UnknownFlow = 39, "unknown_flow";
        /// Dropped: a client that is in none of the Service's source ranges.
        SourceRange = 40, "source_range";
        /// Dropped: no source port is free for a connection to this backend with this node's address.
        NoSourcePort = 41, "no_source_port";
        /// Dropped: SCTP to a Service whose port is not its backends': the checksum covers the port.
        SctpPort = 42, "sctp_port";
        /// Dropped: a fragment to a Service whose first fragment has not been seen.
        UnknownFragment = 43, "unknown_fragment";
    }
}

impl Outcome {
    /// Whether the packet ended here.
    pub const fn is_drop(self) -> bool {
        self as u8 >= Self::NotIp as u8
    }
}

/// Outcomes that fit per hook.
const OUTCOMES: u32 = 64;

/// Hooks that there is room for, so that the map's size need not change with every one that is added.
const HOOKS: usize = 16;

/// Entries of [`COUNTERS`](crate::map::COUNTERS).
pub const COUNTER_SLOTS: usize = HOOKS * OUTCOMES as usize;

const _: () = assert!(Hook::ALL.len() <= HOOKS);

/// The index in [`COUNTERS`](crate::map::COUNTERS) of an outcome at a hook.
#[inline(always)]
pub const fn slot(hook: Hook, outcome: Outcome) -> u32 {
    hook as u32 * OUTCOMES + outcome as u32
}
