//! Random histories: ADD, DEL, CHECK, GC, kills of agent and plugin, faults, reboots, in any order and number,
//! several pods at once. After each stretch of it everything is settled, as a runtime and its node settle it,
//! and store, kernel and runtime must agree.
//!
//! 500 steps; 10,000 with `TOMBOLO_LONG=1`. `TOMBOLO_SEED` repeats the choices of a failed run, though not the
//! moments at which its processes were killed.

use std::collections::BTreeSet;
use std::process::Output;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};
use tombolo_agent::fault::Step;
use tombolo_cni::HOST_LINK_PREFIX;
use tombolo_cni::agent::CollectResponse;
use tombolo_cni::fault::PluginStep;
use tombolo_testkit::wait_for;

use super::collect::collect;
use crate::common::{Added, Call, DEADLINE, Node, Pod, answer, silence};

/// Enough IPv4 blocks for the long form: what is freed rests anew after each of an agent's starts, which are so
/// many here that no address comes around. (That one does is for the tests of the store.)
fn blocks() -> Vec<String> {
    let v4 = (1..=24).map(|block| format!("10.244.{block}.0/24"));
    v4.chain(["fd00:10:244::1:0/112".to_owned()]).collect()
}

/// The most pods at once.
const PODS: usize = 12;

/// The most operations at once.
const AT_ONCE: u64 = 4;

/// A source of choices.
struct Random(TestRng);

impl Random {
    fn new(seed: u64) -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        Self(TestRng::from_seed(RngAlgorithm::XorShift, &bytes))
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0.next_u64() % limit
    }

    /// Whether something happens that happens so often in a hundred.
    fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

/// What one thread does with one pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Add,
    Del,
    Check,
}

/// How a call ended.
enum Ended {
    Well(Output),
    /// With an error, or without a word.
    Badly,
}

/// A runtime and its node.
struct History {
    node: Node,
    random: Random,
    /// Pods that run.
    alive: Vec<(Pod, Added)>,
    /// Pods whose ADD failed, or whose DEL did not succeed yet.
    ending: Vec<Pod>,
    /// Pods that are deleted, for another DEL.
    deleted: Vec<Pod>,
    /// What was done, for the message of a failure.
    log: Vec<String>,
}

#[test]
fn store_kernel_and_runtime_agree_after_any_history() {
    let steps = if std::env::var_os("TOMBOLO_LONG").is_some() {
        10_000
    } else {
        500
    };
    let seed = match std::env::var("TOMBOLO_SEED") {
        Ok(text) => text.parse().expect("TOMBOLO_SEED is a number"),
        Err(_) => u64::from(std::process::id()) ^ Instant::now().elapsed().as_nanos() as u64,
    };
    println_seed(seed, steps);
    let mut history = History {
        node: Node::start(&blocks().iter().map(String::as_str).collect::<Vec<_>>()),
        random: Random::new(seed),
        alive: Vec::new(),
        ending: Vec::new(),
        deleted: Vec::new(),
        log: Vec::new(),
    };
    let mut done = 0;
    while done < steps {
        done += history.step();
        // Often enough to find where it went wrong, and seldom enough for faults to meet.
        if history.random.percent(15) || done >= steps {
            history.settle();
        }
    }
}

#[allow(clippy::print_stderr, reason = "shown when the test fails")]
fn println_seed(seed: u64, steps: usize) {
    eprintln!("{steps} steps with TOMBOLO_SEED={seed}");
}

impl History {
    /// One thing or several at once; how many.
    fn step(&mut self) -> usize {
        let choice = self.random.below(100);
        match choice {
            0..=1 => self.reboot(),
            2..=4 => self.stop_agent(Signal::SIGKILL),
            5 => self.stop_agent(Signal::SIGTERM),
            6..=9 => self.ensure_agent(),
            10..=16 => self.gc(),
            17..=19 => self.vanish(),
            _ => return self.calls(),
        }
        1
    }

    fn note(&mut self, what: String) {
        self.log.push(what);
    }

    /// The last of what was done.
    fn told(&self) -> String {
        let from = self.log.len().saturating_sub(60);
        self.log[from..].join("\n")
    }

    fn stop_agent(&mut self, signal: Signal) {
        if self.node.has_agent() {
            self.note(format!("agent: {signal}"));
            self.node.end_agent(signal);
        }
    }

    fn ensure_agent(&mut self) {
        if !self.node.has_agent() {
            self.note("agent: start".into());
            self.node.start_agent();
            self.node.wait_ready();
        }
    }

    /// The namespaces are gone, and so is all that was in the kernel; the disk is as it was.
    fn reboot(&mut self) {
        self.stop_agent(Signal::SIGKILL);
        self.note("reboot".into());
        self.alive.clear();
        self.ending.clear();
        self.deleted.clear();
        let node = &self.node;
        wait_for(DEADLINE, "the pods' links to go", || {
            let links = node.namespace.netlink().links().unwrap();
            !links.iter().any(|l| l.name.starts_with(HOST_LINK_PREFIX))
        });
        tombolo_datapath::remove(&self.node.pins()).unwrap();
    }

    /// A pod's namespace goes before its DEL, as when the sandbox crashes.
    fn vanish(&mut self) {
        if self.alive.is_empty() {
            return;
        }
        let index = self.random.below(self.alive.len() as u64) as usize;
        let (pod, _) = self.alive.swap_remove(index);
        self.note(format!("{}: its namespace goes", pod.id));
        let Pod { id, namespace } = pod;
        drop(namespace);
        let namespace = Pod::new().namespace;
        self.ending.push(Pod { id, namespace });
    }

    /// The runtime forgets some pods, and lists the others. It must let nothing run beside it.
    fn gc(&mut self) {
        self.ensure_agent();
        let mut valid = Vec::new();
        for (pod, added) in std::mem::take(&mut self.alive) {
            if self.random.percent(10) {
                self.note(format!("{}: forgotten", pod.id));
                self.deleted.push(pod);
            } else {
                valid.push((pod, added));
            }
        }
        self.alive = valid;
        self.note("GC".into());
        let pods: Vec<&Pod> = self.alive.iter().map(|(pod, _)| pod).collect();
        let result = self.node.gc(&pods);
        result.unwrap_or_else(|error| panic!("GC: {error}\n{}", self.told()));
        // What it has collected needs no DEL any more.
        self.deleted.append(&mut self.ending);
    }

    /// Calls at once, each of a pod of its own, and perhaps a fault or a kill among them.
    fn calls(&mut self) -> usize {
        let count = 1 + self.random.below(AT_ONCE) as usize;
        let work: Vec<(Work, Pod, Option<Added>)> = (0..count).filter_map(|_| self.choose()).collect();
        let trouble = self.trouble();
        let agent = self.node.has_agent().then(|| self.node.agent_id());
        let node = &self.node;
        let delays: Vec<Option<Duration>> = work
            .iter()
            .map(|_| {
                let killed = self.random.percent(8);
                killed.then(|| Duration::from_micros(self.random.below(12_000)))
            })
            .collect();
        let ended: Vec<Ended> = thread::scope(|scope| {
            let calls: Vec<_> = work
                .iter()
                .zip(&delays)
                .map(|((work, pod, added), delay)| {
                    scope.spawn(move || call(node, *work, pod, added.as_ref(), *delay))
                })
                .collect();
            if let (Some(Trouble::KillAgent(after)), Some(agent)) = (&trouble, agent) {
                spin(*after);
                kill(Pid::from_raw(agent.cast_signed()), Signal::SIGKILL).unwrap();
            }
            calls.into_iter().map(|call| call.join().unwrap()).collect()
        });
        if matches!(trouble, Some(Trouble::KillAgent(_))) && agent.is_some() {
            self.note("agent: killed meanwhile".into());
            self.node.agent_was_killed();
        }
        if let Some(Trouble::Fault { step, action }) = &trouble {
            let came = !self.node.disarm();
            self.note(format!(
                "fault {step} {action}: {}",
                if came { "met" } else { "not met" }
            ));
            let of_agent = Step::ALL.iter().any(|s| format!("{s:?}") == *step);
            if came && of_agent && *action == "kill" {
                self.node.agent_was_killed();
            }
        }
        let calls = work.len();
        let troubled = trouble.is_some() || agent.is_none();
        for (((work, pod, added), ended), delay) in work.into_iter().zip(ended).zip(delays) {
            self.take_in(work, pod, added, ended, troubled || delay.is_some());
        }
        calls.max(1)
    }

    fn choose(&mut self) -> Option<(Work, Pod, Option<Added>)> {
        let many = self.alive.len() + self.ending.len() >= PODS;
        match self.random.below(100) {
            0..=39 if !many => Some((Work::Add, self.fresh(), None)),
            40..=54 if !self.alive.is_empty() => {
                let (pod, added) = self.one_alive();
                Some((Work::Check, pod, Some(added)))
            }
            55..=62 if !self.ending.is_empty() => {
                let index = self.random.below(self.ending.len() as u64) as usize;
                Some((Work::Del, self.ending.swap_remove(index), None))
            }
            63..=66 => self.deleted.pop().map(|pod| (Work::Del, pod, None)),
            _ if !self.alive.is_empty() => {
                let (pod, _) = self.one_alive();
                Some((Work::Del, pod, None))
            }
            _ => None,
        }
    }

    fn one_alive(&mut self) -> (Pod, Added) {
        let index = self.random.below(self.alive.len() as u64) as usize;
        self.alive.swap_remove(index)
    }

    /// A new pod; now and then with the id of one that is deleted.
    fn fresh(&mut self) -> Pod {
        match self.deleted.pop() {
            Some(pod) if self.random.percent(30) => Pod {
                id: pod.id,
                ..Pod::new()
            },
            Some(pod) => {
                self.deleted.push(pod);
                Pod::new()
            }
            None => Pod::new(),
        }
    }

    /// What goes wrong besides plugins that are killed.
    fn trouble(&mut self) -> Option<Trouble> {
        match self.random.below(100) {
            0..=7 => Some(Trouble::KillAgent(Duration::from_micros(
                self.random.below(12_000),
            ))),
            8..=27 => {
                let (agent, plugin) = (Step::ALL.len() as u64, PluginStep::ALL.len() as u64);
                let index = self.random.below(agent + plugin);
                let step = match Step::ALL.get(index as usize) {
                    Some(step) => format!("{step:?}"),
                    None => format!("{:?}", PluginStep::ALL[(index - agent) as usize]),
                };
                let action = if self.random.percent(50) { "kill" } else { "error" };
                self.node.arm(&step, action);
                Some(Trouble::Fault { step, action })
            }
            _ => None,
        }
    }

    /// What the runtime makes of an answer.
    fn take_in(&mut self, work: Work, pod: Pod, added: Option<Added>, ended: Ended, troubled: bool) {
        let well = matches!(ended, Ended::Well(_));
        self.note(format!(
            "{}: {work:?} {}",
            pod.id,
            if well { "well" } else { "badly" }
        ));
        if !well && !troubled {
            panic!("{work:?} of {} failed without a reason\n{}", pod.id, self.told());
        }
        match (work, ended) {
            (Work::Add, Ended::Well(output)) => {
                let added = Added::of(answer(&output).unwrap());
                self.alive.push((pod, added));
            }
            (Work::Add, Ended::Badly) | (Work::Del, Ended::Badly) => self.ending.push(pod),
            (Work::Del, Ended::Well(_)) => self.deleted.push(pod),
            (Work::Check, _) => {
                let added = added.expect("a pod that is checked was added");
                self.alive.push((pod, added));
            }
        }
        self.deleted.truncate(8);
    }

    /// What a runtime and its node come to, once they are let: an agent runs, and what was to end has.
    fn settle(&mut self) {
        self.ensure_agent();
        for pod in std::mem::take(&mut self.ending) {
            let output = self.node.plugin("DEL", &pod.id, &pod.namespace.path());
            silence(&output).unwrap_or_else(|error| panic!("DEL of {}: {error}\n{}", pod.id, self.told()));
            self.note(format!("{}: deleted", pod.id));
        }
        let mut once = BTreeSet::new();
        for (pod, added) in &self.alive {
            for address in &added.addresses {
                assert!(
                    once.insert(*address),
                    "{address} was given twice\n{}",
                    self.told()
                );
            }
            let checked = self.node.check(pod, &added.printed);
            checked.unwrap_or_else(|error| panic!("{error}\n{}", self.told()));
        }
        let agreed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let alive: Vec<_> = self.alive.iter().map(|(pod, added)| (pod, added)).collect();
            self.node.expect_only(&alive);
        }));
        assert!(agreed.is_ok(), "not settled after:\n{}", self.told());
        let pods: Vec<&Pod> = self.alive.iter().map(|(pod, _)| pod).collect();
        let left = collect(&self.node, &pods);
        assert_eq!(
            left,
            CollectResponse::default(),
            "GC found something after:\n{}",
            self.told()
        );
    }
}

/// What goes wrong.
enum Trouble {
    KillAgent(Duration),
    Fault { step: String, action: &'static str },
}

/// One call of the plugin, which is killed after a while where `delay` says so.
fn call(node: &Node, work: Work, pod: &Pod, added: Option<&Added>, delay: Option<Duration>) -> Ended {
    let path = pod.namespace.path();
    let call = match work {
        Work::Add => Call::new("ADD", &pod.id, &path),
        Work::Del => Call::new("DEL", &pod.id, &path),
        Work::Check => Call {
            config: serde_json::json!({ "prevResult": added.map(|a| &a.printed) }),
            ..Call::new("CHECK", &pod.id, &path)
        },
    };
    let output = match delay {
        None => node.call(&call),
        Some(delay) => {
            let plugin = node.start_plugin(&call);
            spin(delay);
            plugin.signal(Signal::SIGKILL);
            node.finish(plugin)
        }
    };
    if output.status.success() {
        Ended::Well(output)
    } else {
        // It has said why, or was killed.
        if output.status.code().is_some() {
            answer(&output).expect_err("a failure");
        }
        Ended::Badly
    }
}

fn spin(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        thread::yield_now();
    }
}
