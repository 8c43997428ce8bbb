//! The packet programs in the kernel, on frames of all kinds: exactly one outcome is counted for each, the verdict
//! is one that goes with it, and what is passed on is what came.
//!
//! An input is a byte that chooses the hook, a byte for the segment size of an offload (0: none), and the frame.
//! Needs root.

#![no_main]
#![allow(clippy::unwrap_used, reason = "a test")]

// What the crafted-packet tests have, and more of it than is needed here.
#[allow(dead_code)]
#[path = "../../crates/datapath/tests/common/bed.rs"]
mod bed;
#[allow(dead_code)]
#[path = "../../crates/datapath/tests/common/cluster.rs"]
mod cluster;
#[allow(dead_code)]
#[path = "../../crates/datapath/tests/common/frame.rs"]
mod frame;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex};

use cluster::{
    Cluster, DROP, FAMILIES, NEXT, NODE_2_MAC, NODE_4_MAC, POD_B_MAC, REDIRECT, ROUTER_MAC, V4, V6,
};
use frame::{IcmpError, POD_MAC, checksum, ip};
use libfuzzer_sys::{Corpus, fuzz_mutator, fuzz_target, fuzzer_mutate};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use tombolo_abi::{COUNTER_SLOTS, Counter, Hook, Outcome, slot};
use tombolo_datapath::{Datapath, Error, Options, Packet};
use tombolo_testkit::Bpffs;

const ETH: usize = 14;
/// A test run takes no more than what fits a page.
const FRAME_MAX: usize = 2048;
/// How many of the mutated frames are left as they are, whatever is wrong with them: one in this many.
const LEFT_ALONE: u32 = 8;

/// What libFuzzer takes for covered code: which outcome came about at which hook. It cannot see into the kernel.
#[used]
#[unsafe(link_section = "__libfuzzer_extra_counters")]
static SEEN: [AtomicU8; COUNTER_SLOTS] = [const { AtomicU8::new(0) }; COUNTER_SLOTS];

/// As the last run has left them.
static COUNTERS: Mutex<Option<BTreeMap<(Hook, Outcome), Counter>>> = Mutex::new(None);

static RUNS: AtomicU64 = AtomicU64::new(0);

/// The cluster of the crafted-packet tests, in a namespace that ends with this process.
static NODE: LazyLock<(Cluster, Bpffs)> = LazyLock::new(|| {
    unshare(CloneFlags::CLONE_NEWNET).expect("the programs are loaded into the kernel, which needs root");
    for pair in ["tmba pod_a", "tmbb pod_b", "up0 wire0", "tombolo_vxlan x"] {
        let (one, other) = pair.split_once(' ').unwrap();
        bed::run(&format!("ip link add {one} type veth peer name {other}"));
    }
    let bpffs = Bpffs::new();
    let options = Options {
        directory: bpffs.path().join("tombolo"),
        ..Options::default()
    };
    (Cluster::on_devices(Datapath::load(&options).unwrap()), bpffs)
});

fuzz_target!(|input: &[u8]| -> Corpus {
    let [hook, segment, frame @ ..] = input else {
        return Corpus::Reject;
    };
    if !(ETH..=FRAME_MAX).contains(&frame.len()) {
        return Corpus::Reject;
    }
    let hook = Hook::OF_DEVICES[usize::from(*hook) % Hook::OF_DEVICES.len()];
    run(hook, u32::from(*segment) * 8, frame)
});

fn run(hook: Hook, gso_size: u32, frame: &[u8]) -> Corpus {
    let cluster = &NODE.0;
    let packet = Packet {
        frame,
        ifindex: cluster.device(hook),
        gso_size,
        repeat: 0,
    };
    let mut counters = COUNTERS.lock().unwrap();
    let before = counters.take().unwrap_or_else(|| cluster.counters());
    let run = match cluster.datapath.test_run(hook, &packet) {
        Ok(run) => run,
        // The kernel takes no frame that ends within the header which its EtherType announces.
        Err(Error::Run { source, .. })
            if source.raw_os_error() == Some(Errno::EINVAL as i32) && frame.len() < ETH + 40 =>
        {
            return Corpus::Reject;
        }
        Err(error) => panic!("{error}"),
    };
    let after = cluster.counters();
    let changed: Vec<_> = after
        .iter()
        .filter(|(key, counter)| before.get(key) != Some(counter))
        .collect();
    let [((at, outcome), counter)] = changed[..] else {
        panic!("not one outcome but {changed:?}, at {hook:?}");
    };
    let earlier = before.get(&(*at, *outcome)).copied().unwrap_or_default();
    assert_eq!(*at, hook);
    assert_eq!(counter.packets - earlier.packets, 1, "{outcome:?}");
    assert_eq!(counter.bytes - earlier.bytes, frame.len() as u64, "{outcome:?}");
    SEEN[slot(hook, *outcome) as usize].store(1, Ordering::Relaxed);
    verdict_fits(hook, *outcome, run.action);
    frame_fits(hook, *outcome, run.action, frame, &run.frame);
    addresses_fit(hook, *outcome, frame);
    // Looking through the whole table takes longer than all else.
    if RUNS.fetch_add(1, Ordering::Relaxed).is_multiple_of(1000) {
        assert!(cluster.datapath.flows().entries().unwrap().is_empty());
    }
    *counters = Some(after);
    Corpus::Keep
}

fn verdict_fits(hook: Hook, outcome: Outcome, action: i32) {
    let wanted = match outcome {
        // Already on its way there.
        Outcome::Delivered if hook == Hook::ToPod => &[NEXT][..],
        Outcome::Encapsulated if hook == Hook::ToOverlay => &[NEXT],
        Outcome::Routed if hook == Hook::ToUplink => &[NEXT],
        Outcome::Delivered | Outcome::Encapsulated | Outcome::Routed => &[REDIRECT],
        Outcome::ToStack | Outcome::NotOurs => &[NEXT],
        // The answer goes out in the packet's place.
        Outcome::TtlExceeded | Outcome::TooBig => &[DROP, REDIRECT],
        _ => &[DROP],
    };
    assert!(wanted.contains(&action), "{action} for {outcome:?} at {hook:?}");
}

fn frame_fits(hook: Hook, outcome: Outcome, action: i32, sent: &[u8], left: &[u8]) {
    match action {
        NEXT => assert_eq!(left, sent, "{outcome:?}"),
        REDIRECT if outcome.is_drop() => {
            let error = IcmpError::read(left);
            assert_eq!(Some(error.destination), addresses(sent).map(|(source, _)| source));
            assert!(sent[ETH..].starts_with(&error.quote), "{error:?}");
        }
        REDIRECT => {
            // Ethernet addresses aside, the hop is counted (by the stack, of what it has forwarded to an uplink) and
            // nothing else is different.
            let hops = u8::from(hook != Hook::ToUplink);
            let mut wanted = sent.to_vec();
            wanted[..12].copy_from_slice(&left[..12]);
            if sent[12..14] == [8, 0] {
                let header = |frame: &[u8]| checksum(&[&frame[ETH..][..usize::from(frame[ETH] & 15) * 4]]);
                assert_eq!(header(left) == 0, header(sent) == 0, "the header's checksum");
                wanted[ETH + 8] -= hops;
                wanted[ETH + 10..ETH + 12].copy_from_slice(&left[ETH + 10..ETH + 12]);
            } else {
                wanted[ETH + 7] -= hops;
            }
            assert_eq!(left, wanted, "{outcome:?}");
        }
        _ => {}
    }
}

/// Who may send to whom, told without the tables.
fn addresses_fit(hook: Hook, outcome: Outcome, frame: &[u8]) {
    if outcome.is_drop() {
        return;
    }
    let Some((source, destination)) = addresses(frame) else {
        assert_eq!(outcome, Outcome::NotOurs, "this is not IP");
        return;
    };
    let pods = |of: fn(&cluster::Family) -> &'static str| FAMILIES.map(|family| ip(of(&family)));
    if hook == Hook::FromPod {
        assert!(pods(|f| f.a).contains(&source), "a pod sent as {source}");
    }
    match outcome {
        Outcome::Delivered => {
            let here = pods(|f| f.a).contains(&destination)
                || hook != Hook::ToPod && pods(|f| f.b).contains(&destination);
            assert!(here, "{destination} is no pod here");
        }
        Outcome::Encapsulated => assert_eq!(node_of(destination), Some(3), "{destination}"),
        Outcome::Routed => {
            assert!(matches!(node_of(destination), Some(2..=4)), "{destination}");
        }
        Outcome::NotOurs => assert!(matches!(hook, Hook::FromUplink | Hook::ToUplink), "{hook:?}"),
        _ => {}
    }
}

fn addresses(frame: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let of = |from: usize, len: usize| frame.get(from..from + len);
    match frame[12..14] {
        [8, 0] => {
            let v4 = |from| Some(IpAddr::from(<[u8; 4]>::try_from(of(from, 4)?).ok()?));
            Some((v4(26)?, v4(30)?))
        }
        [0x86, 0xdd] => {
            let v6 = |from| Some(IpAddr::from(<[u8; 16]>::try_from(of(from, 16)?).ok()?));
            Some((v6(22)?, v6(38)?))
        }
        _ => None,
    }
}

/// The node whose pod or own address it is.
fn node_of(address: IpAddr) -> Option<u8> {
    match address {
        IpAddr::V4(v4) => match v4.octets() {
            [10, 244, node, _] => Some(node),
            [172, 20, _, last] => Some(last.wrapping_sub(10)),
            _ => None,
        },
        IpAddr::V6(v6) => match v6.segments() {
            [0xfd00, 0x10, 0x244, node, 0, 0, 0, _] => Some(node as u8),
            [0xfd00, 0x20, _, 0, 0, 0, 0, last] => Some((last as u8).wrapping_sub(0x10)),
            _ => None,
        },
    }
}

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let size = fuzzer_mutate(data, size, max_size);
    if !seed.is_multiple_of(LEFT_ALONE) {
        mend(&mut data[..size], seed / LEFT_ALONE);
    }
    size
});

/// Puts addresses that mean something into a frame, and lengths that are right: of all frames, only few get past
/// the first look otherwise.
fn mend(input: &mut [u8], mut seed: u32) {
    let mut choose = |of: usize| {
        let chosen = seed as usize % of;
        seed = (seed / of as u32).wrapping_mul(0x9e37_79b1) ^ seed.rotate_right(7);
        chosen
    };
    let Some(frame) = input.get_mut(2..) else { return };
    let macs = [POD_MAC, POD_B_MAC, NODE_2_MAC, NODE_4_MAC, ROUTER_MAC];
    let v4 = frame.len() < ETH + 40 || choose(2) == 0;
    let len = frame.len();
    let family = if v4 { V4 } else { V6 };
    let places = [
        family.a,
        family.b,
        family.nobody,
        family.node,
        family.pod_2,
        family.node_2,
        family.pod_3,
        family.node_3,
        family.pod_4,
        family.outside,
    ];
    let mut place = || match ip(places[choose(places.len())]) {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    // Half of them from the pod whose link it is.
    let addresses = [place(), place()].concat();
    let source_mac = macs[choose(macs.len())];
    let (ttl, version) = (choose(4), choose(16));
    if v4 && len >= ETH + 20 {
        frame[6..12].copy_from_slice(&source_mac);
        frame[12..14].copy_from_slice(&[8, 0]);
        if version != 0 {
            frame[ETH] = 0x45;
        }
        frame[ETH + 2..ETH + 4].copy_from_slice(&((len - ETH) as u16).to_be_bytes());
        if ttl != 0 {
            frame[ETH + 8] |= 2;
        }
        frame[ETH + 12..ETH + 20].copy_from_slice(&addresses);
    } else if !v4 {
        frame[6..12].copy_from_slice(&source_mac);
        frame[12..14].copy_from_slice(&[0x86, 0xdd]);
        if version != 0 {
            frame[ETH] = 0x60;
        }
        frame[ETH + 4..ETH + 6].copy_from_slice(&((len - ETH - 40) as u16).to_be_bytes());
        if ttl != 0 {
            frame[ETH + 7] |= 2;
        }
        frame[ETH + 8..ETH + 40].copy_from_slice(&addresses);
    }
}
