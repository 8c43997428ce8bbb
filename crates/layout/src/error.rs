use ipnet::IpNet;

/// Why nothing could be compiled. Always about the Network or this node's own NodeNetwork.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The operator has not made this node's NodeNetwork yet.
    #[error(
        "there is no NodeNetwork {node} yet: `tombolo operator` makes one for each Node; see that it runs and that a Node of this name exists"
    )]
    NodeMissing {
        /// This node.
        node: String,
    },
    /// Two ranges of the Network overlap.
    #[error("Network cluster: {first_field} {first} overlaps {second_field} {second}; make them disjoint")]
    RangesOverlap {
        /// Which setting holds the first range.
        first_field: &'static str,
        /// The first range.
        first: IpNet,
        /// Which setting holds the second range.
        second_field: &'static str,
        /// The second range.
        second: IpNet,
    },
    /// An IPv6 range contains IPv4-mapped addresses.
    #[error(
        "Network cluster: {range} contains IPv4-mapped addresses (::ffff:0:0/96); write an IPv4 range instead"
    )]
    MappedRange {
        /// The range.
        range: IpNet,
    },
    /// The Network's pools and ranges of Services and this node's blocks have more prefix lengths than the programs look up.
    #[error(
        "the Network's pools and serviceCIDRs and node {node}'s blocks have {found} prefix lengths ({lengths}), and the datapath looks up at most {max}, one of them for node addresses; use fewer block sizes"
    )]
    TooManyPrefixLengths {
        /// This node.
        node: String,
        /// How many there are.
        found: usize,
        /// The lengths.
        lengths: String,
        /// How many there may be.
        max: usize,
    },
    /// This node's own NodeNetwork contradicts an older one.
    #[error("NodeNetwork {node}: {what}; delete it, and the operator makes a new one")]
    OwnRefused {
        /// This node.
        node: String,
        /// What is wrong with it.
        what: String,
    },
    /// The MTU of pods cannot be known.
    #[error(
        "node {node} has no uplink: no device holds an address within the Network's nodeCIDRs, or the default route; correct nodeCIDRs, or name the uplinks with --devices"
    )]
    NoUplink {
        /// This node.
        node: String,
    },
}
