//! One of the node's blocks.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::family::{Family, number};

/// How full a block is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockUsage {
    /// The block.
    pub block: IpNet,
    /// Addresses that attachments hold.
    pub used: u64,
    /// Addresses freed so recently that they are not given again yet.
    pub resting: u64,
    /// Addresses that could be given now; `u64::MAX` where there are more.
    pub free: u64,
}

/// A block, and how far the search for unused addresses has come in it.
#[derive(Debug)]
pub(crate) struct Block {
    pub net: IpNet,
    pub family: Family,
    /// The first address given. The all-zeros one before it is the subnet-router anycast address
    /// in IPv6 (RFC 4291, section 2.6.1) and the old broadcast address in IPv4 (RFC 1122,
    /// section 3.3.6); the all-ones one is usable, as pods share no L2 segment.
    lowest: u128,
    highest: u128,
    /// How many addresses are in use or remembered as freed.
    touched: u128,
    /// Where the search goes on. Next-fit, so that an address whose release is forgotten comes
    /// last of all.
    cursor: u128,
}

impl Block {
    /// The block with, of `touched`, the addresses that lie in it.
    pub fn new(net: IpNet, touched: impl Iterator<Item = (Family, u128)>) -> Self {
        let family = Family::from(net);
        // A block of one address gives none: its range is empty.
        let lowest = number(net.network()).saturating_add(1);
        let highest = number(net.broadcast());
        let mut block = Self {
            net,
            family,
            lowest,
            highest,
            touched: 0,
            cursor: lowest,
        };
        for (_, address) in touched.filter(|(f, a)| *f == family && (lowest..=highest).contains(a)) {
            block.touched += 1;
            block.cursor = block.cursor.max(address);
        }
        block
    }

    pub fn first(&self) -> IpAddr {
        self.net.network()
    }

    pub fn last(&self) -> IpAddr {
        self.net.broadcast()
    }

    pub fn capacity(&self) -> u128 {
        (self.highest - self.lowest.min(self.highest)).saturating_add(u128::from(self.lowest <= self.highest))
    }

    /// Whether `address` may be given from this block.
    pub fn gives(&self, address: IpAddr) -> bool {
        Family::from(address) == self.family && (self.lowest..=self.highest).contains(&number(address))
    }

    /// The next address that is not `touched`, from the cursor on and around.
    pub fn next_unused(&self, touched: impl Fn(&IpAddr) -> bool) -> Option<IpAddr> {
        if self.touched >= self.capacity() {
            return None;
        }
        (self.cursor..=self.highest)
            .chain(self.lowest..self.cursor)
            .map(|number| self.family.address(number))
            .find(|address| !touched(address))
    }

    pub fn took_unused(&mut self, address: IpAddr) {
        self.touched += 1;
        self.cursor = number(address);
    }

    pub fn forgot(&mut self) {
        self.touched = self.touched.saturating_sub(1);
    }
}
