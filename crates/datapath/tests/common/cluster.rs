//! A small cluster, as node 1 sees it:
//!
//! | node | its pods | its address | way |
//! | --- | --- | --- | --- |
//! | 1 | 10.244.1.0/24: `A` .5, `B` .6 | 172.20.1.11 | here |
//! | 2 | 10.244.2.0/24 | 172.20.1.12 | direct, on the same link |
//! | 3 | 10.244.3.0/24 | 172.20.2.13 | overlay |
//! | 4 | 10.244.4.0/24 | 172.20.3.14 | direct, past the router 172.20.1.1 |
//!
//! and the same in IPv6 below fd00:10:244:<node>:: and fd00:20:<segment>::.

use std::{collections::BTreeMap, net::IpAddr};

use tombolo_abi::{Addr, Config, Counter, Endpoint, Hook, MacKey, Outcome, Route, RouteKey, RouteKind, Way};
use tombolo_datapath::{Datapath, Packet, Run};

use super::{
    bed::{Bed, ifindex, run},
    frame::{Frame, POD_MAC, ip},
};

pub const POD_B_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xb];
pub const NODE_2_MAC: [u8; 6] = [2, 0, 0, 0, 2, 0];
pub const NODE_4_MAC: [u8; 6] = [2, 0, 0, 0, 4, 0];
pub const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 9, 9];
pub const MTU: u16 = 1450;
pub const OVERLAY_PORT: u16 = 8472;

pub const DROP: i32 = 2;
pub const NEXT: i32 = -1;
pub const REDIRECT: i32 = 7;

/// One family's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    pub v4: bool,
    pub a: &'static str,
    pub b: &'static str,
    /// In the own block, and nobody's.
    pub nobody: &'static str,
    pub node: &'static str,
    pub pod_2: &'static str,
    pub node_2: &'static str,
    pub pod_3: &'static str,
    pub node_3: &'static str,
    pub pod_4: &'static str,
    pub outside: &'static str,
}

pub const V4: Family = Family {
    v4: true,
    a: "10.244.1.5",
    b: "10.244.1.6",
    nobody: "10.244.1.77",
    node: "172.20.1.11",
    pod_2: "10.244.2.5",
    node_2: "172.20.1.12",
    pod_3: "10.244.3.5",
    node_3: "172.20.2.13",
    pod_4: "10.244.4.5",
    outside: "198.51.100.10",
};

pub const V6: Family = Family {
    v4: false,
    a: "fd00:10:244:1::5",
    b: "fd00:10:244:1::6",
    nobody: "fd00:10:244:1::77",
    node: "fd00:20:1::11",
    pod_2: "fd00:10:244:2::5",
    node_2: "fd00:20:1::12",
    pod_3: "fd00:10:244:3::5",
    node_3: "fd00:20:2::13",
    pod_4: "fd00:10:244:4::5",
    outside: "2001:db8:100::10",
};

pub const FAMILIES: [Family; 2] = [V4, V6];

/// The tables' rows for a prefix.
pub fn row(
    prefix: &str,
    node: u32,
    kind: RouteKind,
    way: Way,
    ifindex: u32,
    next_hop: &str,
) -> (RouteKey, Route) {
    let (address, len) = prefix.split_once('/').unwrap();
    let address = ip(address);
    let prefix_len = len.parse::<u32>().unwrap() + if address.is_ipv4() { 96 } else { 0 };
    let next_hop = if next_hop.is_empty() {
        Addr::UNSPECIFIED
    } else {
        ip(next_hop).into()
    };
    (
        RouteKey {
            prefix_len,
            addr: Addr::from(address).masked(prefix_len),
        },
        Route {
            node,
            kind: kind as u8,
            way: way as u8,
            mtu: MTU,
            ifindex,
            next_hop,
            ..Route::default()
        },
    )
}

pub struct Cluster {
    pub datapath: Datapath,
    /// Host side of the pods' links.
    pub link_a: u32,
    pub link_b: u32,
    pub uplink: u32,
    pub overlay: u32,
}

impl Cluster {
    /// Devices and tables in a bed; nothing is attached.
    pub fn new(bed: &Bed) -> Self {
        for pair in ["tmba pod_a", "tmbb pod_b", "up0 wire0", "tombolo_vxlan x"] {
            let (one, other) = pair.split_once(' ').unwrap();
            run(&format!("ip link add {one} type veth peer name {other}"));
        }
        Self::on_devices(bed.load())
    }

    /// Tables for devices that are there.
    pub fn on_devices(datapath: Datapath) -> Self {
        let [link_a, link_b, uplink, overlay] = ["tmba", "tmbb", "up0", "tombolo_vxlan"].map(ifindex);
        datapath
            .set_config(&Config {
                node: 1,
                overlay_ifindex: overlay,
                node_v4: ip(V4.node).into(),
                node_v6: ip(V6.node).into(),
                prefix_lens: [120, 112, 128, 0, 0, 0, 0, 0],
                overlay_port: OVERLAY_PORT.to_be(),
                flags: 0,
            })
            .unwrap();
        let endpoint = |ifindex, mac| Endpoint {
            ifindex,
            mac,
            mtu: MTU,
            flags: 0,
        };
        let endpoints = FAMILIES.iter().flat_map(|f| {
            [
                (ip(f.a).into(), endpoint(link_a, POD_MAC)),
                (ip(f.b).into(), endpoint(link_b, POD_B_MAC)),
            ]
        });
        datapath.endpoints().reconcile(&endpoints.collect()).unwrap();
        let (pods, node) = (RouteKind::Pods, RouteKind::Node);
        let routes = [
            row("10.244.1.0/24", 1, pods, Way::Local, 0, ""),
            row("172.20.1.11/32", 1, node, Way::Local, 0, ""),
            row("fd00:10:244:1::/112", 1, pods, Way::Local, 0, ""),
            row("fd00:20:1::11/128", 1, node, Way::Local, 0, ""),
            row("10.244.2.0/24", 2, pods, Way::Direct, uplink, V4.node_2),
            row("172.20.1.12/32", 2, node, Way::Direct, uplink, V4.node_2),
            row("fd00:10:244:2::/112", 2, pods, Way::Direct, uplink, V6.node_2),
            row("fd00:20:1::12/128", 2, node, Way::Direct, uplink, V6.node_2),
            row("10.244.3.0/24", 3, pods, Way::Overlay, overlay, V4.node_3),
            row("172.20.2.13/32", 3, node, Way::Overlay, overlay, V4.node_3),
            row("fd00:10:244:3::/112", 3, pods, Way::Overlay, overlay, V4.node_3),
            row("fd00:20:2::13/128", 3, node, Way::Overlay, overlay, V4.node_3),
            row("10.244.4.0/24", 4, pods, Way::Direct, uplink, "172.20.1.1"),
            row("172.20.3.14/32", 4, node, Way::Direct, uplink, "172.20.1.1"),
            row(
                "fd00:10:244:4::/112",
                4,
                pods,
                Way::Direct,
                uplink,
                "fd00:20:1::1",
            ),
            row("fd00:20:3::14/128", 4, node, Way::Direct, uplink, "fd00:20:1::1"),
        ];
        datapath.routes().reconcile(&routes.into()).unwrap();
        let macs = [(2, NODE_2_MAC), (4, NODE_4_MAC)];
        let macs = macs.map(|(node, mac)| {
            (
                MacKey {
                    node,
                    mac,
                    pad: [0; 2],
                },
                1,
            )
        });
        datapath.uplink_macs().reconcile(&macs.into()).unwrap();
        Self {
            datapath,
            link_a,
            link_b,
            uplink,
            overlay,
        }
    }

    /// Has the programs encapsulate by themselves: the way to overlay nodes is past the router 172.20.1.1.
    pub fn know_the_underlay(&self) {
        let mut rows = self.datapath.routes().entries().unwrap();
        for row in rows.values_mut().filter(|row| row.way == Way::Overlay as u8) {
            row.underlay_ifindex = self.uplink;
            row.underlay_next_hop = ip("172.20.1.1").into();
        }
        self.datapath.routes().reconcile(&rows).unwrap();
    }

    /// The device at which a hook's packets are.
    pub fn device(&self, hook: Hook) -> u32 {
        match hook {
            Hook::FromPod | Hook::ToPod => self.link_a,
            Hook::FromOverlay | Hook::ToOverlay => self.overlay,
            Hook::FromUplink | Hook::ToUplink => self.uplink,
        }
    }

    /// Runs a packet, and asserts the verdict and *all* counters.
    #[track_caller]
    pub fn expect(&self, hook: Hook, frame: &Frame, action: i32, outcome: Outcome) -> Run {
        self.expect_bytes(hook, &frame.build(), 0, action, outcome, &format!("{frame:?}"))
    }

    #[track_caller]
    pub fn expect_bytes(
        &self,
        hook: Hook,
        bytes: &[u8],
        gso_size: u32,
        action: i32,
        outcome: Outcome,
        what: &str,
    ) -> Run {
        let before = self.counters();
        let packet = Packet {
            frame: bytes,
            ifindex: self.device(hook),
            gso_size,
            repeat: 0,
        };
        let run = self.datapath.test_run(hook, &packet).unwrap();
        let mut wanted = before;
        let counter = wanted.entry((hook, outcome)).or_default();
        counter.packets += 1;
        counter.bytes += bytes.len() as u64;
        let found = self.counters();
        assert!(
            found == wanted && run.action == action,
            "at {} wanted {} and action {action}, got action {}\npacket: {what}\ncounters wanted: {wanted:?}\n{}",
            hook.word(),
            outcome.word(),
            run.action,
            self.state(),
        );
        run
    }

    pub fn counters(&self) -> BTreeMap<(Hook, Outcome), Counter> {
        self.datapath
            .counters()
            .unwrap()
            .into_iter()
            .map(|(h, o, c)| ((h, o), c))
            .collect()
    }

    /// Packets per hook and outcome.
    pub fn packets(&self) -> BTreeMap<(Hook, Outcome), u64> {
        self.counters()
            .into_iter()
            .map(|(key, counter)| (key, counter.packets))
            .collect()
    }

    /// All that there is to say.
    pub fn state(&self) -> String {
        let mut text = "the datapath holds:\n".to_owned();
        for ((hook, outcome), counter) in self.counters() {
            text += &format!("  {} {}: {counter:?}\n", hook.word(), outcome.word());
        }
        text += &format!("  {:?}\n", self.datapath.config().unwrap());
        for (address, endpoint) in self.datapath.endpoints().entries().unwrap() {
            text += &format!("  {}: {endpoint:?}\n", IpAddr::from(address));
        }
        for (key, route) in self.datapath.routes().entries().unwrap() {
            let hop = IpAddr::from(route.next_hop);
            text += &format!(
                "  {}/{}: {route:?} via {hop}\n",
                IpAddr::from(key.addr),
                key.prefix_len
            );
        }
        text
    }
}
