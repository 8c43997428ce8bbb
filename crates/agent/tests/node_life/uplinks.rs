//! Uplinks come, go, and change their names and MAC addresses.

use std::collections::BTreeSet;

use tombolo_netlink::{LinkChange, Mac, Veth};
use tombolo_testkit::wait_for;

use crate::common::fabric::{Fabric, addresses};
use crate::common::{DEADLINE, Node};
use crate::{Conversation, Running};

/// The devices besides pods' that have programs.
fn attached(node: &Node) -> BTreeSet<String> {
    let pins = std::fs::read_dir(node.pins().join("links")).unwrap();
    let names = pins.map(|e| e.unwrap().file_name().into_string().unwrap());
    let names = names.filter_map(|n| Some(n.rsplit_once('-')?.0.to_owned()));
    names.filter(|n| !n.starts_with("tmb")).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

/// How many packets the programs of a node's uplinks have taken to its pods.
fn delivered(node: &Node) -> u64 {
    let metrics = node.metrics();
    let line = metrics
        .lines()
        .find_map(|l| l.strip_prefix("tombolo_packets_total{hook=\"from_uplink\",outcome=\"delivered\"} "));
    line.map_or(0, |count| count.trim().parse().unwrap())
}

/// Waits until a connection goes on, and does so by the programs of the node's uplink: without them, the node's
/// stack would take the packets in.
#[track_caller]
fn must_go_on(talks: &mut [Conversation], node: &Node, what: &str) {
    for talk in talks {
        wait_for(DEADLINE, what, || {
            let before = delivered(node);
            talk.goes_on() && delivered(node) > before
        });
    }
}

#[test]
fn an_uplink_is_added_renamed_and_removed() {
    let fabric = Fabric::new("direct");
    let (one, two) = (fabric.node(1), fabric.node(2));
    let (a, b) = (Running::on(&one), Running::on(&two));
    let mut talks = Conversation::between(&a, &b);
    assert_eq!(attached(&one), set(&["eth0"]));

    // Another one, by a wire of its own.
    let mut netlink = one.namespace.netlink();
    let second = Veth {
        name: "eth1",
        peer_name: "wire",
        ..Veth::default()
    };
    let index = netlink.add_veth(&second).unwrap();
    netlink
        .set_link(
            index,
            &LinkChange {
                up: Some(true),
                ..LinkChange::default()
            },
        )
        .unwrap();
    netlink
        .add_address(index, "172.20.99.1/32".parse().unwrap())
        .unwrap();
    wait_for(DEADLINE, "the programs of the second uplink", || {
        attached(&one) == set(&["eth0", "eth1"])
    });

    let eth0 = netlink.require_link("eth0").unwrap().index;
    let rename = |netlink: &mut tombolo_netlink::Netlink, name: &str| {
        let name = Some(name.to_owned());
        netlink.set_link(
            eth0,
            &LinkChange {
                name,
                ..LinkChange::default()
            },
        )
    };
    if rename(&mut netlink, "lan.100").is_err() {
        // Before Linux 6.2 only what is down can be renamed, and then loses its routes and IPv6 addresses.
        let switch = |up| LinkChange {
            up: Some(up),
            ..LinkChange::default()
        };
        netlink.set_link(eth0, &switch(false)).unwrap();
        rename(&mut netlink, "lan.100").unwrap();
        one.settle("lan.100", &addresses(1, 11));
    }
    wait_for(DEADLINE, "the programs under the new name", || {
        attached(&one) == set(&["lan%2e100", "eth1"])
    });
    must_go_on(&mut talks, &one, "a connection over an uplink that was renamed");

    netlink.delete_link("eth1").unwrap();
    wait_for(DEADLINE, "the pins of the device that is gone to go", || {
        attached(&one) == set(&["lan%2e100"])
    });
    wait_for(DEADLINE, "only the uplink that is left to be published", || {
        let status = one.api.node(one.name()).status.unwrap();
        status.uplinks.iter().map(|u| u.name.as_str()).eq(["lan.100"])
    });
    must_go_on(&mut talks, &one, "a connection after another uplink was removed");
}

#[test]
fn another_device_takes_the_name_of_one_that_is_gone() {
    let fabric = Fabric::new("direct");
    let (mut one, two) = (fabric.node(1), fabric.node(2));
    let (a, b) = (Running::on(&one), Running::on(&two));
    let mut talks = Conversation::between(&a, &b);
    // Once while the agent runs, once while it does not.
    for round in 0..2 {
        if round == 1 {
            one.end_agent(nix::sys::signal::Signal::SIGKILL);
        }
        one.namespace.netlink().delete_link("eth0").unwrap();
        fabric.plug("port1", &one, "eth0");
        one.settle("eth0", &addresses(1, 11));
        if round == 1 {
            one.start_agent();
            one.wait_ready();
        }
        must_go_on(&mut talks, &one, "a connection over a device of the same name");
    }
}

#[test]
fn the_mac_of_an_uplink_changes() {
    const NEW: Mac = [0x02, 0xaa, 0xbb, 0xcc, 0xdd, 0xee];
    for routing in ["direct", "vxlan"] {
        let fabric = Fabric::new(routing);
        let (one, two) = (fabric.node(1), fabric.node(2));
        let (a, b) = (Running::on(&one), Running::on(&two));
        let mut talks: Vec<Conversation> = Conversation::between(&a, &b)
            .into_iter()
            .chain(Conversation::between(&b, &a))
            .collect();
        // That the neighbours learn of it is the matter of whoever changes it.
        one.namespace.sysctl("net/ipv4/conf/eth0/arp_notify", "1");
        one.namespace.sysctl("net/ipv6/conf/eth0/ndisc_notify", "1");
        let mut netlink = one.namespace.netlink();
        let eth0 = netlink.require_link("eth0").unwrap().index;
        netlink
            .set_link(
                eth0,
                &LinkChange {
                    mac: Some(NEW),
                    ..LinkChange::default()
                },
            )
            .unwrap();
        for talk in &mut talks {
            talk.must_go_on("a connection after the uplink got another MAC");
        }
        wait_for(DEADLINE, "the new MAC to be published", || {
            let status = one.api.node(one.name()).status.unwrap();
            status.uplinks[0].mac == "02:aa:bb:cc:dd:ee"
        });
    }
}
