//! What an agent reads at its start: the address store's file, damaged; records in it that no release wrote; the
//! records that plugins leave. Damage is an error that says so. What can be read can be worked with.
//!
//! The first byte of an input chooses. 0: the rest is positions (three bytes) and a byte each, written over a good
//! file. 1: lines, each a row to be put in the file. 2: the rest is a plugin's record.

#![no_main]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::{Corpus, fuzz_target};
use redb::{Database, TableDefinition};
use tombolo_cni::released;
use tombolo_ipam::{AddressStore, Error, Family, Owner, Request};
use tombolo_testkit::Disk;

/// As in `crates/ipam/src/disk.rs`: what is in a file of this release.
const ATTACHMENTS: TableDefinition<(&str, &str), &[u8]> = TableDefinition::new("attachments");
const FREED: TableDefinition<u64, &str> = TableDefinition::new("freed");
const BLOCKS: TableDefinition<u32, &str> = TableDefinition::new("blocks");
const FACTS: TableDefinition<&str, u64> = TableDefinition::new("facts");

static MEMORY: LazyLock<Disk> = LazyLock::new(|| Disk::new(64 << 20));

/// The store syncs the folder above its own, too, which has to be a real one.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = MEMORY.path().join("node");
    fs::create_dir(&folder).unwrap();
    folder
});

/// A file with a block of each family, pods that hold addresses, and some that have given theirs back.
static GOOD: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let path = FOLDER.join("good.redb");
    let store = AddressStore::open(&path, Duration::ZERO).unwrap();
    store
        .set_blocks(&[
            "10.244.1.0/24".parse().unwrap(),
            "fd00:10:244:1::/112".parse().unwrap(),
        ])
        .unwrap();
    for number in 0..8 {
        store.allocate(&wish(number)).unwrap();
    }
    for number in 0..3 {
        store.release(&wish(number).owner).unwrap();
    }
    drop(store);
    fs::read(path).unwrap()
});

fuzz_target!(|input: &[u8]| -> Corpus {
    let [kind, rest @ ..] = input else {
        return Corpus::Reject;
    };
    match kind {
        0 => damaged_file(rest),
        1 => {
            let Ok(text) = std::str::from_utf8(rest) else {
                return Corpus::Reject;
            };
            strange_rows(text);
        }
        2 => plugins_record(rest),
        _ => return Corpus::Reject,
    }
    Corpus::Keep
});

fn damaged_file(changes: &[u8]) {
    let mut file = GOOD.clone();
    for change in changes.chunks_exact(4) {
        let position = u32::from_be_bytes([0, change[0], change[1], change[2]]) as usize % file.len();
        file[position] = change[3];
    }
    let path = FOLDER.join("damaged.redb");
    fs::write(&path, file).unwrap();
    open(&path);
}

/// A row is `a ID NAME JSON`, `f NUMBER ADDRESS`, `b NUMBER BLOCK` or `v NUMBER`.
fn strange_rows(text: &str) {
    let path = FOLDER.join("strange.redb");
    let _ = fs::remove_file(&path);
    drop(AddressStore::open(&path, Duration::ZERO).unwrap());
    let database = Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    for line in text.lines() {
        let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (first, second) = rest.split_once(' ').unwrap_or((rest, ""));
        match kind {
            "a" => {
                let (name, json) = second.split_once(' ').unwrap_or((second, ""));
                let mut table = transaction.open_table(ATTACHMENTS).unwrap();
                table.insert((first, name), json.as_bytes()).unwrap();
            }
            "f" => {
                let Ok(number) = first.parse::<u64>() else {
                    continue;
                };
                transaction
                    .open_table(FREED)
                    .unwrap()
                    .insert(number, second)
                    .unwrap();
            }
            "b" => {
                let Ok(number) = first.parse::<u32>() else {
                    continue;
                };
                transaction
                    .open_table(BLOCKS)
                    .unwrap()
                    .insert(number, second)
                    .unwrap();
            }
            "v" => {
                let Ok(number) = first.parse::<u64>() else {
                    continue;
                };
                transaction
                    .open_table(FACTS)
                    .unwrap()
                    .insert("format", number)
                    .unwrap();
            }
            _ => {}
        }
    }
    transaction.commit().unwrap();
    drop(database);
    open(&path);
}

/// What opens is used; what does not says that the file is damaged, and names it.
fn open(path: &Path) {
    let store = match AddressStore::open(path, Duration::ZERO) {
        Ok(store) => store,
        Err(error @ (Error::Damaged { .. } | Error::Storage { .. })) => {
            assert!(error.to_string().contains(&path.display().to_string()), "{error}");
            return;
        }
        Err(error) => panic!("{error:?}"),
    };
    let (Ok(held), Ok(_)) = (store.addresses(), store.usage()) else {
        return;
    };
    if let Ok(given) = store.allocate(&wish(100)) {
        for address in &given.addresses {
            assert!(
                held.iter().all(|(other, _)| other != address),
                "{address} was given twice"
            );
        }
    }
    for attachment in store.attachments().unwrap_or_default() {
        let _ = store.release(&attachment.owner);
    }
}

fn plugins_record(bytes: &[u8]) {
    let state = FOLDER.join("state");
    fs::create_dir_all(released::folder(&state)).unwrap();
    fs::write(released::folder(&state).join("a@eth0.json"), bytes).unwrap();
    match released::list(&state) {
        Ok(records) => assert_eq!(records.len(), 1),
        Err(error) => assert!(error.to_string().contains("a@eth0.json"), "{error}"),
    }
}

fn wish(number: u32) -> Request {
    Request {
        owner: Owner {
            container_id: format!("pod-{number}"),
            ifname: "eth0".to_owned(),
        },
        netns: PathBuf::from("/run/netns/pod"),
        network: None,
        pod: None,
        mac: [2, 0, 0, 0, 0, 1],
        mtu: 1450,
        families: Family::ALL.to_vec(),
        addresses: Vec::new(),
        host_ports: Vec::new(),
    }
}
