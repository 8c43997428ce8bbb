//! Commits that calls share, and what their failure leaves.

use tombolo_testkit::wait_for;

use super::*;
use crate::family::Family;

fn request(number: usize) -> Request {
    Request {
        owner: Owner {
            container_id: format!("c{number}"),
            ifname: "eth0".into(),
        },
        netns: "/run/netns/x".into(),
        network: None,
        pod: None,
        mac: [2; 6],
        mtu: 1450,
        families: vec![Family::V4],
        addresses: Vec::new(),
        host_ports: Vec::new(),
    }
}

/// Calls `call` on 50 threads while a commit seems to be under way, then ends that with
/// `end`, and gives what the calls gave.
fn gather<T: Send>(
    store: &AddressStore,
    call: impl Fn(usize) -> T + Sync,
    end: impl FnOnce(&mut State),
) -> Vec<T> {
    store.shared.lock().committing = true;
    thread::scope(|scope| {
        let calls: Vec<_> = (0..50)
            .map(|number| {
                scope.spawn({
                    let call = &call;
                    move || call(number)
                })
            })
            .collect();
        wait_for(Duration::from_secs(10), "all calls wait", || {
            store.shared.lock().gathering.callers == 50
        });
        let mut state = store.shared.lock();
        state.committing = false;
        end(&mut state);
        store.shared.settled.notify_all();
        store.shared.gathered.notify_all();
        drop(state);
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    })
}

fn open() -> (tempfile::TempDir, AddressStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = AddressStore::open(&dir.path().join("a"), Duration::ZERO).unwrap();
    store.set_blocks(&["10.0.0.0/24".parse().unwrap()]).unwrap();
    (dir, store)
}

#[test]
fn calls_that_come_during_a_commit_share_the_next() {
    let (_dir, store) = open();
    let before = store.commits();
    let allocate = |number| store.allocate(&request(number)).unwrap();
    gather(&store, allocate, |_| ());
    assert_eq!(store.commits(), before + 1);
    assert_eq!(store.attachments().unwrap().len(), 50);
}

#[test]
fn a_second_release_waits_for_the_first_to_be_durable() {
    let (_dir, store) = open();
    let owner = store.allocate(&request(0)).unwrap().owner;
    let released = gather(&store, |_| store.release(&owner).unwrap(), |_| ());
    assert_eq!(released.iter().flatten().count(), 1);
}

#[test]
fn a_failed_commit_fails_all_that_gathered_and_leaves_nothing_in_memory() {
    let (_dir, store) = open();
    let kept = store.allocate(&request(100)).unwrap();
    let error = store.shared.aborted(&"the disk is gone");
    let results = gather(
        &store,
        |number| store.allocate(&request(number)),
        |state| state.forget(error),
    );
    assert!(
        results
            .iter()
            .all(|result| matches!(result, Err(Error::Aborted { .. })))
    );
    assert_eq!(store.attachments().unwrap(), [kept]);
}
