use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::attachment::{Attachment, HostPort, Owner};
use crate::family::Family;

/// The result of everything here that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why addresses or blocks could not be had, or the store not be used.
///
/// Cheap to clone, since calls that share a commit share its failure.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A pool is malformed.
    #[error("pool {cidr} with blocks of /{block_size} is not usable: {fault}")]
    InvalidPool {
        /// The pool's range.
        cidr: IpNet,
        /// The prefix length of its blocks.
        block_size: u8,
        /// What is wrong.
        fault: PoolFault,
    },
    /// Two pools share addresses.
    #[error("pools {first} and {second} overlap; change one of them in the Network \"cluster\"")]
    PoolsOverlap {
        /// The one listed first.
        first: IpNet,
        /// The other.
        second: IpNet,
    },
    /// No pool is of the wanted family.
    #[error("no {family} pool is configured; add one to the Network \"cluster\"")]
    NoPool {
        /// The family.
        family: Family,
    },
    /// Every block of every pool of the family is taken.
    #[error(
        "no {family} block is left in pool {}; add a pool to the Network \"cluster\", \
         or remove NodeNetworks of nodes that are gone",
        list(pools.iter().map(|(cidr, size)| format!("{cidr} (blocks of /{size})")))
    )]
    PoolExhausted {
        /// The family.
        family: Family,
        /// The pools of that family, each with the prefix length of its blocks.
        pools: Vec<(IpNet, u8)>,
    },

    /// Two of a node's blocks share addresses, or a block has host bits set.
    #[error("block {block} cannot be used on this node: {reason}; correct the NodeNetwork's blocks")]
    InvalidBlock {
        /// The block.
        block: IpNet,
        /// What is wrong.
        reason: String,
    },
    /// The node has no block of a wanted family.
    #[error("this node has no {family} block yet; see that the operator runs and has a free {family} block")]
    NoBlock {
        /// The family.
        family: Family,
    },
    /// No address is left in the node's blocks.
    #[error(
        "no {family} address is left in {}: {used} in use, {resting} freed a moment ago and resting{}",
        list(blocks.iter().map(|block| format!("block {block}"))),
        match wait {
            Some(wait) => format!("; the next is free in {wait:.1?}, try again then"),
            None => "; remove pods from this node or give it a larger block".to_owned(),
        }
    )]
    Exhausted {
        /// The family.
        family: Family,
        /// The node's blocks of it.
        blocks: Vec<IpNet>,
        /// How many of their addresses attachments hold.
        used: u64,
        /// How many rest.
        resting: u64,
        /// How long until the first of these may be given again; none when none rests.
        wait: Option<Duration>,
    },
    /// The attachment holds addresses already. CNI forbids a second ADD without a DEL between.
    #[error(
        "{} holds {} already; release it before it asks again",
        held.owner, list(held.addresses.iter().map(IpAddr::to_string))
    )]
    AlreadyAllocated {
        /// What it holds.
        held: Box<Attachment>,
    },
    /// A request that names neither a family nor an address.
    #[error("{owner} asks for no address at all; name a family or an address")]
    NothingRequested {
        /// Who asks.
        owner: Owner,
    },
    /// A requested address that this node cannot give.
    #[error(
        "address {address} is not one that this node gives; ask for one within {}, but not a block's first",
        list(blocks.iter().map(IpNet::to_string))
    )]
    NotInBlocks {
        /// The address.
        address: IpAddr,
        /// The node's blocks.
        blocks: Vec<IpNet>,
    },
    /// A requested address that is taken.
    #[error("address {address} is held by {holder}; release that first or ask for another")]
    AddressInUse {
        /// The address.
        address: IpAddr,
        /// Who holds it.
        holder: Owner,
    },
    /// A host port that is taken.
    #[error(
        "host port {port} is in the way of {held}, which {}{} has on this node; give one of the pods another hostPort, or another node",
        holder.pod.as_ref().map_or_else(String::new, |pod| format!("pod {}/{}, ", pod.namespace, pod.name)),
        holder.owner
    )]
    HostPortInUse {
        /// What was asked for.
        port: HostPort,
        /// What is in its way.
        held: HostPort,
        /// Who has that.
        holder: Box<Attachment>,
    },
    /// A host port at an address of a family that the pod does not get.
    #[error("host port {port} is at an address of a family in which {owner} gets none; leave out its hostIP")]
    HostPortFamily {
        /// What was asked for.
        port: HostPort,
        /// Who asks.
        owner: Owner,
    },
    /// A requested address that was freed a moment ago.
    #[error("address {address} was freed a moment ago; try again in {wait:.1?}")]
    AddressResting {
        /// The address.
        address: IpAddr,
        /// How long it still rests.
        wait: Duration,
    },

    /// The store's folder or file could not be made or opened.
    #[error("cannot open the address store {}: {source}; see that the folder is there, writable and on a local disk", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: Arc<io::Error>,
    },
    /// Another process holds the store.
    #[error("the address store {} is in use by another process; end the other agent of this node first", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The store's contents make no sense.
    #[error(
        "the address store {} is damaged: {reason}; \
         drain the node, move the file away, and restart the agent",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// The disk refused. Nothing of the change stays in memory; the store is read anew from disk
    /// before it is used again. Should the commit have failed in its very last step, the change
    /// may be found there then: release the owner, which is right in either case.
    #[error(
        "the address store {} could not be read or written: {source}; \
         see that its disk is not full and not mounted read-only",
        path.display()
    )]
    Storage {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: Arc<redb::Error>,
    },
    /// The library that keeps the file failed in a way it should not.
    #[error("writing the address store {} was cut short by a defect: {reason}; please report it", path.display())]
    Aborted {
        /// The file.
        path: PathBuf,
        /// What the defect said.
        reason: String,
    },
}

/// What is wrong with a pool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolFault {
    /// The range has bits set past its prefix.
    #[error("its address has bits set past the prefix; write {network}")]
    HostBits {
        /// The range that was probably meant.
        network: IpNet,
    },
    /// The blocks would be larger than the pool.
    #[error(
        "a block is larger than the pool; the block size is a prefix length and must not be below the pool's"
    )]
    BlockLargerThanPool,
    /// The blocks would have no address to give.
    #[error("a block has no address to give, since its first is never given; use at most /{longest}")]
    BlockTooSmall {
        /// The longest usable prefix.
        longest: u8,
    },
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}
