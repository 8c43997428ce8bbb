//! Node blocks against a slow oracle that looks at every block there is.

#![allow(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it must be"
)]

use std::collections::BTreeSet;

use ipnet::IpNet;
use proptest::prelude::*;
use tombolo_ipam::{Error, Family, Pool, next_block, validate};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn pool(cidr: &str, block_size: u8) -> Pool {
    Pool {
        cidr: net(cidr),
        block_size,
    }
}

fn taken(nets: &[&str]) -> BTreeSet<IpNet> {
    nets.iter().map(|text| net(text)).collect()
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

fn oracle(pools: &[Pool], family: Family, taken: &BTreeSet<IpNet>) -> Option<IpNet> {
    pools
        .iter()
        .filter(|pool| Family::from(pool.cidr) == family)
        .flat_map(|pool| pool.cidr.subnets(pool.block_size).unwrap())
        .find(|block| !taken.iter().any(|other| overlap(other, block)))
}

/// Ranges within the last 4096 addresses of a family, where carries run over the end.
fn small_net(family: Family, sizes: std::ops::RangeInclusive<u8>) -> impl Strategy<Value = IpNet> {
    (0u32..4096, sizes).prop_map(move |(offset, below)| match family {
        Family::V4 => net(&format!(
            "{}/{}",
            std::net::Ipv4Addr::from_bits(u32::MAX - offset),
            20 + below
        ))
        .trunc(),
        Family::V6 => net(&format!(
            "{}/{}",
            std::net::Ipv6Addr::from_bits(u128::MAX - u128::from(offset)),
            116 + below
        ))
        .trunc(),
    })
}

fn family() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::V4), Just(Family::V6)]
}

proptest! {
    /// One block after another until none is left: each is the oracle's, and none overlaps.
    #[test]
    fn blocks_are_the_lowest_free_until_none_is_left(
        family in family(),
        sizes in proptest::collection::vec((0u8..=5, 0u8..=5), 1..4),
        seed in proptest::collection::vec(0u32..4096, 4),
        foreign in proptest::collection::vec((0u32..4096, 0u8..=12), 0..12),
    ) {
        let at = |offset: u32, below: u8| {
            let text = match family {
                Family::V4 => format!("{}/{}", std::net::Ipv4Addr::from_bits(u32::MAX - offset), 20 + below),
                Family::V6 => format!(
                    "{}/{}", std::net::Ipv6Addr::from_bits(u128::MAX - u128::from(offset)), 116 + below
                ),
            };
            net(&text).trunc()
        };
        let mut pools: Vec<Pool> = Vec::new();
        for ((below, longer), offset) in sizes.into_iter().zip(seed) {
            let cidr = at(offset, below);
            if pools.iter().all(|other| !overlap(&other.cidr, &cidr)) {
                pools.push(Pool { cidr, block_size: cidr.prefix_len() + longer });
            }
        }
        validate(&pools).unwrap();

        let mut taken: BTreeSet<IpNet> =
            foreign.into_iter().map(|(offset, below)| at(offset, below)).collect();
        loop {
            let expected = oracle(&pools, family, &taken);
            match next_block(&pools, family, &taken) {
                Ok(block) => {
                    prop_assert_eq!(Some(block), expected);
                    prop_assert!(taken.iter().all(|other| !overlap(other, &block)));
                    taken.insert(block);
                }
                Err(Error::PoolExhausted { pools: named, .. }) => {
                    prop_assert_eq!(None, expected);
                    let all: Vec<_> = pools.iter().map(|pool| (pool.cidr, pool.block_size)).collect();
                    prop_assert_eq!(named, all);
                    break;
                }
                Err(other) => return Err(TestCaseError::fail(other.to_string())),
            }
        }
    }

    /// Pools are valid exactly when no two share an address.
    #[test]
    fn pools_must_not_overlap(
        nets in (family(), 1usize..5).prop_flat_map(|(f, n)| proptest::collection::vec(small_net(f, 0..=8), n))
    ) {
        let pools: Vec<Pool> =
            nets.iter().map(|cidr| Pool { cidr: *cidr, block_size: cidr.prefix_len() + 1 }).collect();
        let clash = (0..nets.len()).any(|i| (0..i).any(|j| overlap(&nets[i], &nets[j])));
        prop_assert_eq!(validate(&pools).is_err(), clash);
    }
}

#[test]
fn pools_are_used_in_their_order_and_each_family_alone() {
    let pools = [
        pool("10.9.0.0/24", 25),
        pool("fd00::/16", 112),
        pool("10.1.0.0/16", 24),
    ];
    let next = |family, nets: &[&str]| next_block(&pools, family, &taken(nets)).unwrap();
    assert_eq!(next(Family::V4, &[]), net("10.9.0.0/25"));
    assert_eq!(next(Family::V4, &["10.9.0.0/24"]), net("10.1.0.0/24"));

    assert_eq!(
        next(Family::V6, &["10.0.0.0/8", "fd00::/112"]),
        net("fd00::1:0/112")
    );
    // A block with host bits set still covers what it covers.
    assert_eq!(next(Family::V4, &["10.9.0.77/25"]), net("10.9.0.128/25"));
}

#[test]
fn whole_families_are_no_special_case() {
    let v4 = [pool("0.0.0.0/0", 0)];
    assert_eq!(
        next_block(&v4, Family::V4, &taken(&[])).unwrap(),
        net("0.0.0.0/0")
    );
    assert!(next_block(&v4, Family::V4, &taken(&["1.2.3.4/32"])).is_err());
    let v6 = [pool("::/0", 1)];
    assert_eq!(
        next_block(&v6, Family::V6, &taken(&["1::/64"])).unwrap(),
        net("8000::/1")
    );
    assert!(next_block(&v6, Family::V6, &taken(&["1::/64", "ffff::/16"])).is_err());
    let whole = [pool("::/0", 0)];
    assert_eq!(next_block(&whole, Family::V6, &taken(&[])).unwrap(), net("::/0"));
}

#[test]
fn errors_name_the_pool_and_what_to_do() {
    let text = |pools: &[Pool], nets: &[&str]| {
        next_block(pools, Family::V4, &taken(nets))
            .unwrap_err()
            .to_string()
    };
    let full = text(&[pool("10.9.0.0/24", 25)], &["10.9.0.0/25", "10.9.0.128/25"]);
    assert!(
        full.contains("10.9.0.0/24 (blocks of /25)") && full.contains("add a pool"),
        "{full}"
    );
    assert!(text(&[pool("fd00::/16", 112)], &[]).contains("no IPv4 pool"));
    assert!(text(&[pool("10.9.0.1/24", 25)], &[]).contains("write 10.9.0.0/24"));
    assert!(text(&[pool("10.9.0.0/24", 16)], &[]).contains("larger than the pool"));
    assert!(text(&[pool("10.9.0.0/24", 32)], &[]).contains("at most /31"));
    assert!(text(&[pool("10.9.0.0/24", 200)], &[]).contains("at most /31"));
    let clash = text(&[pool("10.0.0.0/8", 24), pool("10.9.0.0/16", 24)], &[]);
    assert!(
        clash.contains("10.0.0.0/8") && clash.contains("10.9.0.0/16"),
        "{clash}"
    );
}
