//! The store on a real disk: what is acknowledged is there after reopening, also when the disk
//! refuses in between.

#![allow(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it must be"
)]

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use ipnet::IpNet;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tombolo_ipam::{AddressStore, Error, Family, Owner, PodRef, Request};

const NO_REST: Duration = Duration::ZERO;

fn owner(name: &str) -> Owner {
    Owner {
        container_id: name.into(),
        ifname: "eth0".into(),
    }
}

fn request(name: &str) -> Request {
    Request {
        owner: owner(name),
        netns: PathBuf::from("/run/netns/x"),
        network: None,
        pod: Some(PodRef {
            namespace: "default".into(),
            name: name.into(),
            uid: Some("9d".into()),
        }),
        mac: [2, 0, 0, 0, 0, 1],
        mtu: 1450,
        families: vec![Family::V4],
        addresses: Vec::new(),
        host_ports: Vec::new(),
    }
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn open(path: &Path, blocks: &[&str]) -> AddressStore {
    let store = AddressStore::open(path, NO_REST).unwrap();
    store.set_blocks(&nets(blocks)).unwrap();
    store
}

#[test]
fn everything_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("made/here/addresses.redb");
    let store = open(&path, &["10.0.0.0/24", "fd00::/112"]);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let both = Request {
        families: Family::ALL.to_vec(),
        ..request("a")
    };
    let a = store.allocate(&both).unwrap();
    assert_eq!(
        a.addresses,
        ["10.0.0.1".parse::<IpAddr>().unwrap(), "fd00::1".parse().unwrap()]
    );
    let odd = Owner {
        container_id: "ü\0\n".into(),
        ifname: String::new(),
    };
    let b = store
        .allocate(&Request {
            owner: odd.clone(),
            ..request("b")
        })
        .unwrap();
    store.allocate(&request("c")).unwrap();
    store.release(&owner("c")).unwrap().unwrap();
    drop(store);

    let store = AddressStore::open(&path, Duration::from_secs(3600)).unwrap();
    assert_eq!(store.blocks().unwrap(), nets(&["10.0.0.0/24", "fd00::/112"]));
    assert_eq!(store.get(&a.owner).unwrap(), Some(a.clone()));
    assert_eq!(store.get(&odd).unwrap(), Some(b.clone()));
    assert_eq!(store.attachments().unwrap(), [a, b]);
    let usage = &store.usage().unwrap()[0];
    assert_eq!((usage.used, usage.resting, usage.free), (2, 1, 252));
    // What rested before goes on to rest, and is known as used.
    let asked = Request {
        addresses: vec!["10.0.0.3".parse().unwrap()],
        ..request("d")
    };
    assert!(matches!(
        store.allocate(&asked),
        Err(Error::AddressResting { .. })
    ));
    assert_eq!(
        store.allocate(&request("d")).unwrap().addresses,
        ["10.0.0.4".parse::<IpAddr>().unwrap()]
    );
}

#[test]
fn an_exhausted_block_is_named_with_what_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = AddressStore::open(&dir.path().join("a"), Duration::from_secs(30)).unwrap();
    assert!(matches!(
        store.allocate(&request("a")),
        Err(Error::NoBlock { .. })
    ));
    store.set_blocks(&nets(&["10.0.0.0/30"])).unwrap();
    for name in ["a", "b", "c"] {
        store.allocate(&request(name)).unwrap();
    }
    let text = store.allocate(&request("d")).unwrap_err().to_string();
    assert!(text.contains("block 10.0.0.0/30: 3 in use, 0 freed"), "{text}");
    store.release(&owner("b")).unwrap();
    let text = store.allocate(&request("d")).unwrap_err().to_string();
    assert!(
        text.contains("2 in use, 1 freed a moment ago") && text.contains("the next is free in"),
        "{text}"
    );
    // Nothing of a request that fails in one family is kept of the other.
    store.set_blocks(&nets(&["10.0.0.0/30", "fd00::/112"])).unwrap();
    let both = Request {
        families: Family::ALL.to_vec(),
        ..request("d")
    };
    assert!(matches!(
        store.allocate(&both),
        Err(Error::Exhausted {
            family: Family::V4,
            ..
        })
    ));
    assert_eq!(store.usage().unwrap()[1].used, 0);
}

#[test]
fn other_blocks_leave_what_is_held() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let store = open(&path, &["10.0.0.0/24"]);
    let held = store.allocate(&request("a")).unwrap();
    store.set_blocks(&nets(&["10.0.1.0/24"])).unwrap();
    assert_eq!(
        store.allocate(&request("b")).unwrap().addresses,
        ["10.0.1.1".parse::<IpAddr>().unwrap()]
    );
    drop(store);
    let store = AddressStore::open(&path, NO_REST).unwrap();
    assert_eq!(store.get(&owner("a")).unwrap(), Some(held));
    assert!(matches!(
        store.allocate(&request("a")),
        Err(Error::AlreadyAllocated { .. })
    ));
    store.release(&owner("a")).unwrap().unwrap();
    assert_eq!(store.release(&owner("a")).unwrap(), None);
    store.allocate(&request("a")).unwrap();
}

#[test]
fn a_hundred_at_once_are_distinct() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let store = open(&path, &["10.0.0.0/24"]);
    thread::scope(|scope| {
        for number in 0..100 {
            let store = &store;
            scope.spawn(move || store.allocate(&request(&format!("c{number}"))).unwrap());
        }
    });
    drop(store);
    let attachments = AddressStore::open(&path, NO_REST).unwrap().attachments().unwrap();
    let distinct: BTreeSet<_> = attachments
        .iter()
        .flat_map(|attachment| &attachment.addresses)
        .collect();
    assert_eq!((attachments.len(), distinct.len()), (100, 100));
}

#[test]
fn what_nobody_waits_for_is_written_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let store = open(&path, &["10.0.0.0/24"]);
    let pending = store.begin_allocate(&request("a")).unwrap();
    let released = store.begin_release(&owner("a")).unwrap();
    assert_eq!(released.value().as_ref(), Some(pending.value()));
    let waited_for = store.begin_allocate(&request("b")).unwrap();
    drop((pending, released));
    drop(store);
    // The answer outlives the store.
    let held = waited_for.wait().unwrap();
    assert_eq!(
        AddressStore::open(&path, NO_REST).unwrap().attachments().unwrap(),
        [held]
    );
}

#[test]
fn a_store_has_one_user() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let _first = open(&path, &["10.0.0.0/24"]);
    let error = AddressStore::open(&path, NO_REST).unwrap_err();
    assert!(matches!(error, Error::InUse { .. }), "{error}");
}

#[test]
fn what_is_no_store_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let garbage = b"not a database".repeat(1000);
    fs::write(&path, &garbage).unwrap();
    let error = AddressStore::open(&path, NO_REST).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    assert_eq!(fs::read(&path).unwrap(), garbage);

    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = AddressStore::open(&file.join("a"), NO_REST).unwrap_err();
    assert!(matches!(error, Error::Open { .. }), "{error}");
}

#[test]
fn flipped_bytes_never_give_an_address_twice() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let store = open(&path, &["10.0.0.0/24"]);
    for number in 0..50 {
        store.allocate(&request(&format!("c{number}"))).unwrap();
    }
    drop(store);
    let good = fs::read(&path).unwrap();
    let mut refused = 0;
    for position in (0..good.len()).step_by(997) {
        let mut bad = good.clone();
        bad[position] ^= 0xff;
        fs::write(&path, &bad).unwrap();
        // Either the damage is told, or it was in a page that holds nothing.
        match AddressStore::open(&path, NO_REST) {
            Ok(store) => assert_eq!(store.attachments().unwrap().len(), 50, "byte {position}"),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 0);
}

/// Runs `test` with a small file system of its own, which goes with the thread whatever happens.
fn with_small_disk(bytes: usize, test: impl FnOnce(&Path) + Send) {
    let dir = tempfile::tempdir().unwrap();
    let body = || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        let size = format!("size={bytes}");
        mount(
            Some("tmpfs"),
            dir.path(),
            Some("tmpfs"),
            MsFlags::empty(),
            Some(size.as_str()),
        )
        .unwrap();
        test(dir.path());
    };
    thread::scope(|scope| scope.spawn(body).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

#[test]
fn a_full_disk_leaves_memory_and_disk_in_accord() {
    with_small_disk(4 << 20, |dir| {
        let path = dir.join("a");
        let store = open(&path, &["10.0.0.0/16"]);
        let mut acknowledged = BTreeSet::new();
        for number in 0..20 {
            let name = format!("before{number}");
            acknowledged.extend(store.allocate(&request(&name)).map(|attachment| attachment.owner));
        }
        fill(&dir.join("ballast"));

        // Free pages within the file serve for a while; then the disk refuses.
        let mut refused = BTreeSet::new();
        for number in 0..2000 {
            let name = format!("full{number}");
            match store.allocate(&request(&name)) {
                Ok(attachment) => assert!(acknowledged.insert(attachment.owner)),
                Err(error) => {
                    assert!(matches!(error, Error::Storage { .. }), "{error}");
                    refused.insert(owner(&name));
                    if refused.len() == 5 {
                        break;
                    }
                }
            }
        }
        assert_eq!(refused.len(), 5, "the disk never became full");

        fs::remove_file(dir.join("ballast")).unwrap();
        let held = |store: &AddressStore| -> BTreeSet<Owner> {
            store
                .attachments()
                .unwrap()
                .into_iter()
                .map(|attachment| attachment.owner)
                .collect()
        };
        assert_eq!(held(&store), acknowledged);
        let late = store.allocate(&request("late")).unwrap();
        assert!(acknowledged.insert(late.owner));
        drop(store);

        let store = AddressStore::open(&path, NO_REST).unwrap();
        assert_eq!(held(&store), acknowledged);
        let addresses = store.addresses().unwrap();
        assert_eq!(addresses.len(), acknowledged.len());
    });
}

fn fill(ballast: &Path) {
    let mut file = fs::File::create(ballast).unwrap();
    for size in [1 << 16, 1 << 12, 1] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
}

#[test]
fn a_read_only_disk_is_told() {
    with_small_disk(1 << 20, |dir| {
        let path = dir.join("a");
        let store = open(&path, &["10.0.0.0/24"]);
        let held = store.allocate(&request("a")).unwrap();
        drop(store);
        let remount = |flags| {
            mount(
                None::<&str>,
                dir,
                None::<&str>,
                MsFlags::MS_REMOUNT | flags,
                None::<&str>,
            )
            .unwrap()
        };
        remount(MsFlags::MS_RDONLY);
        let error = AddressStore::open(&path, NO_REST).unwrap_err().to_string();
        assert!(
            error.contains("Read-only") && error.contains("not mounted read-only"),
            "{error}"
        );
        remount(MsFlags::empty());
        assert_eq!(
            AddressStore::open(&path, NO_REST).unwrap().attachments().unwrap(),
            [held]
        );
    });
}
