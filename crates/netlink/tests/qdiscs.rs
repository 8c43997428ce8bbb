//! Queueing disciplines and filters of the real kernel, set up by its own tool `tc`.

use std::time::Duration;

use tombolo_netlink::{Direction, Event, Monitor, Netlink, Veth};
use tombolo_testkit::TestNamespace;

#[test]
fn qdiscs_tell_who_shapes_a_link() {
    let host = TestNamespace::new("host");
    let mut netlink = host.netlink();
    let index = netlink
        .add_veth(&Veth {
            name: "a",
            peer_name: "b",
            up: true,
            ..Veth::default()
        })
        .unwrap();
    let kinds = |netlink: &mut Netlink| -> Vec<(String, bool)> {
        netlink
            .qdiscs()
            .unwrap()
            .into_iter()
            .filter(|qdisc| qdisc.ifindex == index)
            .map(|qdisc| (qdisc.kind, qdisc.root))
            .collect()
    };
    assert_eq!(kinds(&mut netlink), [("noqueue".into(), true)]);
    let tc = |args: &[&str]| assert!(host.command("tc").args(args).status().unwrap().success());
    tc(&[
        "qdisc", "add", "dev", "a", "root", "tbf", "rate", "1mbit", "burst", "10kb", "latency", "1ms",
    ]);
    tc(&["qdisc", "add", "dev", "a", "ingress"]);
    assert_eq!(
        kinds(&mut netlink),
        [("tbf".into(), true), ("ingress".into(), false)]
    );
}

#[test]
fn filters_are_found_and_all_of_it_is_told() {
    let host = TestNamespace::new("host");
    let mut netlink = host.netlink();
    let index = netlink
        .add_veth(&Veth {
            name: "a",
            peer_name: "b",
            up: true,
            ..Veth::default()
        })
        .unwrap();
    let mut monitor = Monitor::open_in(host.namespace()).unwrap();
    let filters = |netlink: &mut Netlink, direction| netlink.filters(index, direction).unwrap();
    assert_eq!(filters(&mut netlink, Direction::Ingress), []);
    assert_eq!(netlink.filters(4711, Direction::Ingress).unwrap(), []);

    let tc = |text: &str| {
        let status = host.command("tc").args(text.split(' ')).status().unwrap();
        assert!(status.success(), "tc {text}");
    };
    // Mirred needs a device to go to.
    let to_b = "u32 match u32 0 0 action mirred egress redirect dev b";
    tc("qdisc add dev a root tbf rate 1mbit burst 10kb latency 1ms");
    tc("qdisc add dev a ingress");
    tc(&format!(
        "filter add dev a parent ffff: protocol all prio 7 {to_b}"
    ));
    let found = filters(&mut netlink, Direction::Ingress);
    assert!(!found.is_empty());
    for filter in &found {
        assert_eq!(
            (filter.ifindex, &*filter.kind, filter.priority),
            (index, "u32", 7)
        );
    }
    tc("qdisc del dev a ingress");
    tc("qdisc add dev a clsact");
    tc(&format!("filter add dev a egress protocol all prio 9 {to_b}"));
    assert_eq!(filters(&mut netlink, Direction::Ingress), []);
    assert_eq!(filters(&mut netlink, Direction::Egress)[0].priority, 9);
    tc("filter del dev a egress prio 9");
    tc("qdisc del dev a root");

    // All of it was told.
    let mut told = Vec::new();
    let tbf_removed = |event: &Event| matches!(event, Event::QdiscRemoved(qdisc) if qdisc.kind == "tbf");
    while !told.last().is_some_and(tbf_removed) {
        let event = monitor.next(Duration::from_secs(10)).unwrap();
        let event = event.unwrap_or_else(|| panic!("no more was told than {told:?}"));
        told.extend((event != Event::Overrun).then_some(event));
    }
    let qdiscs = |kind: &str| {
        let is_it =
            |e: &&Event| matches!(e, Event::Qdisc(qdisc) if qdisc.kind == kind && qdisc.ifindex == index);
        told.iter().filter(is_it).count()
    };
    assert_eq!(["tbf", "ingress", "clsact"].map(qdiscs), [1, 1, 1], "{told:?}");
    let filters = |priority: u16| {
        let new = |e: &&Event| matches!(e, Event::Filter(f) if f.priority == priority && f.ifindex == index);
        told.iter().filter(new).count()
    };
    assert_eq!([7, 9].map(filters), [1, 1], "{told:?}");
    let removed = |e: &Event| matches!(e, Event::FilterRemoved(f) if f.priority == 9);
    assert!(told.iter().any(removed), "{told:?}");
}
