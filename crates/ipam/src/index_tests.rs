//! The index against a slow oracle that knows of each address whether it was ever used, who holds
//! it, and when it was freed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use proptest::prelude::*;

use crate::attachment::{Attachment, HostPort, Owner, Request};
use crate::error::Error;
use crate::family::Family;
use crate::index::{Change, Index, REMEMBERED, Rows};

const REST: Duration = Duration::from_secs(30);

fn owner(number: u8) -> Owner {
    Owner {
        container_id: format!("c{number}"),
        ifname: "eth0".into(),
    }
}

fn request(number: u8, families: &[Family], addresses: &[IpAddr]) -> Request {
    Request {
        owner: owner(number),
        netns: PathBuf::from("/run/netns/x"),
        network: None,
        pod: None,
        mac: [2, 0, 0, 0, 0, number],
        mtu: 1450,
        families: families.to_vec(),
        addresses: addresses.to_vec(),
        host_ports: Vec::new(),
    }
}

/// What a disk would hold.
fn apply(rows: &mut Rows, changes: Vec<Change>) {
    for change in changes {
        match change {
            Change::PutAttachment(attachment) => rows.attachments.push(attachment),
            Change::DeleteAttachment(owner) => rows.attachments.retain(|a| a.owner != owner),
            Change::PutFreed(release, address) => assert_eq!(rows.freed.insert(release, address), None),
            Change::DeleteFreed(release) => assert!(rows.freed.remove(&release).is_some()),
            Change::SetBlocks(blocks) => rows.blocks = blocks,
        }
    }
}

#[derive(Default)]
struct Oracle {
    held: BTreeMap<IpAddr, Owner>,
    /// In the order of release, each with its time.
    freed: Vec<(IpAddr, Instant)>,
    blocks: Vec<IpNet>,
}

impl Oracle {
    fn giveable(&self, family: Family) -> BTreeSet<IpAddr> {
        let blocks = self.blocks.iter().filter(|block| Family::from(**block) == family);
        blocks
            .flat_map(|block| {
                let all: Vec<IpAddr> = match block {
                    // `hosts` leaves out the broadcast address, which pods do get.
                    IpNet::V4(net) => (net.network().to_bits()..=net.broadcast().to_bits())
                        .map(|bits| std::net::Ipv4Addr::from_bits(bits).into())
                        .collect(),
                    IpNet::V6(net) => net.hosts().map(Into::into).collect(),
                };
                all.into_iter().filter(|address| *address != block.network())
            })
            .collect()
    }

    /// The addresses of which one may be given next, none if none may.
    fn next(&self, family: Family, now: Instant) -> BTreeSet<IpAddr> {
        let giveable = self.giveable(family);
        let unused: BTreeSet<_> = giveable
            .iter()
            .filter(|a| !self.held.contains_key(a) && self.freed.iter().all(|(freed, _)| freed != *a))
            .copied()
            .collect();
        if !unused.is_empty() {
            return unused;
        }
        let longest = self.freed.iter().find(|(address, _)| giveable.contains(address));
        longest
            .filter(|(_, at)| *at + REST <= now)
            .map(|(address, _)| *address)
            .into_iter()
            .collect()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Allocate(u8, bool, bool),
    Ask(u8, u8),
    Release(u8),
    Wait(u8),
    Blocks(u8),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..12, any::<bool>(), any::<bool>()).prop_map(|(n, v4, v6)| Step::Allocate(n, v4, v6)),
        2 => (0u8..12, 0u8..16).prop_map(|(n, last)| Step::Ask(n, last)),
        5 => (0u8..12).prop_map(Step::Release),
        3 => (1u8..40).prop_map(Step::Wait),
        1 => (0u8..4).prop_map(Step::Blocks),
        1 => Just(Step::Restart),
    ]
}

fn blocks(choice: u8) -> Vec<IpNet> {
    let texts: &[&str] = match choice {
        0 => &["10.0.0.0/29", "fd00::/126"],
        1 => &["10.0.0.8/30", "10.0.0.0/29"],
        2 => &["10.0.0.4/30", "fd00::/125"],
        _ => &[],
    };
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn behaves_as_the_oracle(steps in proptest::collection::vec(step(), 1..120)) {
        let mut now = Instant::now();
        let mut rows = Rows::default();
        let mut index = Index::new(REST, rows.clone(), now).unwrap();
        let mut oracle = Oracle { blocks: blocks(0), ..Oracle::default() };
        apply(&mut rows, index.set_blocks(&blocks(0)).unwrap().into_iter().collect());

        for step in steps {
            let (request, wanted) = match step {
                Step::Allocate(n, v4, v6) => {
                    let families: Vec<_> =
                        [(v4, Family::V4), (v6, Family::V6)].iter().filter(|(on, _)| *on).map(|(_, f)| *f).collect();
                    (request(n, &families, &[]), families)
                }
                Step::Ask(n, last) => (request(n, &[Family::V4], &[[10, 0, 0, last].into()]), vec![Family::V4]),
                Step::Release(n) => {
                    match index.release(&owner(n), now) {
                        Some((attachment, changes)) => {
                            apply(&mut rows, changes);
                            for address in &attachment.addresses {
                                prop_assert_eq!(oracle.held.remove(address), Some(owner(n)));
                                oracle.freed.push((*address, now));
                            }
                        }
                        None => prop_assert!(oracle.held.values().all(|holder| *holder != owner(n))),
                    }
                    continue;
                }
                Step::Wait(seconds) => {
                    now += Duration::from_secs(seconds.into());
                    continue;
                }
                Step::Blocks(choice) => {
                    oracle.blocks = blocks(choice);
                    apply(&mut rows, index.set_blocks(&oracle.blocks).unwrap().into_iter().collect());
                    continue;
                }
                Step::Restart => {
                    index = Index::new(REST, rows.clone(), now).unwrap();
                    oracle.freed.iter_mut().for_each(|(_, at)| *at = now);
                    continue;
                }
            };
            match index.allocate(&request, now) {
                Ok((attachment, changes)) => {
                    apply(&mut rows, changes);
                    prop_assert!(!oracle.held.values().any(|holder| *holder == request.owner));
                    let families: Vec<_> = attachment.addresses.iter().map(|a| Family::from(*a)).collect();
                    prop_assert_eq!(families, wanted);
                    for address in &attachment.addresses {
                        let family = Family::from(*address);
                        prop_assert!(oracle.giveable(family).contains(address));
                        prop_assert!(!oracle.held.contains_key(address));
                        if request.addresses.is_empty() {
                            prop_assert!(oracle.next(family, now).contains(address), "{address} is not next");
                        }
                        let rested = |(freed, at): &(IpAddr, Instant)| freed != address || *at + REST <= now;
                        prop_assert!(oracle.freed.iter().all(rested), "{address} rests");
                    }
                    for address in attachment.addresses {
                        oracle.freed.retain(|(freed, _)| *freed != address);
                        oracle.held.insert(address, request.owner.clone());
                    }
                }
                Err(Error::AlreadyAllocated { held }) => {
                    prop_assert_eq!(oracle.held.get(&held.addresses[0]), Some(&request.owner));
                }
                Err(Error::Exhausted { family, used, resting, wait, .. }) => {
                    prop_assert_eq!(oracle.next(family, now), BTreeSet::new());
                    let giveable = oracle.giveable(family);
                    prop_assert_eq!(used, oracle.held.keys().filter(|a| giveable.contains(a)).count() as u64);
                    let rests = |(a, at): &&(IpAddr, Instant)| giveable.contains(a) && *at + REST > now;
                    let expected: Vec<_> = oracle.freed.iter().filter(rests).collect();
                    prop_assert_eq!(resting, expected.len() as u64);
                    prop_assert_eq!(wait, expected.first().map(|(_, at)| *at + REST - now));
                }
                Err(Error::NoBlock { family }) => prop_assert_eq!(oracle.giveable(family), BTreeSet::new()),
                Err(Error::NothingRequested { .. }) => prop_assert!(wanted.is_empty()),
                Err(Error::NotInBlocks { address, .. }) => {
                    prop_assert!(!oracle.giveable(Family::V4).contains(&address));
                }
                Err(Error::AddressInUse { address, holder }) => {
                    prop_assert_eq!(oracle.held.get(&address), Some(&holder));
                }
                Err(Error::AddressResting { address, wait }) => {
                    let freed = oracle.freed.iter().find(|(a, _)| *a == address);
                    prop_assert_eq!(freed.map(|(_, at)| *at + REST - now), Some(wait));
                }
                Err(other) => return Err(TestCaseError::fail(other.to_string())),
            }
            let held: BTreeMap<_, _> = index.addresses().map(|(a, owner)| (a, owner.clone())).collect();
            prop_assert_eq!(&held, &oracle.held);
        }
    }
}

#[test]
fn a_large_block_remembers_a_bounded_number_and_comes_around() {
    let mut now = Instant::now();
    let block: IpNet = "fd00::/112".parse().unwrap();
    let mut rows = Rows {
        blocks: vec![block],
        ..Rows::default()
    };
    let mut index = Index::new(REST, rows.clone(), now).unwrap();
    let mut last_given: BTreeMap<IpAddr, u32> = BTreeMap::new();
    for round in 0..140_000u32 {
        let (attachment, changes) = index.allocate(&request(0, &[Family::V6], &[]), now).unwrap();
        apply(&mut rows, changes);
        if let Some(before) = last_given.insert(attachment.addresses[0], round) {
            assert!(
                round - before >= 65_535,
                "{} came again after {}",
                attachment.addresses[0],
                round - before
            );
        }
        now += REST;
        let (_, changes) = index.release(&owner(0), now).unwrap();
        apply(&mut rows, changes);
        assert!(rows.freed.len() <= REMEMBERED + 1);
        now += REST;
    }
}

#[test]
fn two_holders_of_one_address_are_damage() {
    let mut rows = Rows {
        blocks: blocks(0),
        ..Rows::default()
    };
    let mut index = Index::new(REST, rows.clone(), Instant::now()).unwrap();
    for number in 0..2 {
        let request = request(number, &[Family::V4], &[]);
        apply(&mut rows, index.allocate(&request, Instant::now()).unwrap().1);
    }
    rows.attachments[1].addresses = rows.attachments[0].addresses.clone();
    let reason = Index::new(REST, rows, Instant::now()).unwrap_err();
    assert!(
        reason.contains("10.0.0.1") && reason.contains("c0") && reason.contains("c1"),
        "{reason}"
    );
}

fn host_port(protocol: u8, ip: Option<&str>, port: u16) -> HostPort {
    HostPort {
        protocol,
        host_ip: ip.map(|ip| ip.parse().unwrap()),
        host_port: port.try_into().unwrap(),
        container_port: 80.try_into().unwrap(),
    }
}

fn with_ports(number: u8, ports: &[HostPort]) -> Request {
    Request {
        host_ports: ports.to_vec(),
        ..request(number, &Family::ALL, &[])
    }
}

#[test]
fn a_host_port_is_one_attachments() {
    let mut rows = Rows {
        blocks: vec!["10.0.0.0/24".parse().unwrap(), "fd00::/112".parse().unwrap()],
        ..Rows::default()
    };
    let now = Instant::now();
    let mut index = Index::new(REST, rows.clone(), now).unwrap();
    let held = [
        host_port(6, None, 80),
        host_port(17, Some("192.0.2.1"), 53),
        host_port(17, Some("::"), 54),
    ];
    apply(&mut rows, index.allocate(&with_ports(0, &held), now).unwrap().1);
    // As it is from disk, too.
    for mut index in [index, Index::new(REST, rows.clone(), now).unwrap()] {
        for (taken, text) in [
            (host_port(6, None, 80), "80/TCP"),
            (host_port(6, Some("127.0.0.1"), 80), "127.0.0.1:80/TCP"),
            (host_port(6, Some("::"), 80), "[::]:80/TCP"),
            (host_port(17, None, 53), "53/UDP"),
            (host_port(17, Some("0.0.0.0"), 53), "0.0.0.0:53/UDP"),
            (host_port(17, Some("2001:db8::1"), 54), "[2001:db8::1]:54/UDP"),
        ] {
            let ports = [host_port(132, None, 80), taken];
            let before = index.usage(now);
            let error = index.allocate(&with_ports(1, &ports), now).unwrap_err();
            assert!(matches!(error, Error::HostPortInUse { .. }), "{error}");
            let message = error.to_string();
            assert!(
                message.contains(&format!("host port {text} ")) && message.contains("c0"),
                "{message}"
            );
            assert_eq!(index.usage(now), before, "nothing was taken");
        }
        let free = [
            host_port(132, None, 80),
            host_port(6, None, 81),
            host_port(17, Some("192.0.2.2"), 53),
            host_port(17, Some("::1"), 53),
            host_port(17, Some("192.0.2.1"), 54),
        ];
        index.allocate(&with_ports(1, &free), now).unwrap();
        index.release(&owner(0), now).unwrap();
        index.allocate(&with_ports(2, &held), now).unwrap();
    }
    let mut second: Attachment = rows.attachments[0].clone();
    second.owner = owner(3);
    second.addresses = vec!["10.0.0.77".parse().unwrap()];
    rows.attachments.push(second);
    let reason = Index::new(REST, rows, now).unwrap_err();
    assert!(
        reason.contains("80/TCP") && reason.contains("c0") && reason.contains("c3"),
        "{reason}"
    );
}

#[test]
fn a_host_port_has_an_address_of_its_family_to_lead_to() {
    let rows = Rows {
        blocks: vec!["10.0.0.0/24".parse().unwrap()],
        ..Rows::default()
    };
    let now = Instant::now();
    let mut index = Index::new(REST, rows, now).unwrap();
    let of = |ip: Option<&str>| Request {
        families: vec![Family::V4],
        ..with_ports(0, &[host_port(6, ip, 80)])
    };
    for ip in ["::", "2001:db8::1"] {
        let error = index.allocate(&of(Some(ip)), now).unwrap_err();
        assert!(matches!(error, Error::HostPortFamily { .. }), "{error}");
    }
    index.allocate(&of(Some("0.0.0.0")), now).unwrap();
}

#[test]
fn a_record_of_an_older_release_has_no_host_ports() {
    let old = r#"{"owner":{"containerId":"c","ifname":"eth0"},"netns":"/n","mac":[2,0,0,0,0,1],"mtu":1450,"addresses":["10.0.0.1"]}"#;
    let attachment: Attachment = serde_json::from_str(old).unwrap();
    assert_eq!(attachment.host_ports, []);
    assert_eq!(
        serde_json::to_string(&attachment).unwrap(),
        old,
        "an older release reads what has none"
    );
    let with = Attachment {
        host_ports: vec![host_port(17, Some("::1"), 53)],
        ..attachment
    };
    let text = serde_json::to_string(&with).unwrap();
    assert!(
        text.ends_with(r#""hostPorts":[{"protocol":17,"hostIP":"::1","hostPort":53,"containerPort":80}]}"#),
        "{text}"
    );
    assert_eq!(serde_json::from_str::<Attachment>(&text).unwrap(), with);
}

#[test]
fn blocks_must_not_overlap() {
    let mut index = Index::new(REST, Rows::default(), Instant::now()).unwrap();
    let set = |index: &mut Index, texts: &[&str]| {
        index.set_blocks(&texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>())
    };
    assert!(set(&mut index, &["10.0.0.0/24", "10.0.0.128/25"]).is_err());
    assert!(set(&mut index, &["10.0.0.1/24"]).is_err());
    assert!(index.blocks().is_empty());
    assert!(set(&mut index, &["10.0.0.0/24"]).unwrap().is_some());
    assert!(set(&mut index, &["10.0.0.0/24"]).unwrap().is_none());
}
