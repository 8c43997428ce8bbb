//! Maglev's table (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, section
//! 3.4): which backend a flow's hash leads to, such that all nodes agree, all backends get the same share, and few other
//! flows move when a backend comes or goes.

use tombolo_abi::Backend;

/// The lengths of tables: primes, so that every step leads through the whole table.
const SIZES: [u16; 4] = [251, 1021, 4093, 16381];

/// How many places a backend should have: the shares then differ by at most one in a hundred.
const PLACES_EACH: usize = 100;

/// The table of `backends`: at each place the index of one. It depends on the backends' addresses, ports and protocols
/// and their order only, so that nodes which know the same backends have the same table.
///
/// The length is the smallest of 251, 1021, 4093 and 16381 that is at least 100 for each backend (16381 above that). A
/// lone backend has the one place of a table of length 1; no backends have an empty table.
pub fn table(backends: &[Backend]) -> Vec<u32> {
    if backends.len() <= 1 {
        return vec![0; backends.len()];
    }
    let enough = SIZES
        .iter()
        .find(|s| usize::from(**s) >= PLACES_EACH * backends.len());
    let len = u32::from(*enough.unwrap_or(&SIZES[SIZES.len() - 1]));
    let mut walks: Vec<Walk> = backends.iter().map(|b| Walk::new(b, len)).collect();
    let mut places = vec![u32::MAX; len as usize];
    let mut free = places.len();
    // Backends take turns, each at the first free place of its own walk through the table.
    for turn in (0..backends.len()).cycle() {
        if free == 0 {
            break;
        }
        let place = loop {
            let place = walks[turn].next(len);
            if places[place as usize] == u32::MAX {
                break place;
            }
        };
        places[place as usize] = turn as u32;
        free -= 1;
    }
    places
}

/// A backend's walk: from some place on by some step, both of its own.
struct Walk {
    at: u32,
    step: u32,
}

impl Walk {
    fn new(backend: &Backend, len: u32) -> Self {
        let address = u128::from_be_bytes(backend.address.to_bytes());
        let port = u64::from(u16::from_be(backend.port)) << 8 | u64::from(backend.protocol);
        let hash = mix(mix(mix(address as u64) ^ (address >> 64) as u64) ^ port);
        Self {
            at: (hash % u64::from(len)) as u32,
            step: (mix(hash) % u64::from(len - 1) + 1) as u32,
        }
    }

    fn next(&mut self, len: u32) -> u32 {
        let place = self.at;
        self.at = (self.at + self.step) % len;
        place
    }
}

/// Spreads the bits of a word over all of it (splitmix64: Steele, Lea and Flood, OOPSLA 2014). A contract between nodes,
/// hence none of a library's hashes, which may change.
fn mix(word: u64) -> u64 {
    let mut z = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn backends(count: u32) -> Vec<Backend> {
        let address = |i: u32| IpAddr::V4(Ipv4Addr::from(0x0af4_0000 + i * 7));
        let backend = |i: u32| Backend {
            address: address(i).into(),
            port: 8080_u16.to_be(),
            protocol: 6,
            state: 1,
        };
        (0..count).map(backend).collect()
    }

    #[test]
    fn the_length_fits_the_backends() {
        let cases = [
            (0, 0),
            (1, 1),
            (2, 251),
            (3, 1021),
            (10, 1021),
            (11, 4093),
            (40, 4093),
            (41, 16381),
            (163, 16381),
            (1000, 16381),
        ];
        for (count, len) in cases {
            assert_eq!(table(&backends(count)).len(), len, "{count} backends");
        }
    }

    #[test]
    fn every_backend_has_the_same_share() {
        for count in [1, 2, 7, 100, 163, 20_000] {
            let table = table(&backends(count));
            let mut shares = vec![0_usize; count as usize];
            for &backend in &table {
                shares[backend as usize] += 1;
            }
            let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
            assert!(
                most - least <= 1,
                "{count} backends: from {least} to {most} places each"
            );
        }
    }

    /// The bound: of the flows of the 99 that stay, less than 2 in 100 move, with whichever of the 100 leaves. With a
    /// plain remainder of the hash, 98 in 100 would.
    #[test]
    fn few_other_flows_move_when_one_of_a_hundred_leaves() {
        let all = backends(100);
        let before = table(&all);
        let mut worst = 0;
        for gone in 0..all.len() {
            let mut rest = all.clone();
            rest.remove(gone);
            let after = table(&rest);
            assert_eq!(after.len(), before.len());
            let moved = before.iter().zip(&after).filter(|(was, is)| {
                let was = **was as usize;
                was != gone && all[was] != rest[**is as usize]
            });
            worst = worst.max(moved.count());
        }
        assert!(
            worst * 100 < 2 * before.len(),
            "{worst} of {} places moved",
            before.len()
        );
        assert!(worst > 0, "a table in which nothing moves is not filled by turns");
    }

    /// What nodes of different versions must agree on.
    #[test]
    fn the_table_is_a_contract() {
        let table = table(&backends(3));
        assert_eq!(table[..16], [0, 2, 1, 2, 0, 1, 2, 0, 2, 0, 1, 2, 0, 2, 2, 1]);
    }
}
