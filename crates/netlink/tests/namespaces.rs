//! Namespaces, kernel settings and notifications.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use tombolo_netlink::{Error, Event, LinkChange, Monitor, Namespace, Netlink, Route, Veth, sysctl};
use tombolo_testkit::TestNamespace;

const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn a_namespace_is_made_at_a_path_and_removed_without_a_trace() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node");
    let made = Namespace::create(&path).unwrap();
    let opened = Namespace::open(&path).unwrap();
    assert!(made.same_as(&opened).unwrap());
    assert!(!made.same_as(&Namespace::current().unwrap()).unwrap());
    assert!(Netlink::open_in(&opened).unwrap().require_link("lo").unwrap().up);
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(mounts().contains(path.to_str().unwrap()));

    let again = Namespace::create(&path).unwrap_err();
    assert!(
        again.is_exists() && again.to_string().contains(path.to_str().unwrap()),
        "{again}"
    );
    assert!(
        Namespace::open(&path).unwrap().same_as(&made).unwrap(),
        "the failure did not touch it"
    );

    Namespace::remove(&path).unwrap();
    assert!(!path.exists() && !mounts().contains(path.to_str().unwrap()));
    Namespace::remove(&path).unwrap();
    assert!(
        Netlink::open_in(&made).unwrap().require_link("lo").unwrap().up,
        "a handle keeps it alive"
    );
}

#[test]
fn only_network_namespaces_are_opened() {
    let folder = tempfile::tempdir().unwrap();
    let missing = Namespace::open(&folder.path().join("missing")).unwrap_err();
    assert!(missing.is_not_found(), "{missing}");
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for path in [
        file.as_path(),
        &pipe,
        folder.path(),
        Path::new("/dev/null"),
        Path::new("/proc/self/ns/mnt"),
    ] {
        let error = Namespace::open(path).unwrap_err();
        assert!(
            matches!(error, Error::NotANamespace(_)),
            "{}: {error}",
            path.display()
        );
    }
}

#[test]
fn a_folder_that_is_not_there_is_an_error_and_stays_away() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("missing/node");
    let error = Namespace::create(&path).unwrap_err();
    assert!(error.to_string().contains("missing/node"), "{error}");
    assert!(!folder.path().join("missing").exists());
}

#[test]
fn the_callers_thread_never_changes() {
    let before = Namespace::current().unwrap();
    let other = TestNamespace::new("other");
    let inside = other.run(|| Namespace::current().unwrap());
    assert!(inside.same_as(other.namespace()).unwrap());
    assert!(Namespace::current().unwrap().same_as(&before).unwrap());
    let panic = std::panic::catch_unwind(|| other.namespace().run(|| panic!("inside")));
    assert_eq!(*panic.unwrap_err().downcast::<&str>().unwrap(), "inside");
    assert!(Namespace::current().unwrap().same_as(&before).unwrap());
}

#[test]
fn a_namespace_goes_with_its_last_handle() {
    let namespace = Namespace::new().unwrap();
    let clone = namespace.try_clone().unwrap();
    assert!(clone.same_as(&namespace).unwrap());
    assert!(clone.as_fd().try_clone_to_owned().is_ok());
    assert_eq!(format!("{clone:?}"), format!("{namespace:?}"));
}

#[test]
fn settings_are_those_of_the_threads_namespace() {
    let key = "net/ipv4/ip_forward";
    let a = TestNamespace::new("a");
    let b = TestNamespace::new("b");
    a.run(|| sysctl::write(key, "1")).unwrap();
    assert_eq!(a.run(|| sysctl::read(key)).unwrap(), "1");
    assert_eq!(b.run(|| sysctl::read(key)).unwrap(), "0");
    let mut netlink = a.netlink();
    netlink
        .add_veth(&Veth {
            name: "eth0.100",
            peer_name: "peer",
            ..Veth::default()
        })
        .unwrap();
    let key = "net/ipv4/conf/eth0.100/rp_filter";
    a.run(|| sysctl::write(key, "2")).unwrap();
    assert_eq!(a.run(|| sysctl::read(key)).unwrap(), "2");
    assert!(b.run(|| sysctl::read(key)).unwrap_err().is_not_found());
}

#[test]
fn bad_settings_are_refused_by_name() {
    let error = sysctl::write("net/ipv4/no_such_thing", "1")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("net/ipv4/no_such_thing") && error.contains("write \"1\""),
        "{error}"
    );
    let a = TestNamespace::new("a");
    assert!(
        a.run(|| sysctl::write("net/ipv4/ip_forward", "no number"))
            .is_err()
    );
    for key in ["../../etc/passwd", "/etc/passwd", "net/../../../etc/passwd"] {
        assert!(matches!(sysctl::read(key), Err(Error::Sysctl { .. })), "{key}");
    }
}

/// Reads events until one `matches`.
fn wait_for_event(monitor: &mut Monitor, what: &str, matches: impl Fn(&Event) -> bool) -> Event {
    while let Some(event) = monitor.next(PATIENCE).expect("events") {
        if matches(&event) {
            return event;
        }
    }
    panic!("no event: {what}");
}

#[test]
fn changes_are_reported() {
    let host = TestNamespace::new("host");
    let mut monitor = Monitor::open_in(host.namespace()).unwrap();
    assert_eq!(monitor.next(Duration::from_millis(1)).unwrap(), None);
    let mut netlink = host.netlink();
    let index = netlink
        .add_veth(&Veth {
            name: "a",
            peer_name: "b",
            up: true,
            ..Veth::default()
        })
        .unwrap();
    let peer = netlink.require_link("b").unwrap().index;
    netlink
        .set_link(
            peer,
            &LinkChange {
                up: Some(true),
                ..LinkChange::default()
            },
        )
        .unwrap();
    wait_for_event(
        &mut monitor,
        "new link",
        |event| matches!(event, Event::Link(link) if link.index == index && link.name == "a" && link.carrier),
    );
    for text in ["10.1.2.3/32", "fd00::3/128"] {
        let address = text.parse().unwrap();
        netlink.add_address(index, address).unwrap();
        wait_for_event(
            &mut monitor,
            text,
            |event| matches!(event, Event::Address(new) if new.address == address && new.ifindex == index),
        );
        netlink.delete_address(index, address).unwrap();
        wait_for_event(
            &mut monitor,
            text,
            |event| matches!(event, Event::AddressRemoved(old) if old.address == address),
        );
    }
    for text in ["10.9.0.0/16", "fd00:9::/64"] {
        let route = Route {
            ifindex: Some(index),
            ..Route::new(text.parse().unwrap())
        };
        netlink.replace_route(&route).unwrap();
        wait_for_event(&mut monitor, text, |event| *event == Event::Route(route.clone()));
        netlink.delete_route(&route).unwrap();
        wait_for_event(&mut monitor, text, |event| {
            *event == Event::RouteRemoved(route.clone())
        });
    }
    netlink.delete_link("a").unwrap();
    wait_for_event(
        &mut monitor,
        "link gone",
        |event| matches!(event, Event::LinkRemoved(link) if link.name == "a"),
    );
}

#[test]
fn lost_changes_are_reported_as_lost_and_later_ones_again() {
    let host = TestNamespace::new("host");
    let mut monitor = Monitor::open_in(host.namespace()).unwrap();
    let mut netlink = host.netlink();
    let index = netlink.require_link("lo").unwrap().index;
    // Nobody reads: far more than the socket's buffer holds.
    let route = Route {
        ifindex: Some(index),
        ..Route::new("10.9.0.0/16".parse().unwrap())
    };
    for _ in 0..20_000 {
        netlink.replace_route(&route).unwrap();
        netlink.delete_route(&route).unwrap();
    }
    wait_for_event(&mut monitor, "overrun", |event| *event == Event::Overrun);
    while monitor.next(Duration::from_millis(1)).unwrap().is_some() {}
    netlink
        .add_address(index, "10.1.2.3/32".parse().unwrap())
        .unwrap();
    wait_for_event(&mut monitor, "an address after the overrun", |event| {
        matches!(event, Event::Address(_))
    });
}
