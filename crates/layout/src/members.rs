//! Which nodes take part, and with which blocks and addresses.
//!
//! Where two NodeNetworks claim the same, the older one wins (then the first by name, so that all
//! nodes decide alike). A node whose index or block is another's is left out, since nothing about
//! where its pods are can be trusted; of a node's addresses only the one in conflict is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use tombolo_abi::MAX_BLOCK_SIZES;
use tombolo_kube::NodeNetwork;

use crate::claims::Claims;
use crate::settings::{Settings, claimable, holds_mapped, key_len, overlap};
use crate::{Error, Input};

/// The largest index of a node: indexes go into the low half of MAC addresses.
const MAX_INDEX: u32 = 0xff_ffff;

/// A node that takes part.
pub(crate) struct Member<'a> {
    pub name: &'a str,
    pub index: u32,
    pub blocks: Vec<IpNet>,
    pub addresses: Vec<IpAddr>,
    /// 0: not known.
    pub pod_mtu: u16,
    pub uplink_macs: Vec<[u8; 6]>,
}

impl Member<'_> {
    /// The address by which the node is reached in a family.
    pub fn primary(&self, v4: bool) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|a| a.is_ipv4() == v4)
    }
}

/// All nodes that take part.
pub(crate) struct Members<'a> {
    pub own: Member<'a>,
    pub others: Vec<Member<'a>>,
    pub warnings: Vec<String>,
}

/// Decides which nodes take part.
pub(crate) fn admit<'a>(input: &Input<'a>, settings: &Settings) -> Result<Members<'a>, Error> {
    let mut by_age: Vec<(&str, &NodeNetwork)> = input
        .nodes
        .iter()
        .filter_map(|n| Some((n.metadata.name.as_deref()?, n)))
        .collect();
    by_age.sort_by_key(|(name, n)| {
        let created = n.metadata.creation_timestamp.as_ref().map(|t| t.0);
        (created.is_none(), created, *name)
    });

    let own_object = by_age
        .iter()
        .find(|(name, _)| *name == input.node)
        .map(|(_, n)| *n);
    let own_object = own_object.ok_or_else(|| Error::NodeMissing {
        node: input.node.into(),
    })?;
    let mut register = Register::new(input, settings, own_object)?;
    let mut own = None;
    let mut others = Vec::new();
    for (name, object) in by_age {
        let is_own = name == input.node;
        let published = object.status.as_ref().map_or(&[][..], |s| &s.addresses);
        let addresses = if is_own { &input.local.addresses } else { published };
        match register.admit(name, object, addresses) {
            Ok(member) if is_own => own = Some(member),
            Ok(member) => others.push(member),
            Err(what) if is_own => {
                return Err(Error::OwnRefused {
                    node: name.into(),
                    what,
                });
            }
            Err(what) => register.warnings.push(format!("node {name} is left out: {what}")),
        }
    }
    let own = own.ok_or_else(|| Error::NodeMissing {
        node: input.node.into(),
    })?;
    Ok(Members {
        own,
        others,
        warnings: register.warnings,
    })
}

/// What has been claimed so far.
struct Register<'a, 's> {
    settings: &'s Settings,
    claims: Claims<'a>,
    indexes: BTreeMap<u32, &'a str>,
    prefix_lens: BTreeSet<u8>,
    warnings: Vec<String>,
}

impl<'a, 's> Register<'a, 's> {
    /// A register in which the prefix lengths of node addresses, pools, Services and this node's own
    /// blocks have their place before those of others.
    fn new(input: &Input<'a>, settings: &'s Settings, own: &NodeNetwork) -> Result<Self, Error> {
        let mut prefix_lens = BTreeSet::from([128]);
        prefix_lens.extend(&settings.prefix_lens);
        prefix_lens.extend(own.spec.blocks.iter().map(|b| key_len(b, b.prefix_len())));
        if prefix_lens.len() > MAX_BLOCK_SIZES {
            let lengths: Vec<String> = prefix_lens.iter().map(u8::to_string).collect();
            return Err(Error::TooManyPrefixLengths {
                node: input.node.into(),
                found: prefix_lens.len(),
                lengths: lengths.join(", "),
                max: MAX_BLOCK_SIZES,
            });
        }
        let (claims, indexes, warnings) = (Claims::default(), BTreeMap::new(), Vec::new());
        Ok(Self {
            settings,
            claims,
            indexes,
            prefix_lens,
            warnings,
        })
    }

    /// Takes in one node, or says why not and leaves the register as it was.
    fn admit(
        &mut self,
        name: &'a str,
        object: &NodeNetwork,
        addresses: &[IpAddr],
    ) -> Result<Member<'a>, String> {
        let index = object.spec.index;
        if index == 0 || index > MAX_INDEX {
            return Err(format!("its index {index} is not within 1 to {MAX_INDEX}"));
        }
        if let Some(older) = self.indexes.get(&index) {
            return Err(format!(
                "its index {index} is that of the older NodeNetwork {older}"
            ));
        }
        let blocks: Vec<IpNet> = object.spec.blocks.iter().map(IpNet::trunc).collect();
        let mut prefix_lens = self.prefix_lens.clone();
        for (i, &block) in blocks.iter().enumerate() {
            self.check_block(block)?;
            if let Some(&twin) = blocks[..i].iter().find(|&&b| overlap(b, block)) {
                return Err(format!("its block {block} overlaps its own block {twin}"));
            }
            prefix_lens.insert(key_len(&block, block.prefix_len()));
            if prefix_lens.len() > MAX_BLOCK_SIZES {
                return Err(format!(
                    "the prefix length of its block {block} would be one more than the {MAX_BLOCK_SIZES} that the datapath looks up; use fewer block sizes"
                ));
            }
        }

        self.indexes.insert(index, name);
        self.prefix_lens = prefix_lens;
        for &block in &blocks {
            self.claims.insert(block, name);
        }
        let addresses = addresses
            .iter()
            .copied()
            .filter(|&a| self.claim_address(name, a))
            .collect();
        let status = object.status.as_ref();
        Ok(Member {
            name,
            index,
            blocks,
            addresses,
            pod_mtu: status.map_or(0, |s| s.pod_mtu),
            uplink_macs: status.map_or_else(Vec::new, |s| {
                s.uplinks.iter().filter_map(|u| parse_mac(&u.mac)).collect()
            }),
        })
    }

    fn check_block(&self, block: IpNet) -> Result<(), String> {
        if holds_mapped(block) && block.addr().is_ipv6() {
            return Err(format!("its block {block} contains IPv4-mapped addresses"));
        }
        if let Some(cidr) = self.settings.node_cidrs.iter().find(|&&c| overlap(c, block)) {
            return Err(format!(
                "its block {block} overlaps {cidr} of the Network's nodeCIDRs"
            ));
        }
        match self.claims.conflict(block) {
            Some(c) => Err(format!(
                "its block {block} overlaps {} of the older NodeNetwork {}",
                c.net, c.owner
            )),
            None => Ok(()),
        }
    }

    /// Claims an address for a node; false where it may not have it.
    fn claim_address(&mut self, name: &'a str, address: IpAddr) -> bool {
        if !claimable(&self.settings.node_cidrs, address) {
            return false;
        }
        let net = IpNet::from(address);
        match self.claims.conflict(net) {
            Some(c) if c.owner == name => false,
            Some(c) => {
                self.warnings.push(format!(
                    "address {address} of node {name} is left out: the older NodeNetwork {} claims it",
                    c.owner
                ));
                false
            }
            None => {
                self.claims.insert(net, name);
                true
            }
        }
    }
}

/// Six hexadecimal bytes, as `aa:bb:cc:dd:ee:ff`.
fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|p| p.len() == 2)?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}
