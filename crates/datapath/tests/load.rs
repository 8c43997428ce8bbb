//! Load, pin, reuse, replace, attach, detach: by tcx and by clsact.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::{collections::BTreeMap, net::UdpSocket, path::Path};

use common::{
    bed::{Bed, Other, attach_ways, eventually, ifindex, run},
    cluster::Cluster,
    frame::ip,
};
use tombolo_abi::{Addr, Endpoint, Hook, MacKey, Outcome, Route, RouteKey, capacity};
use tombolo_datapath::{Attach, Changes, Datapath, Error, Options, open_readonly, remove, requirements};

#[test]
fn this_machine_has_what_is_needed() {
    assert_eq!(requirements(), []);
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|text| text.parse::<u32>().ok());
    let version = (numbers.next().unwrap(), numbers.next().unwrap());
    assert_eq!(
        attach_ways().contains(&Attach::Tcx),
        version >= (6, 6),
        "{release}"
    );
}

#[test]
fn only_a_bpffs_will_do() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("pins");
    let error = Datapath::load(&Options {
        directory: directory.clone(),
        ..Options::default()
    })
    .unwrap_err();
    assert!(matches!(error, Error::NotBpffs(_)), "{error}");
    assert!(!directory.exists(), "nothing is half-made");
}

/// Every start of an agent waits for the verifier, whose work is counted in instructions that it has followed.
#[test]
fn the_verifier_has_little_to_follow() {
    const MOST: u32 = 35_000;
    let bed = Bed::new();
    let _datapath = bed.load();
    // Programs that other tests of this process hold are the same ones.
    let followed: Vec<u32> = std::fs::read_dir("/proc/self/fdinfo")
        .unwrap()
        .filter_map(|entry| std::fs::read_to_string(entry.unwrap().path()).ok())
        .filter_map(|info| {
            let line = info
                .lines()
                .find_map(|line| line.strip_prefix("verified_insns:"))?;
            Some(line.trim().parse().unwrap())
        })
        .collect();
    assert!(followed.len() >= Hook::ALL.len(), "{followed:?}");
    assert!(followed.iter().all(|count| *count <= MOST), "{followed:?}");
}

#[test]
fn maps_are_reused_with_what_they_hold() {
    let bed = Bed::new();
    let endpoint = Endpoint {
        ifindex: 7,
        mac: [1; 6],
        mtu: 1400,
        flags: 0,
    };
    let address = Addr::from(ip("10.0.0.1"));
    bed.load().endpoints().insert(&address, &endpoint).unwrap();
    assert_eq!(bed.load().endpoints().get(&address).unwrap(), Some(endpoint));
    let tables = open_readonly(&bed.directory).unwrap();
    assert_eq!(
        tables.endpoints().entries().unwrap(),
        [(address, endpoint)].into()
    );
    assert!(
        tables.endpoints().insert(&address, &endpoint).is_err(),
        "it is for reading"
    );
    remove(&bed.directory).unwrap();
    assert!(!bed.directory.exists());
    assert!(matches!(open_readonly(&bed.directory), Err(Error::Pin { .. })));
    remove(&bed.directory).unwrap();
}

#[test]
fn a_pinned_map_of_another_shape_is_refused_and_stays() {
    let bed = Bed::new();
    drop(bed.load());
    let maps = bed.directory.join("v1");
    // Another map under its name.
    std::fs::remove_file(maps.join("ENDPOINTS")).unwrap();
    std::fs::rename(maps.join("UPLINK_MACS"), maps.join("ENDPOINTS")).unwrap();
    let error = Datapath::load(&bed.options()).unwrap_err();
    assert!(
        matches!(&error, Error::MapMismatch { path, .. } if path.ends_with("ENDPOINTS")),
        "{error}"
    );
    assert!(maps.join("ENDPOINTS").exists());
}

#[test]
fn reconcile_writes_what_differs() {
    let bed = Bed::new();
    let datapath = bed.load();
    let key = |n: u32| RouteKey {
        prefix_len: 128,
        addr: Addr([n, 0, 0, 1]),
    };
    let route = |node| Route {
        node,
        ..Route::default()
    };
    let routes = datapath.routes();
    let first: BTreeMap<_, _> = (0..10_000).map(|n| (key(n), route(1))).collect();
    assert_eq!(
        routes.reconcile(&first).unwrap(),
        Changes {
            upserted: 10_000,
            removed: 0
        }
    );
    assert_eq!(routes.entries().unwrap(), first);
    assert_eq!(routes.reconcile(&first).unwrap(), Changes::default());
    let mut second = first.clone();
    second.insert(key(3), route(9));
    second.insert(key(20_000), route(2));
    second.retain(|key, _| !(100..200).contains(&key.addr.0[0]));
    assert_eq!(
        routes.reconcile(&second).unwrap(),
        Changes {
            upserted: 2,
            removed: 100
        }
    );
    assert_eq!(routes.entries().unwrap(), second);
    assert_eq!(routes.reconcile(&BTreeMap::new()).unwrap().removed, second.len());
    assert_eq!(routes.entries().unwrap(), BTreeMap::new());
    assert!(!routes.remove(&key(3)).unwrap());
}

#[test]
fn a_full_table_changes_nothing_and_its_last_entry_can_be_swapped() {
    let bed = Bed::new();
    let datapath = bed.load();
    let macs = datapath.uplink_macs();
    let key = |node: u32| MacKey {
        node,
        ..MacKey::default()
    };
    let full: BTreeMap<_, _> = (0..capacity::UPLINK_MACS as u32).map(|n| (key(n), 1)).collect();
    let more: BTreeMap<_, _> = (0..=capacity::UPLINK_MACS as u32).map(|n| (key(n), 1)).collect();
    assert!(matches!(
        macs.reconcile(&more),
        Err(Error::TableFull {
            map: "UPLINK_MACS",
            ..
        })
    ));
    assert_eq!(macs.entries().unwrap(), BTreeMap::new());
    macs.reconcile(&full).unwrap();
    assert!(matches!(
        macs.insert(&key(u32::MAX), &1),
        Err(Error::TableFull { .. })
    ));
    let mut swapped = full;
    swapped.remove(&key(0));
    swapped.insert(key(u32::MAX), 1);
    assert_eq!(
        macs.reconcile(&swapped).unwrap(),
        Changes {
            upserted: 1,
            removed: 1
        }
    );
    assert_eq!(macs.entries().unwrap(), swapped);
}

/// A device in the thread's namespace with the other end in another, and addresses on both. Nothing
/// is sent there but what the test sends.
fn uplink(other: &Other, name: &str) -> u32 {
    let quiet = "net.ipv6.conf.default.disable_ipv6=1";
    run(&format!("sysctl -q -w {quiet}"));
    other.run(move || run(&format!("sysctl -q -w {quiet}")));
    let (here, there) = ("02:00:00:00:00:01", "02:00:00:00:00:02");
    run(&format!(
        "ip link add {name} address {here} type veth peer name wire0 address {there} netns {}",
        other.tid
    ));
    run(&format!("ip addr add 192.0.2.1/24 dev {name}"));
    run(&format!("ip link set {name} up"));
    run(&format!(
        "ip neigh add 192.0.2.2 lladdr {there} dev {name} nud permanent"
    ));
    other.commands(&[
        "ip addr add 192.0.2.2/24 dev wire0",
        "ip link set wire0 up",
        "ip neigh add 192.0.2.1 lladdr 02:00:00:00:00:01 dev wire0 nud permanent",
    ]);
    // Until the kernel has noticed that both ends are up, what is sent is dropped.
    eventually("the link to run", || {
        let state = run(&format!("ip link show {name}"));
        state.contains("state UP").then_some(()).ok_or(state)
    });
    ifindex(name)
}

fn packets(directory: &Path, hook: Hook, outcome: Outcome) -> u64 {
    let counters = open_readonly(directory).unwrap().counters().unwrap();
    counters
        .iter()
        .find(|(h, o, _)| (*h, *o) == (hook, outcome))
        .map_or(0, |(_, _, counter)| counter.packets)
}

/// Sends a packet out and waits for it at the other end.
fn send(other: &Other, count: usize) {
    let receiver = other.run(|| {
        let socket = UdpSocket::bind("192.0.2.2:9").unwrap();
        socket
            .set_read_timeout(Some(std::time::Duration::from_secs(5)))
            .unwrap();
        socket
    });
    let sender = UdpSocket::bind("192.0.2.1:0").unwrap();
    for _ in 0..count {
        sender.send_to(b"x", "192.0.2.2:9").unwrap();
        receiver.recv(&mut [0; 8]).unwrap();
    }
}

#[test]
fn attachments_outlive_the_process_and_are_replaced_in_place() {
    for attach in attach_ways() {
        std::thread::spawn(move || {
            let bed = Bed::new();
            let other = Other::new();
            // A device name that a bpffs does not take.
            let index = uplink(&other, "up0.100");
            let datapath = bed.load_with(attach);
            for _ in 0..2 {
                datapath.attach(Hook::ToUplink, "up0.100", index).unwrap();
                datapath.attach(Hook::FromUplink, "up0.100", index).unwrap();
            }
            let attached = [
                ("up0.100".to_owned(), Hook::FromUplink),
                ("up0.100".to_owned(), Hook::ToUplink),
            ];
            assert_eq!(datapath.attachments().unwrap(), attached.clone().into());
            let counted = || packets(&bed.directory, Hook::ToUplink, Outcome::NotOurs);
            // Each packet once, though it was attached twice.
            send(&other, 1);
            let before = counted();
            drop(datapath);
            send(&other, 10);
            assert_eq!(counted() - before, 10, "{attach:?}: it goes on without us");
            // An upgrade.
            let program = program_ids(&bed, attach);
            let datapath = bed.load_with(attach);
            assert_ne!(
                program_ids(&bed, attach),
                program,
                "{attach:?}: it is another program"
            );
            send(&other, 10);
            assert_eq!(counted() - before, 20);
            assert_eq!(datapath.attachments().unwrap(), attached.into());
            datapath.detach("up0.100").unwrap();
            datapath.detach("up0.100").unwrap();
            assert_eq!(datapath.attachments().unwrap(), [].into());
            let before = counted();
            // The kernel lets go of a link a little later.
            eventually("detached", || {
                let before = counted();
                send(&other, 1);
                if counted() == before {
                    Ok(())
                } else {
                    Err("still counting".to_owned())
                }
            });
            assert!(counted() >= before);
        })
        .join()
        .unwrap();
    }
}

/// What the device runs.
fn program_ids(bed: &Bed, attach: Attach) -> String {
    match attach {
        // The numbers are in the information that the kernel shows of a pinned link's descriptor.
        Attach::Tcx => {
            let tables = bed.directory.join("links/up0%2e100-to_uplink");
            assert!(tables.exists());
            link_program(&tables).to_string()
        }
        _ => run("tc filter show dev up0.100 egress"),
    }
}

/// The program of a pinned link, as /proc shows it.
fn link_program(pin: &Path) -> u32 {
    use std::os::{fd::FromRawFd as _, unix::ffi::OsStrExt as _};
    #[repr(C)]
    struct Get(u64, u32, u32);
    let path = std::ffi::CString::new(pin.as_os_str().as_bytes()).unwrap();
    let mut get = Get(path.as_ptr() as u64, 0, 0);
    // SAFETY: BPF_OBJ_GET with a path that lives on.
    let fd = unsafe { libc_syscall(&mut get) };
    // SAFETY: the kernel handed the descriptor over.
    let _owned = unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) };
    let info = std::fs::read_to_string(format!("/proc/thread-self/fdinfo/{fd}")).unwrap();
    info.lines()
        .find_map(|line| line.strip_prefix("prog_id:"))
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

unsafe fn libc_syscall<T>(request: &mut T) -> i32 {
    // SAFETY: as the caller promises.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, 7, &raw mut *request, size_of::<T>()) };
    i32::try_from(fd).unwrap()
}

#[test]
fn a_device_that_went_is_forgotten_and_its_name_can_be_used_again() {
    for attach in attach_ways() {
        std::thread::spawn(move || {
            let bed = Bed::new();
            let other = Other::new();
            let datapath = bed.load_with(attach);
            datapath
                .attach(Hook::FromUplink, "up0", uplink(&other, "up0"))
                .unwrap();
            run("ip link del up0");
            // The same name, another device.
            let other = Other::new();
            let index = uplink(&other, "up0");
            datapath.attach(Hook::ToUplink, "up0", index).unwrap();
            datapath.attach(Hook::FromUplink, "up0", index).unwrap();
            send(&other, 1);
            assert!(packets(&bed.directory, Hook::ToUplink, Outcome::NotOurs) > 0);
            run("ip link del up0");
            drop(datapath);
            let datapath = bed.load_with(attach);
            assert_eq!(datapath.attachments().unwrap(), [].into(), "{attach:?}");
            datapath.detach("up0").unwrap();
            let error = datapath.attach(Hook::FromUplink, "up0", index).unwrap_err();
            assert!(matches!(error, Error::Attach { .. }), "{error}");
            assert_eq!(datapath.attachments().unwrap(), [].into(), "nothing half-made");
        })
        .join()
        .unwrap();
    }
}

#[test]
fn removal_detaches_everything() {
    for attach in attach_ways() {
        std::thread::spawn(move || {
            let bed = Bed::new();
            let other = Other::new();
            let index = uplink(&other, "up0");
            let datapath = bed.load_with(attach);
            datapath.attach(Hook::FromUplink, "up0", index).unwrap();
            datapath.attach(Hook::ToUplink, "up0", index).unwrap();
            remove(&bed.directory).unwrap();
            assert!(!bed.directory.exists());
            eventually("detached", || {
                let before = datapath.counters().unwrap();
                send(&other, 1);
                if datapath.counters().unwrap() == before {
                    Ok(())
                } else {
                    Err("still counting".to_owned())
                }
            });
            let filters = run("tc filter show dev up0 egress");
            assert!(!filters.contains("tombolo"), "{filters}");
        })
        .join()
        .unwrap();
    }
}

#[test]
fn replacing_programs_under_a_flood_loses_nothing() {
    for attach in attach_ways() {
        std::thread::spawn(move || {
            let bed = Bed::new();
            let other = Other::new();
            let index = uplink(&other, "up0");
            let datapath = bed.load_with(attach);
            datapath.attach(Hook::ToUplink, "up0", index).unwrap();
            send(&other, 1);
            let before = packets(&bed.directory, Hook::ToUplink, Outcome::NotOurs);
            let bed_options = Options {
                attach,
                ..bed.options()
            };
            let count = 2000;
            std::thread::scope(|scope| {
                // Threads made here share this one's namespaces.
                scope.spawn(|| {
                    for _ in 0..3 {
                        Datapath::load(&bed_options).unwrap();
                    }
                });
                send(&other, count);
            });
            let counted = packets(&bed.directory, Hook::ToUplink, Outcome::NotOurs) - before;
            assert_eq!(counted, count as u64, "{attach:?}: each met a program");
        })
        .join()
        .unwrap();
    }
}

#[test]
fn maps_made_anew_are_filled_before_programs_are_replaced() {
    let bed = Bed::new();
    for pair in ["tmba pod_a", "tmbb pod_b", "up0 wire0", "tombolo_vxlan x"] {
        let (one, other) = pair.split_once(' ').unwrap();
        run(&format!("ip link add {one} type veth peer name {other}"));
    }
    let old = Cluster::on_devices(bed.load());
    old.datapath.attach(Hook::FromPod, "tmba", old.link_a).unwrap();
    let pin = bed.directory.join("links/tmba-from_pod");
    let program = link_program(&pin);
    let endpoints = old.datapath.endpoints().entries().unwrap();
    // By another's hand.
    std::fs::remove_file(bed.directory.join("v1/ROUTES")).unwrap();
    for _ in 0..2 {
        // As often as the agent starts and ends before it has filled them.
        let new = bed.load();
        assert_eq!(new.routes().entries().unwrap(), BTreeMap::new());
        assert_eq!(
            new.endpoints().entries().unwrap(),
            endpoints,
            "the others are kept"
        );
        new.attach(Hook::FromPod, "tmba", old.link_a).unwrap();
        assert_eq!(link_program(&pin), program, "the old one serves");
    }
    let new = Cluster::on_devices(bed.load());
    assert_eq!(link_program(&pin), program, "the old one serves");
    new.datapath.replace_programs().unwrap();
    assert_ne!(link_program(&pin), program);
    let program = link_program(&pin);
    let routes = new.datapath.routes().entries().unwrap();
    assert_eq!(
        open_readonly(&bed.directory).unwrap().routes().entries().unwrap(),
        routes
    );
    // From now on a start is a start.
    let again = bed.load();
    assert_ne!(link_program(&pin), program);
    assert_eq!(again.routes().entries().unwrap(), routes);
}

#[test]
fn tables_of_an_unknown_version_are_refused_and_stay() {
    let bed = Bed::new();
    drop(bed.load());
    let theirs = bed.directory.join("v3");
    std::fs::rename(bed.directory.join("v1"), &theirs).unwrap();
    let error = Datapath::load(&bed.options()).unwrap_err();
    assert!(
        matches!(&error, Error::UnknownAbi { path, found: 3 } if *path == theirs),
        "{error}"
    );
    let text = error.to_string();
    for part in [
        &*theirs.display().to_string(),
        "version 3",
        "version 1",
        "version 2 first",
    ] {
        assert!(text.contains(part), "{text} does not say {part}");
    }
    assert_eq!(names(&bed), ["links", "v3"]);
}

#[test]
fn a_neighbour_with_other_keys_is_refused_and_stays() {
    let bed = Bed::new();
    drop(bed.load());
    let theirs = bed.directory.join("v2");
    std::fs::rename(bed.directory.join("v1"), &theirs).unwrap();
    std::fs::remove_file(theirs.join("ROUTES")).unwrap();
    std::fs::rename(theirs.join("UPLINK_MACS"), theirs.join("ROUTES")).unwrap();
    let error = Datapath::load(&bed.options()).unwrap_err();
    assert!(
        matches!(&error, Error::Unconvertible { path, .. } if *path == theirs.join("ROUTES")),
        "{error}"
    );
    assert_eq!(names(&bed), ["links", "v2"], "nothing is half-made");
}

/// What is in the directory.
fn names(bed: &Bed) -> Vec<String> {
    let entries = std::fs::read_dir(&bed.directory).unwrap();
    let mut names: Vec<_> = entries
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
