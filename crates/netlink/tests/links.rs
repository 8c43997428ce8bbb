//! Links in the real kernel, in namespaces of the tests' own.

use std::time::Duration;

use nix::errno::Errno;
use tombolo_netlink::{Bridge, Error, LinkChange, Namespace, Netlink, Veth, Vxlan};
use tombolo_testkit::{End, TestNamespace, connect, wait_for};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

#[test]
fn a_veth_is_made_with_its_peer_in_the_other_namespace() {
    let host = TestNamespace::new("host");
    let pod = TestNamespace::new("pod");
    let mut netlink = host.netlink();
    let index = netlink
        .add_veth(&Veth {
            name: "tmb0",
            mac: Some(MAC),
            mtu: Some(1450),
            peer_name: "eth0",
            peer_mac: Some(PEER_MAC),
            peer_mtu: Some(1400),
            peer_namespace: Some(pod.namespace()),
            ..Veth::default()
        })
        .unwrap();
    let link = netlink.link("tmb0").unwrap().unwrap();
    let peer = pod.netlink().link("eth0").unwrap().unwrap();
    assert_eq!((link.index, link.mac, link.mtu), (index, Some(MAC), 1450));
    assert_eq!((peer.mac, peer.mtu), (Some(PEER_MAC), 1400));
    assert_eq!(
        (link.kind.as_deref(), link.up, peer.up),
        (Some("veth"), false, false)
    );
    assert_eq!((link.peer, peer.peer), (Some(peer.index), Some(link.index)));
    assert!(link.peer_namespace.is_some() && peer.peer_namespace.is_some());
    assert_eq!(
        netlink.link("eth0").unwrap(),
        None,
        "the peer never was in the host's namespace"
    );
    let shown = host
        .command("ip")
        .args(["-d", "link", "show", "tmb0"])
        .output()
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(
        shown.contains("numtxqueues 1") && shown.contains("numrxqueues 1"),
        "{shown}"
    );
}

#[test]
fn this_end_can_come_up_in_the_same_request() {
    let host = TestNamespace::new("host");
    let pod = TestNamespace::new("pod");
    let mut netlink = host.netlink();
    let veth = Veth {
        name: "a",
        peer_name: "b",
        peer_namespace: Some(pod.namespace()),
        up: true,
        ..Veth::default()
    };
    netlink.add_veth(&veth).unwrap();
    let link = netlink.link("a").unwrap().unwrap();
    assert!(link.up && !link.carrier);
    let peer = pod.netlink().link("b").unwrap().unwrap();
    assert!(!peer.up);
    pod.netlink()
        .set_link(
            peer.index,
            &LinkChange {
                up: Some(true),
                ..LinkChange::default()
            },
        )
        .unwrap();
    assert!(netlink.link("a").unwrap().unwrap().carrier);
}

#[test]
fn a_name_that_is_taken_is_refused_and_leaves_nothing() {
    let host = TestNamespace::new("host");
    let pod = TestNamespace::new("pod");
    let mut netlink = host.netlink();
    let veth = Veth {
        name: "a",
        peer_name: "eth0",
        peer_namespace: Some(pod.namespace()),
        ..Veth::default()
    };
    netlink.add_veth(&veth).unwrap();

    let here = netlink
        .add_veth(&Veth {
            peer_name: "eth1",
            ..veth
        })
        .unwrap_err();
    assert!(here.is_exists(), "{here}");
    assert!(here.to_string().starts_with("make veth a: "), "{here}");
    assert_eq!(pod.netlink().link("eth1").unwrap(), None);

    let there = netlink.add_veth(&Veth { name: "b", ..veth }).unwrap_err();
    assert!(there.is_exists(), "{there}");
    assert_eq!(netlink.link("b").unwrap(), None);
}

#[test]
fn bad_names_are_refused_before_the_kernel_sees_them() {
    let host = TestNamespace::new("host");
    let mut netlink = host.netlink();
    for name in [
        "",
        ".",
        "..",
        "a/b",
        "a b",
        "a:b",
        "a\0b",
        "a\nb",
        "sixteen-bytes-xx",
    ] {
        let veth = Veth {
            name,
            peer_name: "peer",
            ..Veth::default()
        };
        assert!(
            matches!(netlink.add_veth(&veth), Err(Error::InvalidName(_))),
            "{name:?}"
        );
        let veth = Veth {
            name: "name",
            peer_name: name,
            ..Veth::default()
        };
        assert!(
            matches!(netlink.add_veth(&veth), Err(Error::InvalidName(_))),
            "{name:?}"
        );
        assert!(
            matches!(netlink.link(name), Err(Error::InvalidName(_))),
            "{name:?}"
        );
    }
    netlink
        .add_veth(&Veth {
            name: "fifteen-bytes-x",
            peer_name: "a.b",
            ..Veth::default()
        })
        .unwrap();
    assert_eq!(netlink.links().unwrap().len(), 3);
}

#[test]
fn a_vxlan_device_is_external() {
    let host = TestNamespace::new("host");
    let mut netlink = host.netlink();
    let vxlan = Vxlan {
        name: "tombolo_vxlan",
        mac: Some(MAC),
        mtu: 1450,
        port: 4789,
        up: true,
    };
    let index = netlink.add_vxlan(&vxlan).unwrap();
    let link = netlink.link_by_index(index).unwrap().unwrap();
    assert_eq!(link.external_vxlan_port, Some(4789));
    assert_eq!(
        (link.name.as_str(), link.mac, link.mtu, link.up),
        ("tombolo_vxlan", Some(MAC), 1450, true)
    );
    let shown = host
        .command("ip")
        .args(["-d", "link", "show", "tombolo_vxlan"])
        .output()
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    for option in [
        "NOARP",
        "external",
        "nolearning",
        "udp6zerocsumtx",
        "udp6zerocsumrx",
        "dstport 4789",
    ] {
        assert!(shown.contains(option), "{option} in {shown}");
    }
    let second = netlink
        .add_vxlan(&Vxlan {
            name: "other",
            ..vxlan
        })
        .unwrap_err();
    assert!(second.is_exists(), "two external devices on one port: {second}");
    assert_eq!(netlink.link("other").unwrap(), None);
}

#[test]
fn links_join_and_leave_a_bridge() {
    let host = TestNamespace::new("host");
    let mut netlink = host.netlink();
    let bridge = Bridge {
        name: "br0",
        mac: Some(MAC),
        mtu: Some(1400),
        up: true,
    };
    let bridge = netlink.add_bridge(&bridge).unwrap();
    let port = netlink
        .add_veth(&Veth {
            name: "a",
            peer_name: "b",
            ..Veth::default()
        })
        .unwrap();
    netlink
        .set_link(
            port,
            &LinkChange {
                master: Some(bridge),
                ..LinkChange::default()
            },
        )
        .unwrap();
    assert_eq!(netlink.link("a").unwrap().unwrap().master, Some(bridge));
    netlink
        .set_link(
            port,
            &LinkChange {
                master: Some(0),
                ..LinkChange::default()
            },
        )
        .unwrap();
    assert_eq!(netlink.link("a").unwrap().unwrap().master, None);
    let bridge = netlink.link("br0").unwrap().unwrap();
    assert_eq!(
        (bridge.kind.as_deref(), bridge.mac, bridge.mtu, bridge.up),
        (Some("bridge"), Some(MAC), 1400, true)
    );
}

#[test]
fn a_link_changes_in_all_that_was_asked_and_nothing_else() {
    let host = TestNamespace::new("host");
    let mut netlink = host.netlink();
    let index = netlink
        .add_veth(&Veth {
            name: "a",
            peer_name: "b",
            ..Veth::default()
        })
        .unwrap();
    let before = netlink.link("a").unwrap().unwrap();
    netlink.set_link(index, &LinkChange::default()).unwrap();
    assert_eq!(netlink.link("a").unwrap().unwrap(), before);
    let change = LinkChange {
        mtu: Some(1300),
        name: Some("c".into()),
        mac: Some(MAC),
        ..LinkChange::default()
    };
    netlink.set_link(index, &change).unwrap();
    assert_eq!(netlink.link("a").unwrap(), None);
    let after = netlink.link("c").unwrap().unwrap();
    assert_eq!((after.mtu, after.mac, after.up), (1300, Some(MAC), false));
    let error = netlink
        .set_link(
            9999,
            &LinkChange {
                up: Some(true),
                ..LinkChange::default()
            },
        )
        .unwrap_err();
    assert!(error.is_not_found(), "{error}");
    assert!(
        error.to_string().starts_with("change link 9999: No such device"),
        "{error}"
    );
}

#[test]
fn a_link_comes_up_without_a_link_local_address_when_asked_to() {
    let a = TestNamespace::new("a");
    let b = TestNamespace::new("b");
    connect(
        (
            &a,
            End {
                name: "quiet",
                ..End::default()
            },
        ),
        (
            &b,
            End {
                name: "eth0",
                ..End::default()
            },
        ),
    );
    let mut netlink = a.netlink();
    let veth = Veth {
        name: "loud",
        peer_name: "peer",
        up: true,
        ..Veth::default()
    };
    let loud = netlink.add_veth(&veth).unwrap();
    let peer = netlink.require_link("peer").unwrap().index;
    netlink
        .set_link(
            peer,
            &LinkChange {
                up: Some(true),
                ..LinkChange::default()
            },
        )
        .unwrap();
    let quiet = netlink.require_link("quiet").unwrap().index;
    wait_for(
        Duration::from_secs(5),
        "the kernel's own link-local address",
        || {
            netlink
                .addresses()
                .unwrap()
                .iter()
                .any(|address| address.ifindex == loud)
        },
    );
    let addresses = netlink.addresses().unwrap();
    assert!(
        !addresses.iter().any(|address| address.ifindex == quiet),
        "{addresses:?}"
    );
}

#[test]
fn a_deleted_link_is_gone_and_its_name_free_when_the_call_returns() {
    let host = TestNamespace::new("host");
    let pod = TestNamespace::new("pod");
    let mut netlink = host.netlink();
    let mut inside = pod.netlink();
    let veth = Veth {
        name: "tmb0",
        peer_name: "eth0",
        peer_namespace: Some(pod.namespace()),
        up: true,
        ..Veth::default()
    };
    for _ in 0..20 {
        netlink.add_veth(&veth).unwrap();
        assert!(netlink.delete_link("tmb0").unwrap());
        assert_eq!(netlink.link("tmb0").unwrap(), None);
        assert_eq!(inside.link("eth0").unwrap(), None);
    }
    assert!(!netlink.delete_link("tmb0").unwrap());
}

#[test]
fn links_are_deleted_at_once_by_many() {
    let host = TestNamespace::new("host");
    let mut netlink = host.netlink();
    let names: Vec<_> = (0..40)
        .map(|number| (format!("a{number}"), format!("b{number}")))
        .collect();
    for (name, peer_name) in &names {
        netlink
            .add_veth(&Veth {
                name,
                peer_name,
                ..Veth::default()
            })
            .unwrap();
    }
    std::thread::scope(|scope| {
        for (name, peer) in &names {
            let mut netlink = host.netlink();
            scope.spawn(move || {
                assert!(netlink.delete_link(name).unwrap());
                assert_eq!(
                    (netlink.link(name).unwrap(), netlink.link(peer).unwrap()),
                    (None, None)
                );
            });
        }
    });
    assert_eq!(netlink.links().unwrap().len(), 1, "loopback");
}

#[test]
fn a_link_that_cannot_be_deleted_is_an_error() {
    let host = TestNamespace::new("host");
    let error = host.netlink().delete_link("lo").unwrap_err();
    assert!(error.to_string().starts_with("delete link lo: "), "{error}");
    assert_eq!(error.errno(), Some(Errno::EOPNOTSUPP));
    assert!(host.netlink().link("lo").unwrap().is_some());
}

#[test]
fn a_bridge_that_loses_a_port_does_not_pass_for_the_ports_end() {
    let host = TestNamespace::new("host");
    let mut netlink = host.netlink();
    for _ in 0..20 {
        let bridge = netlink
            .add_bridge(&Bridge {
                name: "br0",
                up: true,
                ..Bridge::default()
            })
            .unwrap();
        let port = netlink
            .add_veth(&Veth {
                name: "a",
                peer_name: "b",
                ..Veth::default()
            })
            .unwrap();
        netlink
            .set_link(
                port,
                &LinkChange {
                    master: Some(bridge),
                    ..LinkChange::default()
                },
            )
            .unwrap();
        assert!(netlink.delete_link("a").unwrap());
        assert_eq!(netlink.link("a").unwrap(), None);
        assert!(netlink.delete_link("br0").unwrap());
    }
}

#[test]
fn many_links_are_listed_whole_while_others_come_and_go() {
    let host = TestNamespace::new("host");
    let mut netlink = host.netlink();
    for number in 0..100 {
        let (name, peer_name) = (format!("a{number}"), format!("b{number}"));
        netlink
            .add_veth(&Veth {
                name: &name,
                peer_name: &peer_name,
                ..Veth::default()
            })
            .unwrap();
    }
    for _ in 0..20 {
        let links = std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut netlink = host.netlink();
                for _ in 0..3 {
                    netlink
                        .add_veth(&Veth {
                            name: "x",
                            peer_name: "y",
                            ..Veth::default()
                        })
                        .unwrap();
                    netlink.delete_link("x").unwrap();
                }
            });
            netlink.links().unwrap()
        });
        let stable = links
            .iter()
            .filter(|link| !["x", "y", "lo"].contains(&link.name.as_str()))
            .count();
        assert_eq!(stable, 200);
    }
}

#[test]
fn a_connection_stays_in_its_namespace() {
    let host = TestNamespace::new("host");
    let mut netlink = host.netlink();
    netlink
        .add_veth(&Veth {
            name: "only-here",
            peer_name: "peer",
            ..Veth::default()
        })
        .unwrap();
    assert!(netlink.namespace().same_as(host.namespace()).unwrap());
    let names = std::thread::spawn(move || netlink.links().unwrap().len())
        .join()
        .unwrap();
    assert_eq!(names, 3);
    let own = Namespace::current().unwrap();
    assert!(!own.same_as(host.namespace()).unwrap());
    assert_eq!(Netlink::open().unwrap().link("only-here").unwrap(), None);
}
