//! The addresses in memory: which are in use, which rest, and which comes next. Pure: time is an
//! argument, and every change is returned as the rows to write.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::attachment::{Attachment, HostPort, Owner, Request};
use crate::block::{Block, BlockUsage};
use crate::error::{Error, Result};
use crate::family::{Family, number, overlap};

/// How many freed addresses of each family are remembered. The ones freed longest ago beyond
/// that count as never used, so that memory stays bounded in blocks of any size; in a block
/// smaller than this, reuse is strictly in the order of release.
pub(crate) const REMEMBERED: usize = 4096;

/// One row to write or to delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    PutAttachment(Attachment),
    DeleteAttachment(Owner),
    PutFreed(u64, IpAddr),
    DeleteFreed(u64),
    SetBlocks(Vec<IpNet>),
}

/// What is on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rows {
    pub blocks: Vec<IpNet>,
    pub attachments: Vec<Attachment>,
    /// Freed addresses by the order of their release.
    pub freed: BTreeMap<u64, IpAddr>,
}

#[derive(Debug)]
pub(crate) struct Index {
    rest: Duration,
    blocks: Vec<Block>,
    attachments: BTreeMap<Owner, Attachment>,
    in_use: BTreeMap<IpAddr, Owner>,
    freed: [Freed; 2],
    next_release: u64,
}

/// The freed addresses of one family.
#[derive(Debug, Default)]
struct Freed {
    /// By the order of release, and so of time.
    by_release: BTreeMap<u64, (IpAddr, Instant)>,
    release_of: HashMap<IpAddr, u64>,
}

/// Addresses picked but not yet taken.
struct Pick {
    address: IpAddr,
    /// The row of its release, where it was freed before.
    release: Option<u64>,
}

impl Index {
    /// Builds the index from the rows on disk. What was freed before `now` rests from `now` on:
    /// the wall clock may have been set and the machine may have been off, so neither tells how
    /// long an address has rested, but a rest that begins anew is long enough, and ends.
    ///
    /// # Errors
    /// The address or host port that two attachments hold, which no sequence of commits leads to.
    pub fn new(rest: Duration, rows: Rows, now: Instant) -> Result<Self, String> {
        let mut index = Self {
            rest,
            blocks: Vec::new(),
            attachments: BTreeMap::new(),
            in_use: BTreeMap::new(),
            freed: Default::default(),
            next_release: rows.freed.last_key_value().map_or(0, |(release, _)| release + 1),
        };
        for attachment in rows.attachments {
            if let Some((port, _, other)) = index.holder(&attachment.host_ports) {
                return Err(format!(
                    "host port {port} belongs to {} and to {}",
                    other.owner, attachment.owner
                ));
            }
            for address in &attachment.addresses {
                if let Some(other) = index.in_use.insert(*address, attachment.owner.clone()) {
                    return Err(format!(
                        "{address} belongs to {other} and to {}",
                        attachment.owner
                    ));
                }
            }
            index.attachments.insert(attachment.owner.clone(), attachment);
        }
        for (release, address) in rows.freed {
            if !index.in_use.contains_key(&address) {
                index.freed_mut(address).insert(release, address, now);
            }
        }
        index.replace_blocks(&rows.blocks);
        Ok(index)
    }

    pub fn blocks(&self) -> Vec<IpNet> {
        self.blocks.iter().map(|block| block.net).collect()
    }

    pub fn get(&self, owner: &Owner) -> Option<&Attachment> {
        self.attachments.get(owner)
    }

    pub fn attachments(&self) -> impl Iterator<Item = &Attachment> {
        self.attachments.values()
    }

    pub fn addresses(&self) -> impl Iterator<Item = (IpAddr, &Owner)> {
        self.in_use.iter().map(|(address, owner)| (*address, owner))
    }

    pub fn usage(&self, now: Instant) -> Vec<BlockUsage> {
        self.blocks
            .iter()
            .map(|block| {
                let used = self
                    .in_use
                    .range(block.first()..=block.last())
                    .filter(|(a, _)| block.gives(**a))
                    .count() as u64;
                let resting = self.freed[block.family as usize]
                    .by_release
                    .values()
                    .filter(|(address, at)| block.gives(*address) && self.wait(*at, now).is_some())
                    .count() as u64;
                let free = block.capacity().saturating_sub(u128::from(used + resting));
                BlockUsage {
                    block: block.net,
                    used,
                    resting,
                    free: free.try_into().unwrap_or(u64::MAX),
                }
            })
            .collect()
    }

    /// Takes over the node's blocks; `None` when they are these already.
    pub fn set_blocks(&mut self, blocks: &[IpNet]) -> Result<Option<Change>> {
        for (i, block) in blocks.iter().enumerate() {
            let invalid = |reason| Error::InvalidBlock {
                block: *block,
                reason,
            };
            if *block != block.trunc() {
                return Err(invalid(format!(
                    "bits are set past the prefix, which would be {}",
                    block.trunc()
                )));
            }
            if let Some(other) = blocks[..i].iter().find(|other| overlap(other, block)) {
                return Err(invalid(format!("it overlaps block {other}")));
            }
        }
        if self.blocks() == blocks {
            return Ok(None);
        }
        self.replace_blocks(blocks);
        Ok(Some(Change::SetBlocks(blocks.to_vec())))
    }

    /// Takes the addresses that `request` asks for, all or none.
    pub fn allocate(&mut self, request: &Request, now: Instant) -> Result<(Attachment, Vec<Change>)> {
        if let Some(held) = self.attachments.get(&request.owner) {
            return Err(Error::AlreadyAllocated {
                held: Box::new(held.clone()),
            });
        }
        if let Some((port, held, holder)) = self.holder(&request.host_ports) {
            return Err(Error::HostPortInUse {
                port: *port,
                held: *held,
                holder: Box::new(holder.clone()),
            });
        }
        let picks = self.pick(request, now)?;
        check_families(request, &picks)?;

        let mut changes = Vec::with_capacity(picks.len() + 1);
        let mut addresses: Vec<_> = picks.iter().map(|pick| pick.address).collect();
        addresses.sort_unstable();
        for Pick { address, release } in picks {
            self.in_use.insert(address, request.owner.clone());
            match release {
                Some(release) => {
                    self.freed_mut(address).remove(release);
                    changes.push(Change::DeleteFreed(release));
                }
                None => {
                    if let Some(block) = self.blocks.iter_mut().find(|block| block.gives(address)) {
                        block.took_unused(address);
                    }
                }
            }
        }
        let attachment = Attachment {
            owner: request.owner.clone(),
            netns: request.netns.clone(),
            network: request.network.clone(),
            pod: request.pod.clone(),
            mac: request.mac,
            mtu: request.mtu,
            addresses,
            host_ports: request.host_ports.clone(),
        };
        self.attachments.insert(request.owner.clone(), attachment.clone());
        changes.push(Change::PutAttachment(attachment.clone()));
        Ok((attachment, changes))
    }

    /// Frees what `owner` holds; `None` when it holds nothing.
    pub fn release(&mut self, owner: &Owner, now: Instant) -> Option<(Attachment, Vec<Change>)> {
        let attachment = self.attachments.remove(owner)?;
        let mut changes = vec![Change::DeleteAttachment(owner.clone())];
        for address in &attachment.addresses {
            self.in_use.remove(address);
            let release = self.next_release;
            self.next_release += 1;
            self.freed_mut(*address).insert(release, *address, now);
            changes.push(Change::PutFreed(release, *address));
        }
        self.forget_longest_freed(now, &mut changes);
        Some((attachment, changes))
    }

    /// The first of these host ports that is in the way of another's, that one, and who holds it. They are few.
    fn holder<'a>(&'a self, ports: &'a [HostPort]) -> Option<(&'a HostPort, &'a HostPort, &'a Attachment)> {
        ports.iter().find_map(|port| {
            self.attachments.values().find_map(|holder| {
                let held = holder.host_ports.iter().find(|held| held.overlaps(port))?;
                Some((port, held, holder))
            })
        })
    }

    fn pick(&self, request: &Request, now: Instant) -> Result<Vec<Pick>> {
        let mut picks: Vec<Pick> = Vec::new();
        for address in &request.addresses {
            if picks.iter().all(|pick| pick.address != *address) {
                picks.push(self.pick_requested(*address, now)?);
            }
        }
        for family in Family::ALL {
            let wanted = request.families.contains(&family);
            if wanted && picks.iter().all(|pick| Family::from(pick.address) != family) {
                picks.push(self.pick_next(family, now)?);
            }
        }
        if picks.is_empty() {
            return Err(Error::NothingRequested {
                owner: request.owner.clone(),
            });
        }
        Ok(picks)
    }

    fn pick_requested(&self, address: IpAddr, now: Instant) -> Result<Pick> {
        if !self.gives(address) {
            return Err(Error::NotInBlocks {
                address,
                blocks: self.blocks(),
            });
        }
        if let Some(holder) = self.in_use.get(&address) {
            return Err(Error::AddressInUse {
                address,
                holder: holder.clone(),
            });
        }
        let freed = &self.freed[Family::from(address) as usize];
        let release = freed.release_of.get(&address).copied();
        if let Some((_, at)) = release.and_then(|release| freed.by_release.get(&release))
            && let Some(wait) = self.wait(*at, now)
        {
            return Err(Error::AddressResting { address, wait });
        }
        Ok(Pick { address, release })
    }

    fn pick_next(&self, family: Family, now: Instant) -> Result<Pick> {
        let freed = &self.freed[family as usize];
        let touched =
            |address: &IpAddr| self.in_use.contains_key(address) || freed.release_of.contains_key(address);
        let mut blocks = self
            .blocks
            .iter()
            .filter(|block| block.family == family)
            .peekable();
        if blocks.peek().is_none() {
            return Err(Error::NoBlock { family });
        }
        if let Some(address) = blocks.find_map(|block| block.next_unused(touched)) {
            return Ok(Pick {
                address,
                release: None,
            });
        }
        // The first within the blocks was freed before all others there: if it rests, they do.
        let longest_freed = freed
            .by_release
            .iter()
            .find(|(_, (address, _))| self.gives(*address));
        let wait = longest_freed.and_then(|(_, (_, at))| self.wait(*at, now));
        match longest_freed {
            Some((release, (address, _))) if wait.is_none() => Ok(Pick {
                address: *address,
                release: Some(*release),
            }),
            _ => {
                let of_family = || {
                    self.usage(now)
                        .into_iter()
                        .filter(move |usage| Family::from(usage.block) == family)
                };
                Err(Error::Exhausted {
                    family,
                    blocks: of_family().map(|usage| usage.block).collect(),
                    used: of_family().map(|usage| usage.used).sum(),
                    resting: of_family().map(|usage| usage.resting).sum(),
                    wait,
                })
            }
        }
    }

    fn gives(&self, address: IpAddr) -> bool {
        self.blocks.iter().any(|block| block.gives(address))
    }

    /// How long an address freed at `at` still rests.
    fn wait(&self, at: Instant, now: Instant) -> Option<Duration> {
        self.rest
            .checked_sub(now.saturating_duration_since(at))
            .filter(|wait| !wait.is_zero())
    }

    fn freed_mut(&mut self, address: IpAddr) -> &mut Freed {
        &mut self.freed[Family::from(address) as usize]
    }

    fn forget_longest_freed(&mut self, now: Instant, changes: &mut Vec<Change>) {
        for family in Family::ALL {
            while self.freed[family as usize].by_release.len() > REMEMBERED {
                let Some((release, (address, at))) = self.freed[family as usize]
                    .by_release
                    .first_key_value()
                    .map(|(k, v)| (*k, *v))
                else {
                    break;
                };
                if self.wait(at, now).is_some() {
                    break;
                }
                self.freed[family as usize].remove(release);
                if let Some(block) = self.blocks.iter_mut().find(|block| block.gives(address)) {
                    block.forgot();
                }
                changes.push(Change::DeleteFreed(release));
            }
        }
    }

    fn replace_blocks(&mut self, blocks: &[IpNet]) {
        self.blocks = blocks
            .iter()
            .map(|net| {
                let family = Family::from(*net);
                let touched = self
                    .in_use
                    .keys()
                    .chain(self.freed[family as usize].release_of.keys());
                Block::new(
                    *net,
                    touched.map(|address| (Family::from(*address), number(*address))),
                )
            })
            .collect();
    }
}

/// Sees that each host port at an address has a pod's address to lead to.
fn check_families(request: &Request, picks: &[Pick]) -> Result<()> {
    let is_served = |ip: IpAddr| picks.iter().any(|pick| pick.address.is_ipv4() == ip.is_ipv4());
    let mut ports = request.host_ports.iter();
    match ports.find(|port| port.host_ip.is_some_and(|ip| !is_served(ip))) {
        Some(port) => Err(Error::HostPortFamily {
            port: *port,
            owner: request.owner.clone(),
        }),
        None => Ok(()),
    }
}

impl Freed {
    fn insert(&mut self, release: u64, address: IpAddr, at: Instant) {
        self.by_release.insert(release, (address, at));
        self.release_of.insert(address, release);
    }

    fn remove(&mut self, release: u64) {
        if let Some((address, _)) = self.by_release.remove(&release) {
            self.release_of.remove(&address);
        }
    }
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
