//! Addresses, neighbours and routes in the real kernel, in namespaces of the tests' own.

use std::net::IpAddr;

use ipnet::IpNet;
use nix::errno::Errno;
use tombolo_netlink::{AddressScope, Netlink, ROUTE_PROTOCOL, Route, RouteKind};
use tombolo_testkit::{End, Server, TestNamespace, ask_udp, connect};

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Two namespaces on one wire, the index of the first one's end, and a connection to it.
fn wire() -> (TestNamespace, TestNamespace, u32, Netlink) {
    let a = TestNamespace::new("a");
    let b = TestNamespace::new("b");
    let ends = [
        &["192.0.2.1/24", "2001:db8::1/64"],
        &["192.0.2.2/24", "2001:db8::2/64"],
    ];
    let (index, _) = connect(
        (
            &a,
            End {
                name: "eth0",
                addresses: ends[0],
                ..End::default()
            },
        ),
        (
            &b,
            End {
                name: "eth0",
                addresses: ends[1],
                ..End::default()
            },
        ),
    );
    let netlink = a.netlink();
    (a, b, index, netlink)
}

#[test]
fn addresses_of_both_families_come_and_go() {
    let (_a, _b, index, mut netlink) = wire();
    for text in ["10.1.2.3/32", "fd00:10::3/128", "169.254.1.1/32"] {
        netlink.add_address(index, net(text)).unwrap();
        netlink.add_address(index, net(text)).unwrap();
        let addresses = netlink.addresses().unwrap();
        let found: Vec<_> = addresses
            .iter()
            .filter(|address| address.address == net(text))
            .collect();
        assert_eq!(found.len(), 1, "{addresses:?}");
        let scope = if text.starts_with("169.254") {
            AddressScope::Link
        } else {
            AddressScope::Global
        };
        assert_eq!(
            (found[0].ifindex, found[0].scope, found[0].tentative),
            (index, scope, false)
        );
        assert!(netlink.delete_address(index, net(text)).unwrap());
        assert!(!netlink.delete_address(index, net(text)).unwrap());
        assert!(
            !netlink
                .addresses()
                .unwrap()
                .iter()
                .any(|address| address.address == net(text))
        );
    }
    let loopback: Vec<_> = netlink
        .addresses()
        .unwrap()
        .into_iter()
        .filter(|address| address.scope == AddressScope::Host)
        .collect();
    assert_eq!(
        loopback.iter().map(|address| address.address).collect::<Vec<_>>(),
        [net("127.0.0.1/8"), net("::1/128")]
    );
    let error = netlink.add_address(9999, net("10.1.2.3/32")).unwrap_err();
    assert!(
        error.is_not_found() && error.to_string().contains("add address 10.1.2.3/32 to link 9999"),
        "{error}"
    );
}

#[test]
fn neighbours_are_permanent_and_replaced() {
    let (_a, _b, index, mut netlink) = wire();
    for text in ["169.254.1.1", "fe80::1"] {
        for mac in [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]] {
            netlink.replace_neighbour(index, ip(text), mac).unwrap();
            let neighbours = netlink.neighbours().unwrap();
            let found: Vec<_> = neighbours
                .iter()
                .filter(|neighbour| neighbour.address == ip(text))
                .collect();
            assert_eq!(found.len(), 1, "{neighbours:?}");
            assert_eq!(
                (found[0].ifindex, found[0].mac, found[0].permanent),
                (index, Some(mac), true)
            );
        }
        assert!(netlink.delete_neighbour(index, ip(text)).unwrap());
        assert!(!netlink.delete_neighbour(index, ip(text)).unwrap());
    }
}

#[test]
fn routes_are_read_as_they_were_written() {
    let (_a, _b, index, mut netlink) = wire();
    let routes = [
        Route {
            ifindex: Some(index),
            ..Route::new(net("10.1.0.0/24"))
        },
        Route {
            gateway: Some(ip("192.0.2.2")),
            ifindex: Some(index),
            source: Some(ip("192.0.2.1")),
            ..Route::new(net("10.2.0.0/24"))
        },
        Route {
            gateway: Some(ip("192.0.2.2")),
            ifindex: Some(index),
            mtu: Some(1400),
            ..Route::new(net("10.3.0.0/16"))
        },
        Route {
            gateway: Some(ip("2001:db8::2")),
            ifindex: Some(index),
            ..Route::new(net("10.4.0.0/24"))
        },
        Route {
            gateway: Some(ip("169.254.1.1")),
            ifindex: Some(index),
            onlink: true,
            ..Route::new(net("0.0.0.0/0"))
        },
        Route::unreachable(net("10.5.0.0/24")),
        Route {
            ifindex: Some(index),
            ..Route::new(net("fd00:1::/64"))
        },
        Route {
            gateway: Some(ip("2001:db8::2")),
            ifindex: Some(index),
            source: Some(ip("2001:db8::1")),
            mtu: Some(1400),
            ..Route::new(net("fd00:2::/112"))
        },
        Route {
            gateway: Some(ip("fe80::1")),
            ifindex: Some(index),
            ..Route::new(net("::/0"))
        },
        Route::unreachable(net("fd00:5::/112")),
    ];
    for route in &routes {
        netlink.replace_route(route).unwrap();
        netlink.replace_route(route).unwrap();
    }
    let mut expected = routes.to_vec();
    expected.sort();
    let mut found = netlink.routes(ROUTE_PROTOCOL).unwrap();
    found.sort();
    assert_eq!(found, expected);
    assert!(
        netlink.routes(0).unwrap().len() > routes.len(),
        "the kernel has routes of its own"
    );
    for route in &routes {
        assert!(netlink.delete_route(route).unwrap(), "{route:?}");
        assert!(!netlink.delete_route(route).unwrap(), "{route:?}");
    }
    assert_eq!(netlink.routes(ROUTE_PROTOCOL).unwrap(), []);
}

#[test]
fn a_route_takes_the_place_of_any_other_to_the_same_destination() {
    let (_a, _b, index, mut netlink) = wire();
    for (destination, gateways) in [
        ("10.1.0.0/24", ["192.0.2.2", "192.0.2.3"]),
        ("fd00:1::/64", ["2001:db8::2", "2001:db8::3"]),
    ] {
        let destination = net(destination);
        let via = |gateway| Route {
            gateway: Some(ip(gateway)),
            ifindex: Some(index),
            ..Route::new(destination)
        };
        let steps = [
            Route::unreachable(destination),
            via(gateways[0]),
            via(gateways[1]),
            Route {
                ifindex: Some(index),
                ..Route::new(destination)
            },
            via(gateways[0]),
            Route::unreachable(destination),
            Route {
                ifindex: Some(index),
                mtu: Some(1400),
                ..Route::new(destination)
            },
        ];
        for step in steps {
            netlink.replace_route(&step).unwrap();
            let mut found = netlink.routes(ROUTE_PROTOCOL).unwrap();
            found.retain(|route| route.destination == destination);
            assert_eq!(found, [step]);
        }
    }
}

#[test]
fn a_route_of_others_is_neither_listed_nor_deleted() {
    let (a, _b, index, mut netlink) = wire();
    let foreign = a
        .command("ip")
        .args(["route", "add", "10.1.0.0/24", "via", "192.0.2.2"])
        .status()
        .unwrap();
    assert!(foreign.success());
    assert_eq!(netlink.routes(ROUTE_PROTOCOL).unwrap(), []);
    let route = Route {
        gateway: Some(ip("192.0.2.2")),
        ifindex: Some(index),
        ..Route::new(net("10.1.0.0/24"))
    };
    assert!(!netlink.delete_route(&route).unwrap());
    let all = netlink.routes(0).unwrap();
    assert!(
        all.iter()
            .any(|route| route.destination == net("10.1.0.0/24") && route.protocol == 3),
        "{all:?}"
    );
}

#[test]
fn errors_name_the_route_and_the_kernels_reason() {
    let (_a, _b, index, mut netlink) = wire();
    let route = Route {
        gateway: Some(ip("198.51.100.1")),
        ifindex: Some(index),
        ..Route::new(net("10.1.0.0/24"))
    };
    let error = netlink.replace_route(&route).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::ENETUNREACH));
    let text = error.to_string();
    assert!(
        text.starts_with("set route to 10.1.0.0/24: ") && text.contains("(Nexthop has invalid gateway)"),
        "{text}"
    );
    assert!(text.contains("add a route to it first, or use onlink"), "{text}");
    let route = Route {
        gateway: Some(ip("192.0.2.2")),
        ..Route::new(net("fd00::/64"))
    };
    let text = netlink.replace_route(&route).unwrap_err().to_string();
    assert_eq!(
        text,
        "set route to fd00::/64: an IPv6 route cannot have an IPv4 gateway"
    );
}

#[test]
fn the_kernel_tells_where_a_packet_would_go() {
    let (_a, _b, index, mut netlink) = wire();
    let on_link = netlink.route_to(ip("192.0.2.77")).unwrap().unwrap();
    assert_eq!(
        (on_link.ifindex, on_link.gateway, on_link.source),
        (index, None, Some(ip("192.0.2.1")))
    );
    let on_link = netlink.route_to(ip("2001:db8::77")).unwrap().unwrap();
    assert_eq!(
        (on_link.ifindex, on_link.gateway, on_link.source),
        (index, None, Some(ip("2001:db8::1")))
    );
    assert_eq!(netlink.route_to(ip("203.0.113.1")).unwrap(), None);
    assert_eq!(netlink.route_to(ip("2001:db8:ffff::1")).unwrap(), None);
    for (destination, gateway, to) in [
        ("0.0.0.0/0", "192.0.2.2", "203.0.113.1"),
        ("::/0", "2001:db8::2", "2001:db8:ffff::1"),
        ("198.51.100.0/24", "2001:db8::2", "198.51.100.1"),
    ] {
        let route = Route {
            gateway: Some(ip(gateway)),
            ifindex: Some(index),
            ..Route::new(net(destination))
        };
        netlink.replace_route(&route).unwrap();
        let reach = netlink.route_to(ip(to)).unwrap().unwrap();
        assert_eq!((reach.ifindex, reach.gateway), (index, Some(ip(gateway))));
    }
    for destination in ["203.0.113.0/24", "2001:db8:ffff::/48"] {
        netlink
            .replace_route(&Route::unreachable(net(destination)))
            .unwrap();
    }
    assert_eq!(netlink.route_to(ip("203.0.113.1")).unwrap(), None);
    assert_eq!(netlink.route_to(ip("2001:db8:ffff::1")).unwrap(), None);
}

#[test]
fn the_source_of_a_route_is_what_the_server_sees() {
    let (a, b, index, mut netlink) = wire();
    netlink.add_address(index, net("10.1.2.3/32")).unwrap();
    let route = Route {
        ifindex: Some(index),
        source: Some(ip("10.1.2.3")),
        ..Route::new(net("10.9.9.9/32"))
    };
    netlink.replace_route(&route).unwrap();
    let mut there = b.netlink();
    let eth0 = there.require_link("eth0").unwrap().index;
    there.add_address(eth0, net("10.9.9.9/32")).unwrap();
    there
        .replace_route(&Route {
            ifindex: Some(eth0),
            ..Route::new(net("10.1.2.3/32"))
        })
        .unwrap();
    let server = Server::start(&b, "10.9.9.9:0".parse().unwrap());
    assert_eq!(
        ask_udp(&a, server.address(), b"hello").unwrap().ip(),
        ip("10.1.2.3")
    );
}

#[test]
fn thousands_of_routes_are_listed_whole() {
    let (_a, _b, index, mut netlink) = wire();
    let mut expected = Vec::new();
    for number in 0..3000_u16 {
        let [high, low] = number.to_be_bytes();
        let mut route = Route {
            ifindex: Some(index),
            ..Route::new(net(&format!("10.{high}.{low}.0/24")))
        };
        if number % 2 == 0 {
            route.destination = net(&format!("fd00:{number:x}::/64"));
        }
        netlink.replace_route(&route).unwrap();
        expected.push(route);
    }
    expected.sort();
    let mut found = netlink.routes(ROUTE_PROTOCOL).unwrap();
    found.sort();
    assert_eq!(found, expected);
}

#[test]
fn kinds_of_others_are_kept_apart() {
    let (a, _b, _, mut netlink) = wire();
    for arguments in [
        "route add blackhole 10.1.0.0/24",
        "route add prohibit 10.2.0.0/24",
        "route add 10.3.0.0/24 via 192.0.2.2 table 100",
    ] {
        assert!(
            a.command("ip")
                .args(arguments.split(' '))
                .status()
                .unwrap()
                .success()
        );
    }
    let routes = netlink.routes(0).unwrap();
    let kind = |destination: &str| {
        routes
            .iter()
            .find(|route| route.destination == net(destination))
            .map(|route| route.kind)
    };
    assert_eq!(kind("10.1.0.0/24"), Some(RouteKind::Other(6)));
    assert_eq!(kind("10.2.0.0/24"), Some(RouteKind::Other(8)));
    assert_eq!(kind("10.3.0.0/24"), None, "another table");
    assert_eq!(netlink.route_to(ip("10.1.0.1")).unwrap(), None);
    assert_eq!(netlink.route_to(ip("10.2.0.1")).unwrap(), None);
}
