//! CHECK: nothing to say of what is whole, whoever changed what; and the word for each thing that is not.

use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tombolo_abi::{Frontend, FrontendKey, Hook, Slab};
use tombolo_cni::host_link_name;
use tombolo_datapath::{Datapath, Options};
use tombolo_netlink::{LinkChange, ROUTE_PROTOCOL, Veth};
use tombolo_testkit::wait_for;

use crate::DUAL;
use crate::common::{Added, Call, DEADLINE, Node, Pod, silence};

/// The result of a chain whose later plugins did what the closure does.
fn amended(added: &Added, change: impl FnOnce(&mut Value)) -> Value {
    let mut result = added.printed.clone();
    change(&mut result);
    result
}

fn pod_link(pod: &Pod) -> u32 {
    pod.namespace.netlink().require_link("eth0").unwrap().index
}

#[test]
fn what_is_whole_passes_in_every_version() {
    let node = Node::start(&DUAL);
    for version in ["0.4.0", "1.0.0", "1.1.0"] {
        let pod = Pod::new();
        let path = pod.namespace.path();
        let add = Call {
            version,
            ..Call::new("ADD", &pod.id, &path)
        };
        let added = node.add_by(&add).unwrap();
        let check = Call {
            version,
            config: json!({ "prevResult": added.printed }),
            ..Call::new("CHECK", &pod.id, &path)
        };
        silence(&node.call(&check)).unwrap_or_else(|error| panic!("{version}: {error}"));
    }
}

#[test]
fn what_later_plugins_change_is_theirs() {
    let node = Node::start(&DUAL);
    let pod = Pod::new();
    let added = node.add(&pod).unwrap();
    let mut netlink = pod.namespace.netlink();
    let index = pod_link(&pod);
    // As `tuning` does: another MAC, which it tells; another MTU, which it does not.
    let change = LinkChange {
        mac: Some([0x02, 0, 0, 0, 0, 0x77]),
        mtu: Some(1300),
        ..LinkChange::default()
    };
    netlink.set_link(index, &change).unwrap();
    // The kernel forgets all neighbours then, so whoever changes a MAC here has to see to the gateways.
    for gateway in ["169.254.1.1", "fe80::1"] {
        let address: IpAddr = gateway.parse().unwrap();
        netlink
            .replace_neighbour(index, address, tombolo_abi::GATEWAY_MAC)
            .unwrap();
    }
    // And others: an interface of theirs, an address on ours, a default route by theirs.
    let pair = Veth {
        name: "net1",
        peer_name: "net2",
        ..Veth::default()
    };
    let other = netlink.add_veth(&pair).unwrap();
    netlink
        .set_link(
            other,
            &LinkChange {
                up: Some(true),
                ..LinkChange::default()
            },
        )
        .unwrap();
    netlink
        .add_address(index, "192.0.2.7/24".parse().unwrap())
        .unwrap();
    netlink
        .add_address(other, "198.51.100.7/24".parse().unwrap())
        .unwrap();
    netlink
        .replace_route(&tombolo_netlink::Route {
            ifindex: Some(other),
            ..tombolo_netlink::Route::new("0.0.0.0/0".parse().unwrap())
        })
        .unwrap();
    let sandbox = pod.namespace.path();
    let result = amended(&added, |result| {
        let interfaces = result["interfaces"].as_array_mut().unwrap();
        interfaces[1]["mac"] = json!("02:00:00:00:00:77");
        interfaces.insert(0, json!({ "name": "net2", "sandbox": sandbox }));
        interfaces.push(json!({ "name": "net1", "sandbox": sandbox }));
        let ips = result["ips"].as_array_mut().unwrap();
        for ip in ips.iter_mut() {
            ip["interface"] = json!(2);
        }
        ips.insert(0, json!({ "address": "192.0.2.7/24", "interface": 2 }));
        ips.push(json!({ "address": "198.51.100.7/24", "interface": 3 }));
        result["routes"][1] = json!({ "dst": "0.0.0.0/0" });
        result["dns"] = json!({ "nameservers": ["192.0.2.53"] });
    });
    node.check(&pod, &result).unwrap();
    // A MAC that nobody told is another matter.
    let error = node.check(&pod, &added.printed).unwrap_err();
    assert!(
        error["details"].as_str().unwrap().contains("02:00:00:00:00:77"),
        "{error}"
    );
}

type Damage = (&'static str, fn(&Node, &Pod, &Added));

/// What is done to a pod, and the words that must be in the answer.
const DAMAGES: &[Damage] = &[
    ("the node has no link tmb", |node, pod, _| {
        let name = host_link_name(&pod.id, "eth0");
        node.namespace.netlink().delete_link(&name).unwrap();
    }),
    ("is down", |node, pod, _| {
        set_up(&node.namespace, &host_link_name(&pod.id, "eth0"), false)
    }),
    ("has no program from_pod", |node, pod, _| {
        forget(node, pod, Hook::FromPod)
    }),
    ("has no program to_pod", |node, pod, _| {
        forget(node, pod, Hook::ToPod)
    }),
    ("ENDPOINTS has no row of 10.244.1.", |node, _, added| {
        let key = added.address(true).into();
        with_tables(node, |tables| assert!(tables.endpoints().remove(&key).unwrap()));
    }),
    ("in ENDPOINTS names link 1 with", |node, _, added| {
        let key = added.address(false).into();
        with_tables(node, |tables| {
            let row = tables.endpoints().get(&key).unwrap().unwrap();
            let other = tombolo_abi::Endpoint { ifindex: 1, ..row };
            tables.endpoints().insert(&key, &other).unwrap();
        });
    }),
    (
        "FRONTENDS has no row of host port 8080/TCP (IPv6)",
        |node, _, _| {
            with_tables(node, |tables| {
                let key = host_port(false);
                assert!(tables.frontends().remove(&key).unwrap());
            });
        },
    ),
    (
        "host port 8080/TCP (IPv4) leads to nobody instead of 10.244.1.",
        |node, _, _| {
            with_tables(node, |tables| {
                let row = tables.frontends().get(&host_port(true)).unwrap().unwrap();
                let other = Frontend {
                    external: Slab::NONE,
                    ..row
                };
                tables.frontends().insert(&host_port(true), &other).unwrap();
            });
        },
    ),
    ("the node has no route to fd00:", |node, _, added| {
        let mut netlink = node.namespace.netlink();
        let routes = netlink.routes(ROUTE_PROTOCOL).unwrap().into_iter();
        let mut to_pod = routes.filter(|r| r.destination.addr() == added.address(false));
        assert!(netlink.delete_route(&to_pod.next().unwrap()).unwrap());
    }),
    (
        "the node has no permanent neighbour 10.244.1.",
        |node, pod, added| {
            let mut netlink = node.namespace.netlink();
            let link = netlink.require_link(&host_link_name(&pod.id, "eth0")).unwrap();
            assert!(netlink.delete_neighbour(link.index, added.address(true)).unwrap());
        },
    ),
    ("interface eth0 of the pod is down", |_, pod, _| {
        set_up(&pod.namespace, "eth0", false)
    }),
    (
        "interface eth0 of the pod does not have 10.244.1.",
        |_, pod, added| {
            ip(
                pod,
                &[
                    "address",
                    "delete",
                    &added.address(true).to_string(),
                    "dev",
                    "eth0",
                ],
            );
        },
    ),
    ("the pod has no permanent neighbour fe80::1", |_, pod, _| {
        ip(pod, &["-6", "neighbour", "delete", "fe80::1", "dev", "eth0"]);
    }),
    ("the pod has no route to 0.0.0.0/0", |_, pod, _| {
        ip(pod, &["route", "delete", "default"])
    }),
    ("is not the other side of tmb", |_, pod, added| {
        // Somebody has put an interface of his own in its place.
        ip(pod, &["link", "set", "eth0", "down"]);
        ip(pod, &["link", "set", "eth0", "name", "old"]);
        let mac = pod.namespace.netlink().require_link("old").unwrap().mac;
        let pair = Veth {
            name: "eth0",
            mac,
            peer_name: "eth9",
            ..Veth::default()
        };
        pod.namespace.netlink().add_veth(&pair).unwrap();
        let _ = added;
    }),
    ("the pod has no interface eth0", |_, pod, _| {
        ip(pod, &["link", "set", "eth0", "down"]);
        ip(pod, &["link", "set", "eth0", "name", "old"]);
    }),
];

fn host_port(v4: bool) -> FrontendKey {
    let any: IpAddr = if v4 { "0.0.0.0" } else { "::" }.parse().unwrap();
    FrontendKey {
        address: any.into(),
        port: 8080_u16.to_be(),
        protocol: 6,
        pad: 0,
    }
}

fn set_up(namespace: &tombolo_testkit::TestNamespace, name: &str, up: bool) {
    let mut netlink = namespace.netlink();
    let link = netlink.require_link(name).unwrap();
    let change = LinkChange {
        up: Some(up),
        ..LinkChange::default()
    };
    netlink.set_link(link.index, &change).unwrap();
}

fn run(mut command: Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

fn ip(pod: &Pod, arguments: &[&str]) {
    let mut command = pod.namespace.command("ip");
    command.args(arguments);
    run(command);
}

/// Takes away the pin by which an attachment outlives the agent. (What is taken off the link itself comes back within
/// a moment.)
pub fn forget(node: &Node, pod: &Pod, hook: Hook) {
    let name = format!("{}-{}", host_link_name(&pod.id, "eth0"), hook.word());
    std::fs::remove_file(node.pins().join("links").join(name)).unwrap();
}

/// The node's tables, for writing.
pub fn with_tables(node: &Node, work: impl FnOnce(&Datapath) + Send) {
    let options = Options {
        directory: node.pins(),
        ..Options::default()
    };
    node.namespace.run(|| work(&Datapath::load(&options).unwrap()));
}

#[test]
fn what_is_taken_off_a_link_comes_back() {
    let node = Node::start(&DUAL);
    let pod = Pod::new();
    let added = node.add(&pod).unwrap();
    let name = host_link_name(&pod.id, "eth0");
    for arguments in [
        vec!["filter", "delete", "dev", &name, "ingress"],
        vec!["filter", "delete", "dev", &name, "egress"],
        vec!["qdisc", "delete", "dev", &name, "clsact"],
    ] {
        let mut command = node.namespace.command("tc");
        command.args(&arguments);
        run(command);
        wait_for(DEADLINE, &format!("the programs after {arguments:?}"), || {
            node.check(&pod, &added.printed).is_ok()
        });
    }
}

#[test]
fn what_differs_is_named() {
    let node = Node::start(&DUAL);
    let whole = Pod::new();
    let added_whole = node.add(&whole).unwrap();
    for (words, damage) in DAMAGES {
        let pod = Pod::new();
        let added = node.add_with(&pod, &[(8080, 80, "", "tcp")]).unwrap();
        node.check(&pod, &added.printed).unwrap();
        damage(&node, &pod, &added);
        let error = node
            .check(&pod, &added.printed)
            .expect_err(&format!("{words}: nothing was found"));
        assert_eq!(error["code"], json!(105), "{error}");
        let details = error["details"].as_str().unwrap();
        assert!(details.contains(words), "{words:?} is not in {details:?}");
        assert!(details.contains(&pod.id), "{details:?} does not say which pod");
        // It can be deleted all the same, and is no other pod's trouble.
        node.del(&pod);
        node.check(&whole, &added_whole.printed).unwrap();
    }
    node.expect_only(&[(&whole, &added_whole)]);
}

#[test]
fn a_result_that_is_not_of_this_attachment_is_named() {
    let node = Node::start(&DUAL);
    let (pod, other) = (Pod::new(), Pod::new());
    let added = node.add(&pod).unwrap();
    let added_other = node.add(&other).unwrap();
    let with = |address: IpAddr| {
        amended(&added, |result| {
            result["ips"][0]["address"] = json!(format!("{address}/32"));
        })
    };
    for wrong in [added_other.address(true), "10.244.1.99".parse().unwrap()] {
        let error = node.check(&pod, &with(wrong)).unwrap_err();
        assert_eq!(error["code"], json!(105));
        let details = error["details"].as_str().unwrap();
        assert!(
            details.contains(&format!("prevResult lists {wrong}")),
            "{details}"
        );
    }
    let nothing = amended(&added, |result| result["ips"] = json!([]));
    let error = node.check(&pod, &nothing).unwrap_err();
    let details = error["details"].as_str().unwrap();
    assert!(details.contains("lists none of the addresses"), "{details}");
}

#[test]
fn what_is_not_there_at_all_needs_no_clean_up() {
    let node = Node::start(&DUAL);
    let pod = Pod::new();
    let added = node.add(&pod).unwrap();
    node.del(&pod);
    let error = node.check(&pod, &added.printed).unwrap_err();
    assert_eq!(error["code"], json!(3), "{error}");

    // A link of its name is something to clean up.
    let name = host_link_name(&pod.id, "eth0");
    let pair = Veth {
        name: &name,
        peer_name: "other",
        ..Veth::default()
    };
    node.namespace.netlink().add_veth(&pair).unwrap();
    let error = node.check(&pod, &added.printed).unwrap_err();
    assert_eq!(error["code"], json!(105), "{error}");

    let gone = Call {
        config: json!({ "prevResult": added.printed }),
        ..Call::new("CHECK", &pod.id, Path::new("/run/netns/none-of-that-name"))
    };
    let error = silence(&node.call(&gone)).unwrap_err();
    assert_eq!(
        error["code"],
        json!(105),
        "its sandbox is not in the result: {error}"
    );
}
