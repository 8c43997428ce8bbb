//! The Services that change, as the API is to have them, and what is next for each.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};
use serde_json::{Value, json};

/// How many kinds of changes there are.
pub const WAYS: usize = 9;

/// The most endpoints of a Service in each family.
const ENDPOINTS: usize = 6;

/// How long nodes may take for what came last.
const DEADLINE: Duration = Duration::from_secs(20);

/// What belongs to Services that do not change.
pub struct Others {
    /// Addresses of the pods behind them. These are endpoints here, too.
    pub servers: Vec<IpAddr>,
    /// Their own addresses. These are claimed here, by who is younger.
    pub services: Vec<IpAddr>,
}

/// All of them.
pub struct Model {
    services: Vec<Changing>,
    others: Others,
    seed: u64,
}

/// A part of them, and what is drawn for it.
pub struct Share<'a> {
    services: &'a mut [Changing],
    draw: Draw<'a>,
}

/// One.
pub struct Changing {
    pub name: String,
    there: bool,
    kind: Kind,
    affinity: bool,
    /// Whether it claims what is somebody else's.
    claims: Option<IpAddr>,
    /// The one at which it is asked, and its endpoints'.
    port: u16,
    target: u16,
    endpoints: [BTreeMap<IpAddr, Condition>; 2],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    ClusterIp,
    NodePort,
    LoadBalancer,
    ExternalName,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    Ready,
    NotReady,
    /// Terminates, and serves still.
    Draining,
    Ending,
}

/// What is to be written: the whole Service, or a part of it.
pub enum Write {
    CreateService(Value),
    PatchService(Value),
    DeleteService,
    /// Its slices, both of them.
    CreateSlices,
    PatchSlice(usize),
    DeleteSlices,
}

/// A source of choices.
struct Draw<'a> {
    random: TestRng,
    others: &'a Others,
}

impl Model {
    pub fn new(seed: u64, count: usize, others: Others) -> Self {
        Self {
            services: (0..count).map(Changing::new).collect(),
            others,
            seed,
        }
    }

    /// So many shares of them, of which no two have anything in common.
    pub fn shares(&mut self, count: usize) -> impl Iterator<Item = Share<'_>> {
        self.seed = self.seed.wrapping_add(1);
        let (seed, others) = (self.seed, &self.others);
        let most = self.services.len().div_ceil(count);
        let shares = self.services.chunks_mut(most).enumerate();
        shares.map(move |(number, services)| Share {
            services,
            draw: Draw::new(seed, number as u64, others),
        })
    }

    /// All nodes have come to what is wanted.
    #[track_caller]
    pub fn assert_programmed<const N: usize>(
        &self,
        look: impl Fn() -> [BTreeMap<String, BTreeSet<SocketAddr>>; N],
    ) {
        let wanted = self.services.iter().filter(|s| s.is_programmed());
        let wanted: BTreeMap<String, BTreeSet<SocketAddr>> = wanted
            .map(|s| (format!("default/{}", s.name), s.backends()))
            .collect();
        let deadline = Instant::now() + DEADLINE;
        loop {
            let mut found = look();
            for node in &mut found {
                node.retain(|name, _| name.starts_with("default/changing-"));
            }
            if found.iter().all(|node| *node == wanted) {
                return;
            }
            if Instant::now() > deadline {
                for (node, found) in found.iter().enumerate() {
                    let names: BTreeSet<&String> = wanted.keys().chain(found.keys()).collect();
                    for name in names {
                        assert_eq!(found.get(name), wanted.get(name), "{name} at node {}", node + 1);
                    }
                }
            }
        }
    }
}

impl<'a> Draw<'a> {
    fn new(seed: u64, share: u64, others: &'a Others) -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        bytes[8..].copy_from_slice(&share.to_le_bytes());
        let random = TestRng::from_seed(RngAlgorithm::XorShift, &bytes);
        Self { random, others }
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.random.next_u64() % limit as u64) as usize
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// One of a server of others, or one that nobody has.
    fn address(&mut self, family: usize) -> IpAddr {
        let servers = self.others.servers.iter();
        let servers: Vec<IpAddr> = servers
            .filter(|a| a.is_ipv4() == (family == 0))
            .copied()
            .collect();
        if self.below(3) == 0 {
            return self.of(&servers);
        }
        let host = self.below(250) as u16 + 1;
        match family {
            0 => Ipv4Addr::new(192, 0, 2, host as u8).into(),
            _ => Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, host).into(),
        }
    }

    /// That of others' servers as a rule, so that these are backends by as many names.
    fn target_port(&mut self) -> u16 {
        self.of(&[7070, 7070, 8080])
    }
}

impl Share<'_> {
    /// Has each of them begin.
    pub fn begin(&mut self) -> impl Iterator<Item = (&Changing, Vec<Write>)> {
        let draw = &mut self.draw;
        self.services.iter_mut().map(|service| {
            let writes = service.begin(draw);
            (&*service, writes)
        })
    }

    /// Draws what changes next, how, and what to write in this order.
    pub fn change(&mut self) -> (&Changing, &'static str, Vec<Write>) {
        let at = self.draw.below(self.services.len());
        let service = &mut self.services[at];
        let (what, writes) = service.change(&mut self.draw);
        (service, what, writes)
    }
}

impl Changing {
    fn new(number: usize) -> Self {
        Self {
            name: format!("changing-{number}"),
            there: false,
            kind: Kind::ClusterIp,
            affinity: false,
            claims: None,
            port: 80,
            target: 7070,
            endpoints: Default::default(),
        }
    }

    fn change(&mut self, draw: &mut Draw) -> (&'static str, Vec<Write>) {
        if !self.there {
            return ("created", self.begin(draw));
        }
        match draw.below(100) {
            0..20 => self.add_endpoint(draw),
            20..35 => self.remove_endpoint(draw),
            35..60 => self.change_condition(draw),
            60..70 => {
                self.port = draw.of(&[80, 81, 443]);
                self.target = draw.target_port();
                let patch = Write::PatchService(json!({"spec": {"ports": self.ports()}}));
                (
                    "ports changed",
                    vec![Write::PatchSlice(0), patch, Write::PatchSlice(1)],
                )
            }
            70..80 => ("type patched", vec![self.patch_kind(draw)]),
            80..88 => {
                self.affinity = !self.affinity;
                let affinity = self.affinity_word();
                let patch =
                    json!({"spec": {"sessionAffinity": affinity, "sessionAffinityConfig": Value::Null}});
                ("affinity toggled", vec![Write::PatchService(patch)])
            }
            88..92 => {
                let others = draw.others;
                self.claims = match self.claims {
                    None => Some(draw.of(&others.services)),
                    Some(_) => None,
                };
                let patch = json!({"spec": {"externalIPs": self.external_ips()}});
                ("others' address claimed", vec![Write::PatchService(patch)])
            }
            _ => {
                self.there = false;
                let mut writes = vec![Write::DeleteService, Write::DeleteSlices];
                if draw.below(2) == 0 {
                    writes.reverse();
                }
                ("deleted", writes)
            }
        }
    }

    fn begin(&mut self, draw: &mut Draw) -> Vec<Write> {
        self.there = true;
        self.kind = draw.of(&[
            Kind::ClusterIp,
            Kind::ClusterIp,
            Kind::NodePort,
            Kind::LoadBalancer,
        ]);
        self.affinity = draw.below(3) == 0;
        self.claims = None;
        self.target = draw.target_port();
        self.endpoints = Default::default();
        for _ in 0..draw.below(2 * ENDPOINTS) {
            self.add_endpoint(draw);
        }
        let spec = json!({
            "type": self.kind_word(),
            "ipFamilyPolicy": "RequireDualStack",
            "sessionAffinity": self.affinity_word(),
            "ports": self.ports(),
        });
        let service = json!({"metadata": {"name": self.name}, "spec": spec});
        let mut writes = vec![Write::CreateService(service), Write::CreateSlices];
        if draw.below(2) == 0 {
            writes.reverse();
        }
        writes
    }

    /// Its slice of a family.
    pub fn slice(&self, family: usize) -> Value {
        let mut slice = self.slice_patch(family);
        slice["metadata"] = json!({
            "name": self.slice_name(family),
            "labels": {"kubernetes.io/service-name": self.name},
        });
        slice["addressType"] = ["IPv4", "IPv6"][family].into();
        slice
    }

    /// What of it changes.
    pub fn slice_patch(&self, family: usize) -> Value {
        let endpoint = |(address, condition): (&IpAddr, &Condition)| {
            let conditions = match condition {
                Condition::Ready => json!({"ready": true, "serving": true, "terminating": false}),
                Condition::NotReady => json!({"ready": false, "serving": false, "terminating": false}),
                Condition::Draining => json!({"ready": false, "serving": true, "terminating": true}),
                Condition::Ending => json!({"ready": false, "serving": false, "terminating": true}),
            };
            json!({"addresses": [address], "conditions": conditions})
        };
        json!({
            "endpoints": self.endpoints[family].iter().map(endpoint).collect::<Vec<_>>(),
            "ports": [
                {"name": "tcp", "port": self.target, "protocol": "TCP"},
                {"name": "udp", "port": self.target, "protocol": "UDP"},
            ],
        })
    }

    pub fn slice_name(&self, family: usize) -> String {
        format!("{}-{}", self.name, ["v4", "v6"][family])
    }

    /// Whether nodes are to have rows for it.
    fn is_programmed(&self) -> bool {
        self.there && self.kind != Kind::ExternalName
    }

    /// The backends that new connections may get: who is ready, else who serves still (KEP-1669).
    fn backends(&self) -> BTreeSet<SocketAddr> {
        let of = |family: &BTreeMap<IpAddr, Condition>| {
            let any = |wanted| family.values().any(|condition| *condition == wanted);
            let wanted = if any(Condition::Ready) {
                Condition::Ready
            } else {
                Condition::Draining
            };
            let found = family.iter().filter(move |(_, condition)| **condition == wanted);
            found.map(|(address, _)| *address).collect::<Vec<_>>()
        };
        let all = self.endpoints.iter().flat_map(of);
        all.map(|address| SocketAddr::new(address, self.target)).collect()
    }

    fn add_endpoint(&mut self, draw: &mut Draw) -> (&'static str, Vec<Write>) {
        let family = draw.below(2);
        let address = draw.address(family);
        let condition = if draw.below(4) == 0 {
            Condition::NotReady
        } else {
            Condition::Ready
        };
        let endpoints = &mut self.endpoints[family];
        if endpoints.len() >= ENDPOINTS {
            endpoints.pop_first();
        }
        endpoints.insert(address, condition);
        ("endpoint added", vec![Write::PatchSlice(family)])
    }

    fn remove_endpoint(&mut self, draw: &mut Draw) -> (&'static str, Vec<Write>) {
        let Some((family, address)) = self.any_endpoint(draw) else {
            return self.add_endpoint(draw);
        };
        self.endpoints[family].remove(&address);
        ("endpoint removed", vec![Write::PatchSlice(family)])
    }

    fn change_condition(&mut self, draw: &mut Draw) -> (&'static str, Vec<Write>) {
        let Some((family, address)) = self.any_endpoint(draw) else {
            return self.add_endpoint(draw);
        };
        let is = &self.endpoints[family][&address];
        let others = [
            Condition::Ready,
            Condition::NotReady,
            Condition::Draining,
            Condition::Ending,
        ];
        let others: Vec<Condition> = others.into_iter().filter(|other| other != is).collect();
        let next = draw.of(&others);
        self.endpoints[family].insert(address, next);
        ("condition changed", vec![Write::PatchSlice(family)])
    }

    fn patch_kind(&mut self, draw: &mut Draw) -> Write {
        let kinds = [
            Kind::ClusterIp,
            Kind::NodePort,
            Kind::LoadBalancer,
            Kind::ExternalName,
        ];
        let others: Vec<Kind> = kinds.into_iter().filter(|kind| *kind != self.kind).collect();
        let before = std::mem::replace(&mut self.kind, draw.of(&others));
        let mut spec = json!({"type": self.kind_word()});
        if self.kind == Kind::ExternalName {
            spec["externalName"] = "example.com".into();
        } else if before == Kind::ExternalName {
            spec["externalName"] = Value::Null;
            spec["ipFamilyPolicy"] = "RequireDualStack".into();
        }
        Write::PatchService(json!({ "spec": spec }))
    }

    fn any_endpoint(&self, draw: &mut Draw) -> Option<(usize, IpAddr)> {
        let all = self.endpoints.iter().enumerate();
        let all: Vec<(usize, IpAddr)> = all
            .flat_map(|(family, e)| e.keys().map(move |address| (family, *address)))
            .collect();
        (!all.is_empty()).then(|| draw.of(&all))
    }

    fn ports(&self) -> Value {
        let port = |name: &str, protocol: &str| json!({"name": name, "port": self.port, "targetPort": self.target, "protocol": protocol});
        json!([port("tcp", "TCP"), port("udp", "UDP")])
    }

    fn kind_word(&self) -> &'static str {
        match self.kind {
            Kind::ClusterIp => "ClusterIP",
            Kind::NodePort => "NodePort",
            Kind::LoadBalancer => "LoadBalancer",
            Kind::ExternalName => "ExternalName",
        }
    }

    fn affinity_word(&self) -> &'static str {
        if self.affinity { "ClientIP" } else { "None" }
    }

    fn external_ips(&self) -> Vec<IpAddr> {
        self.claims.into_iter().collect()
    }
}
