//! Who owns which addresses: disjoint ranges, each with its owner.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use tombolo_abi::Addr;

/// Disjoint ranges of addresses of both families (IPv4 as IPv4-mapped), each with its owner.
#[derive(Default)]
pub(crate) struct Claims<'a>(BTreeMap<u128, Claim<'a>>);

#[derive(Clone, Copy)]
pub(crate) struct Claim<'a> {
    last: u128,
    pub net: IpNet,
    pub owner: &'a str,
}

impl<'a> Claims<'a> {
    /// The claim that shares an address with `net`.
    pub fn conflict(&self, net: IpNet) -> Option<Claim<'a>> {
        let (first, last) = bounds(net);
        // Ranges are disjoint: if any reaches into [first, last], the one that begins last does.
        let (_, claim) = self.0.range(..=last).next_back()?;
        (claim.last >= first).then_some(*claim)
    }

    /// Claims `net`, which conflicts with nothing.
    pub fn insert(&mut self, net: IpNet, owner: &'a str) {
        let (first, last) = bounds(net);
        self.0.insert(first, Claim { last, net, owner });
    }
}

/// The first and last address of a range as numbers.
fn bounds(net: IpNet) -> (u128, u128) {
    let number = |a: IpAddr| u128::from_be_bytes(Addr::from(a).to_bytes());
    (number(net.network()), number(net.broadcast()))
}
