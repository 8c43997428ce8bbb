//! Cluster pools and the node blocks cut from them. Pure: no state, no I/O.

use std::collections::BTreeSet;

use ipnet::IpNet;

use crate::error::{Error, PoolFault, Result};
use crate::family::{Family, number, overlap};

/// A range of the cluster's pod addresses, cut into blocks of one size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// The range; its host bits are zero.
    pub cidr: IpNet,
    /// The prefix length of the blocks cut from it: at least the range's own, and short of a
    /// single address, since a block's all-zeros address is given to nobody.
    pub block_size: u8,
}

/// Checks pools as a whole: each is well formed, and no two share an address.
///
/// # Errors
/// [`Error::InvalidPool`] and [`Error::PoolsOverlap`], naming the pools.
pub fn validate(pools: &[Pool]) -> Result<()> {
    for (i, pool) in pools.iter().enumerate() {
        let fault = if pool.cidr != pool.cidr.trunc() {
            Some(PoolFault::HostBits {
                network: pool.cidr.trunc(),
            })
        } else if pool.block_size < pool.cidr.prefix_len() {
            Some(PoolFault::BlockLargerThanPool)
        } else if pool.block_size >= pool.cidr.max_prefix_len() {
            Some(PoolFault::BlockTooSmall {
                longest: pool.cidr.max_prefix_len() - 1,
            })
        } else {
            None
        };
        if let Some(fault) = fault {
            return Err(Error::InvalidPool {
                cidr: pool.cidr,
                block_size: pool.block_size,
                fault,
            });
        }
        if let Some(other) = pools[..i].iter().find(|other| overlap(&other.cidr, &pool.cidr)) {
            return Err(Error::PoolsOverlap {
                first: other.cidr,
                second: pool.cidr,
            });
        }
    }
    Ok(())
}

/// The lowest block of `family` that shares no address with any of `taken`, from the first pool
/// that has one.
///
/// `taken` may hold ranges of any size, within the pools or not: blocks that came from elsewhere
/// (a Node's `spec.podCIDRs`) keep their room. The result is a function of the arguments alone,
/// and takes time in proportion to `taken`.
///
/// # Errors
/// [`Error::NoPool`] when no pool is of that family, [`Error::PoolExhausted`] when nothing is
/// left, and what [`validate`] finds.
pub fn next_block(pools: &[Pool], family: Family, taken: &BTreeSet<IpNet>) -> Result<IpNet> {
    validate(pools)?;
    let mut exhausted = Vec::new();
    for pool in pools.iter().filter(|pool| Family::from(pool.cidr) == family) {
        match lowest_free(pool, taken) {
            Some(block) => return Ok(block),
            None => exhausted.push((pool.cidr, pool.block_size)),
        }
    }
    if exhausted.is_empty() {
        return Err(Error::NoPool { family });
    }
    Err(Error::PoolExhausted {
        family,
        pools: exhausted,
    })
}

fn lowest_free(pool: &Pool, taken: &BTreeSet<IpNet>) -> Option<IpNet> {
    let family = Family::from(pool.cidr);
    let mut ranges: Vec<(u128, u128)> = taken
        .iter()
        .filter(|net| overlap(net, &pool.cidr))
        .map(|net| (number(net.network()), number(net.broadcast())))
        .collect();
    ranges.sort_unstable();

    let last = number(pool.cidr.broadcast());
    // One less than the size of a block, so that a block of every address is no special case.
    let span = u128::MAX
        .checked_shr((128 - (family.bits() - pool.block_size)).into())
        .unwrap_or(0);
    let mut start = number(pool.cidr.network());
    for (from, to) in ranges {
        if from > start + span {
            break;
        }
        if to >= start {
            // The first block boundary past the taken range, if the pool reaches that far.
            start = (to | span).checked_add(1).filter(|start| *start <= last)?;
        }
    }
    IpNet::new(family.address(start), pool.block_size).ok()
}
