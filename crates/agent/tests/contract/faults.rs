//! An error and a kill at every step of ADD and DEL, in the agent and in the plugin.

use std::os::unix::process::ExitStatusExt;
use std::process::Output;

use nix::sys::signal::Signal;
use tombolo_agent::fault::Step;
use tombolo_cni::fault::PluginStep;

use crate::DUAL;
use crate::common::{Added, Call, Node, Pod, answer, silence, with_host_ports};

/// What each pod here has, one after the other.
const HOST_PORT: &[(u16, u16, &str, &str)] = &[(8080, 80, "", "tcp")];

/// A node with a pod that none of it may concern.
struct Bed {
    node: Node,
    bystander: (Pod, Added),
}

impl Bed {
    fn new() -> Self {
        let node = Node::start(&DUAL);
        let pod = Pod::new();
        let added = node.add_with(&pod, &[(8079, 80, "", "tcp")]).unwrap();
        Self {
            node,
            bystander: (pod, added),
        }
    }

    fn call(&self, command: &str, pod: &Pod) -> Output {
        self.node.call(&Call {
            config: with_host_ports(HOST_PORT),
            ..Call::new(command, &pod.id, &pod.namespace.path())
        })
    }

    /// A call that comes by the armed step, whose name it gives if it did not.
    fn call_armed(&self, command: &str, pod: &Pod, step: &str, action: &str) -> Output {
        self.node.arm(step, action);
        let output = self.call(command, pod);
        assert!(!self.node.disarm(), "{command} did not come by {step}");
        output
    }

    fn restart(&mut self) {
        self.node.start_agent();
        self.node.wait_ready();
    }

    /// Nothing is left of any other pod, and the bystander is whole.
    fn expect_nothing_left(&self, of: &str) {
        let (pod, added) = &self.bystander;
        self.node.expect_only(&[(pod, added)]);
        let host_ports: Vec<_> = self.node.traces().host_ports.into_iter().collect();
        assert_eq!(host_ports, added.addresses, "{of}: the bystander's host port");
        let checked = self.node.check(pod, &added.printed);
        checked.unwrap_or_else(|error| panic!("{of}: the bystander: {error}"));
    }
}

fn steps_of(operation: &str) -> Vec<String> {
    let agent = Step::ALL.iter().map(|step| format!("{step:?}"));
    agent.filter(|step| step.starts_with(operation)).collect()
}

fn plugin_steps_of(operation: &str) -> Vec<String> {
    let plugin = PluginStep::ALL.iter().map(|step| format!("{step:?}"));
    plugin.filter(|step| step.starts_with(operation)).collect()
}

/// DELs that only a plugin without an agent comes by.
fn is_without_agent(step: &str) -> bool {
    ["DelRecorded", "DelAskedAgain", "DelLinkRemoved"].contains(&step)
}

#[test]
fn every_step_has_a_name_of_its_own() {
    let all: Vec<String> = ["Add", "Del"]
        .iter()
        .flat_map(|o| steps_of(o).into_iter().chain(plugin_steps_of(o)))
        .collect();
    let distinct: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), all.len());
    assert_eq!(all.len(), Step::ALL.len() + PluginStep::ALL.len());
}

#[test]
fn an_add_that_fails_at_any_step_leaves_nothing_even_before_its_del() {
    let bed = Bed::new();
    for step in steps_of("Add").into_iter().chain(plugin_steps_of("Add")) {
        let pod = Pod::new();
        let output = bed.call_armed("ADD", &pod, &step, "error");
        let error = answer(&output).expect_err(&step);
        assert!(error.to_string().contains(&step), "{step}: {error}");
        bed.expect_nothing_left(&step);
        bed.node.del(&pod);
        bed.expect_nothing_left(&step);
        // And the same pod can be added after it.
        bed.node
            .add(&pod)
            .unwrap_or_else(|error| panic!("{step}: {error}"));
        bed.node.del(&pod);
        bed.expect_nothing_left(&step);
    }
}

#[test]
fn a_del_that_fails_at_any_step_can_be_repeated() {
    let mut bed = Bed::new();
    for step in steps_of("Del").into_iter().chain(plugin_steps_of("Del")) {
        let pod = Pod::new();
        bed.node.add_with(&pod, HOST_PORT).unwrap();
        let alone = is_without_agent(&step);
        if alone {
            bed.node.end_agent(Signal::SIGTERM);
        }
        let output = bed.call_armed("DEL", &pod, &step, "error");
        let error = silence(&output).expect_err(&step);
        assert!(error.to_string().contains(&step), "{step}: {error}");
        bed.node.del(&pod);
        if alone {
            bed.restart();
        }
        bed.expect_nothing_left(&step);
    }
}

#[test]
fn an_agent_that_is_killed_at_any_step_of_an_add_leaves_nothing() {
    let mut bed = Bed::new();
    for step in steps_of("Add") {
        // The runtime's DEL comes before the next agent, or after it has begun to serve.
        for del_first in [true, false] {
            let pod = Pod::new();
            let output = bed.call_armed("ADD", &pod, &step, "kill");
            let error = answer(&output).expect_err(&step);
            assert_eq!(error["code"], 11, "{step}: {error}");
            bed.node.agent_was_killed();
            if del_first {
                bed.node.del(&pod);
                bed.restart();
            } else {
                bed.restart();
                // All but what the agent had made whole is undone by its successor already.
                if step != "AddConcluded" {
                    bed.expect_nothing_left(&step);
                }
                bed.node.del(&pod);
            }
            bed.expect_nothing_left(&step);
        }
    }
}

#[test]
fn an_agent_that_is_killed_at_any_step_of_a_del_leaves_nothing() {
    let mut bed = Bed::new();
    for step in steps_of("Del") {
        let pod = Pod::new();
        bed.node.add_with(&pod, HOST_PORT).unwrap();
        let output = bed.call_armed("DEL", &pod, &step, "kill");
        silence(&output).unwrap_or_else(|error| panic!("{step}: the plugin does without: {error}"));
        bed.node.agent_was_killed();
        bed.restart();
        bed.expect_nothing_left(&step);
        bed.node.del(&pod);
        bed.expect_nothing_left(&step);
    }
}

#[test]
fn a_plugin_that_is_killed_at_any_step_leaves_nothing_after_its_del() {
    let mut bed = Bed::new();
    for step in plugin_steps_of("Add").into_iter().chain(plugin_steps_of("Del")) {
        let pod = Pod::new();
        let command = if step.starts_with("Add") { "ADD" } else { "DEL" };
        let alone = is_without_agent(&step);
        if command == "DEL" {
            bed.node.add_with(&pod, HOST_PORT).unwrap();
        }
        if alone {
            bed.node.end_agent(Signal::SIGTERM);
        }
        let output = bed.call_armed(command, &pod, &step, "kill");
        assert_eq!(output.status.signal(), Some(Signal::SIGKILL as i32), "{step}");
        assert!(output.stdout.is_empty(), "{step}");
        if alone {
            bed.restart();
            // The agent settles what the plugin has recorded, and nothing but that.
            bed.expect_nothing_left(&step);
        }
        bed.node.del(&pod);
        bed.expect_nothing_left(&step);
    }
}

#[test]
fn a_record_that_a_killed_plugin_left_does_not_outlive_the_next_add() {
    let mut bed = Bed::new();
    let pod = Pod::new();
    bed.node.add(&pod).unwrap();
    bed.node.end_agent(Signal::SIGTERM);
    bed.call_armed("DEL", &pod, "DelRecorded", "kill");
    // The agent is back, and has settled the record; another plugin was slower, and is killed after that.
    bed.restart();
    let id = tombolo_cni::ContainerId::parse(&pod.id).unwrap();
    let eth0 = tombolo_cni::InterfaceName::parse("eth0").unwrap();
    tombolo_cni::released::write(&bed.node.state_dir(), &id, &eth0).unwrap();
    let added = bed.node.add(&pod).unwrap();
    bed.node.end_agent(Signal::SIGTERM);
    bed.restart();
    let (bystander, added_bystander) = &bed.bystander;
    bed.node
        .expect_only(&[(bystander, added_bystander), (&pod, &added)]);
}
