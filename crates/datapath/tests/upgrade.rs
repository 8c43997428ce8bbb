//! From one ABI version to the next, and back: a build of this version and one of a version that there is none of yet
//! (the feature `abi-next`) take turns at a node whose pods talk.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{SocketAddr, UdpSocket},
    path::PathBuf,
    process::Command,
    sync::OnceLock,
    time::Duration,
};

use common::{
    bed::{Other, attach_ways},
    cluster::{V4, V6},
    cut_short::{Moments, killed_at},
    frame::{UDP, ip},
    node::Node,
    service,
};
use tombolo_abi::{Addr, Backend, Direction, FlowKey, FlowState, capacity};
use tombolo_datapath::Attach;

/// A build of one of the versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Build {
    This,
    Next,
}

impl Build {
    fn other(self) -> Self {
        match self {
            Self::This => Self::Next,
            Self::Next => Self::This,
        }
    }

    /// Its program, which cargo builds here: without this, not with every selection of tests.
    fn program(self) -> PathBuf {
        static BUILT: [OnceLock<()>; 2] = [OnceLock::new(), OnceLock::new()];
        let (example, features) = match self {
            Self::This => ("take_over", ""),
            Self::Next => ("take_over_next", "tombolo-datapath/abi-next"),
        };
        BUILT[self as usize].get_or_init(|| {
            // From the workspace's root: with the same dependencies, built with the same features, as all else.
            let built = Command::new(env!("CARGO"))
                .args(["build", "--quiet", "--example", example, "--features", features])
                .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
                .status()
                .unwrap();
            assert!(built.success(), "cargo cannot build {example}");
        });
        // target/<profile>/deps/<this test>
        let tests = std::env::current_exe().unwrap();
        tests.parent().unwrap().with_file_name("examples").join(example)
    }

    fn command(self, node: &Node, attach: Attach) -> Command {
        let mut command = Command::new(self.program());
        command.arg(&node.bed.directory).arg(match attach {
            Attach::Tcx => "tcx",
            Attach::Clsact => "clsact",
            Attach::Auto => "auto",
        });
        command
    }

    /// Starts it, which must succeed, and gives what its tables hold then.
    fn start(self, node: &Node, attach: Attach) -> Held {
        let output = self.command(node, attach).output().unwrap();
        assert!(
            output.status.success(),
            "{self:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let held = Held::read(&String::from_utf8(output.stdout).unwrap());
        let version = if self == Self::This { 1 } else { 2 };
        assert_eq!(held.version, format!("abi {version}"));
        let folders: BTreeSet<_> = fs::read_dir(&node.bed.directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(
            folders,
            ["links".to_owned(), format!("v{version}")].into(),
            "nothing else is left"
        );
        let pins = fs::read_dir(node.bed.directory.join("links")).unwrap().count();
        assert_eq!(pins, 8, "no pin is lost, and none is left over");
        held
    }
}

/// What a build found in its tables.
#[derive(Debug, Default)]
struct Held {
    version: String,
    /// Endpoints, routes, MACs, configuration.
    rows: BTreeSet<String>,
    counters: BTreeMap<String, u64>,
    /// By "source destination protocol": original, last_seen, began.
    flows: BTreeMap<String, [u64; 3]>,
}

impl Held {
    fn read(text: &str) -> Self {
        let mut held = Self::default();
        for line in text.lines() {
            let number = |word: &str| word.parse::<u64>().unwrap();
            match line.split_once(' ').unwrap() {
                ("abi", _) => held.version = line.to_owned(),
                ("counter", rest) => {
                    let (what, count) = rest.rsplit_once(' ').unwrap();
                    held.counters.insert(what.to_owned(), number(count));
                }
                ("flow", rest) => {
                    let words: Vec<&str> = rest.split(' ').collect();
                    let state = [number(words[3]), number(words[4]), number(words[5])];
                    held.flows.insert(words[..3].join(" "), state);
                }
                _ => drop(held.rows.insert(line.to_owned())),
            }
        }
        held
    }
}

/// A conversation between the pods, which goes on as long as both ends are there.
struct Talk {
    a: UdpSocket,
    b: UdpSocket,
    /// Where A finds B: its address, or a Service's.
    at: SocketAddr,
}

impl Talk {
    fn begin(node: &Node, v4: bool) -> Self {
        let (a, b) = if v4 { (V4.a, V4.b) } else { (V6.a, V6.b) };
        let bind = |pod: &Other, address: &'static str| {
            pod.run(move || {
                let socket = UdpSocket::bind((ip(address), 0)).unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                socket
            })
        };
        let (a, b) = (bind(&node.pod_a, a), bind(&node.pod_b, b));
        let at = b.local_addr().unwrap();
        a.connect(at).unwrap();
        b.connect(a.local_addr().unwrap()).unwrap();
        Self { a, b, at }
    }

    /// The same through a Service of its own, the `n`th.
    fn through_a_service(node: &Node, v4: bool, n: u16) -> Self {
        let mut talk = Self::begin(node, v4);
        let vip = service::cluster_ip(if v4 { V4 } else { V6 });
        let backend = Backend {
            port: talk.at.port().to_be(),
            ..service::backend(&talk.at.ip().to_string(), UDP)
        };
        let id = u32::from(n) + 1;
        node.cluster.datapath.backends().write(&[(id, backend)]).unwrap();
        let slab = service::slab_of(&node.cluster, id, &[id]);
        service::publish(&node.cluster, vip, 1000 + n, UDP, slab);
        talk.at = SocketAddr::new(ip(vip), 1000 + n);
        talk.a.connect(talk.at).unwrap();
        talk
    }

    /// One more of each.
    fn add(talks: &mut Vec<Self>, node: &Node, v4: bool) {
        talks.push(Self::begin(node, v4));
        talks.push(Self::through_a_service(node, v4, talks.len() as u16));
    }

    /// A question and its answer.
    #[track_caller]
    fn exchange(&self, node: &Node, when: &str) {
        let mut byte = [0];
        for (from, to) in [(&self.a, &self.b), (&self.b, &self.a)] {
            from.send(b"x").unwrap();
            let came = to.recv(&mut byte);
            assert!(came.is_ok(), "{when}: {came:?}\n{}", node.cluster.state());
        }
    }

    /// The rows that it has in the table of flows, and which of them is that of the first packet.
    fn flows(&self) -> [(String, u64); 2] {
        let [a, b] = [&self.a, &self.b].map(|s| s.local_addr().unwrap());
        let row = |from, to| format!("{} {} 17", plain(from), plain(to));
        [(row(a, self.at), 1), (row(b, a), 0)]
    }
}

/// Without the brackets of IPv6.
fn plain(address: SocketAddr) -> String {
    format!("{}:{}", address.ip(), address.port())
}

/// The table holds all of these flows and no other, each direction as it is.
#[track_caller]
fn assert_tracked(held: &Held, talks: &[Talk], when: &str) {
    let wanted: BTreeMap<String, u64> = talks.iter().flat_map(Talk::flows).collect();
    let found: BTreeMap<String, u64> = held
        .flows
        .iter()
        // (The pods' own stacks report their multicast groups.)
        .filter(|(flow, _)| flow.ends_with(" 17"))
        .map(|(flow, state)| (flow.clone(), state[0]))
        .collect();
    assert_eq!(found, wanted, "{when}");
}

/// Runs a test for each way to attach, on threads of their own, which have a node to themselves.
fn for_each_attach(test: impl Fn(Attach) + Send + Copy + 'static) {
    let threads: Vec<_> = attach_ways()
        .into_iter()
        .map(|attach| std::thread::spawn(move || test(attach)))
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn everything_is_carried_forwards_and_back() {
    for_each_attach(|attach| {
        let node = Node::tracking(attach);
        service::turn_on(&node.cluster);
        let mut talks = Vec::new();
        for v4 in [true, false] {
            Talk::add(&mut talks, &node, v4);
        }
        for talk in &talks {
            talk.exchange(&node, "at first");
        }
        let mut before = Build::This.start(&node, attach);
        assert!(before.rows.len() > 20, "{before:?}");
        assert!(
            before.counters.get("from_pod delivered").is_some_and(|n| *n >= 4),
            "{before:?}"
        );
        for build in [Build::Next, Build::Next, Build::This, Build::Next, Build::This] {
            let when = format!("{attach:?}, {build:?}");
            let held = build.start(&node, attach);
            assert_eq!(held.rows, before.rows, "{when}");
            assert_tracked(&held, &talks, &when);
            for (flow, [_, last_seen, began]) in &held.flows {
                if let Some([_, was_seen, had_begun]) = before.flows.get(flow) {
                    assert_eq!(last_seen, was_seen, "{when}: {flow}");
                    let wanted = match (build, *had_begun) {
                        (Build::This, _) => 0,
                        (Build::Next, 0) => *was_seen,
                        (Build::Next, began) => began,
                    };
                    assert_eq!(*began, wanted, "{when}: {flow}");
                }
            }
            for (what, count) in &before.counters {
                assert!(
                    held.counters.get(what) >= Some(count),
                    "{when}: {what} of {before:?} in {held:?}"
                );
            }
            let v4 = talks.len().is_multiple_of(4);
            Talk::add(&mut talks, &node, v4);
            for talk in &talks {
                talk.exchange(&node, &when);
            }
            before = build.start(&node, attach);
        }
    });
}

/// At every moment of an upgrade and of the way back: the pods talk on, new conversations begin, and the next start,
/// of either version, finishes or goes back, with every flow and its direction known.
#[test]
fn killed_at_any_moment() {
    for_each_attach(|attach| {
        // Every moment in the long form. Otherwise, between the replacements of one pod's program and the other's, and
        // some of all moments, others in each direction.
        let long = std::env::var_os("TOMBOLO_LONG").is_some();
        let (moments, stride, firsts) = match attach {
            _ if long => (Moments::All, 1, [0; 4]),
            Attach::Tcx => (Moments::Replacements, 3, [1; 4]),
            _ => (Moments::All, 31, [0, 8, 16, 24]),
        };
        let node = Node::tracking(attach);
        service::turn_on(&node.cluster);
        let mut talks = Vec::new();
        Talk::add(&mut talks, &node, true);
        let mut now = Build::This;
        let mut killed = 0;
        for ((to, finish), first) in [
            (Build::Next, Build::Next),
            (Build::This, Build::This),
            (Build::Next, Build::This),
            (Build::This, Build::Next),
        ]
        .into_iter()
        .zip(firsts)
        {
            let mut moment = first;
            loop {
                if now == to {
                    now = now.other();
                    now.start(&node, attach);
                }
                let when = format!("{attach:?}, to {to:?} killed at {moment}, then {finish:?}");
                let cut_short = killed_at(moment, moments, &mut to.command(&node, attach));
                for talk in talks.iter().rev().take(4) {
                    talk.exchange(&node, &when);
                }
                Talk::add(&mut talks, &node, moment % 2 == 0);
                for talk in talks.iter().rev().take(2) {
                    talk.exchange(&node, &when);
                }
                assert_tracked(&finish.start(&node, attach), &talks, &when);
                now = finish;
                for talk in talks.iter().rev().take(4) {
                    talk.exchange(&node, &when);
                }
                if !cut_short {
                    break;
                }
                killed += 1;
                moment += stride;
            }
            assert!(moment > 8, "{attach:?}: an upgrade has {moment} steps only");
        }
        assert!(killed >= 8, "{killed}");
    });
}

#[test]
fn a_full_table_of_flows_is_carried() {
    let node = Node::tracking(Attach::Auto);
    let flows: BTreeMap<FlowKey, FlowState> = (0..capacity::FLOWS as u32)
        .map(|n| {
            let key = FlowKey {
                source: Addr([n, 0, 0, 1]),
                ..FlowKey::default()
            };
            let state = FlowState {
                direction: Direction {
                    last_seen: n.into(),
                    original: n % 2,
                    ..Direction::default()
                },
                ..FlowState::default()
            };
            (key, state)
        })
        .collect();
    // (What the pods' stacks have begun goes.)
    node.cluster.datapath.flows().reconcile(&flows).unwrap();
    let full = node.cluster.datapath.flows().entries().unwrap();
    assert!(full.len() + 2 >= capacity::FLOWS, "{}", full.len());
    assert_eq!(Build::Next.start(&node, Attach::Auto).flows.len(), full.len());
    Build::This.start(&node, Attach::Auto);
    let tables = tombolo_datapath::open_readonly(&node.bed.directory).unwrap();
    let found = tables.flows().entries().unwrap();
    let differ = full
        .iter()
        .filter(|(key, state)| found.get(*key) != Some(*state))
        .count();
    assert_eq!(differ, 0);
}
