//! Services with real traffic: who reaches what, what the backend saw of the client, and that nobody notices when
//! things change. Most of it in one lab, at the same time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod beside;
mod changes;
mod churn;
mod host_ports;
mod nodes;
mod objects;
mod reach;
#[path = "../support/mod.rs"]
mod support;

use std::thread;

use support::Lab;

/// A scenario, and what it shows.
type Scenario = (&'static str, fn(&Lab));

/// What goes through Services, by sockets as by packets.
const TRAFFIC: [Scenario; 9] = [
    ("backends see who asks", reach::backends_see_who_asks),
    ("policy Local", reach::policy_local),
    ("refused", reach::what_nobody_serves_is_refused),
    ("affinity", reach::affinity_keeps_clients),
    ("some are let in", reach::some_are_let_in),
    ("host ports", host_ports::lead_to_their_pod),
    ("rolling restart", changes::a_rolling_restart_fails_nobody),
    (
        "UDP moves on",
        changes::a_connected_udp_socket_moves_to_the_new_backend,
    ),
    (
        "who only reads",
        changes::who_only_reads_hears_that_a_backend_has_gone,
    ),
];

const BY_SOCKETS: [Scenario; 8] = [
    ("nodes", nodes::reach_services_as_pods_do),
    ("a node's UDP", nodes::hear_that_their_udp_backend_has_gone),
    ("types", changes::the_type_is_patched_under_traffic),
    ("health checks", beside::load_balancers_learn_where_endpoints_are),
    ("kube-proxy", beside::kube_proxy_is_noticed),
    ("conflicts", beside::the_younger_of_two_gets_an_event),
    ("host ports near by", host_ports::are_reached_from_their_node),
    ("one has a host port", host_ports::are_had_by_one),
];

#[test]
fn services_are_as_kubernetes_says() {
    let scenarios = [&TRAFFIC[..], &BY_SOCKETS].concat();
    play(&scenarios, &[]);
}

#[test]
fn and_so_they_are_without_programs_at_sockets() {
    let by_packets: Scenario = ("nodes", nodes::reach_no_services_by_packets);
    play(&[&TRAFFIC[..], &[by_packets]].concat(), &["--no-socket-hooks"]);
}

fn play(scenarios: &[Scenario], more: &[&str]) {
    let options = [
        "--segments",
        "2",
        "--families",
        "dual",
        "--lb-pool",
        "203.0.113.0/24",
    ];
    let options = [&options[..], &["--lb-pool", "2001:db8:200::/112"], more].concat();
    let lab = Lab::up(3, &options);
    let mut failed = Vec::new();
    thread::scope(|scope| {
        let lab = &lab;
        let start = |&(name, run): &Scenario| (name, scope.spawn(move || run(lab)));
        let running: Vec<_> = scenarios.iter().map(start).collect();
        // The panics' texts have been printed already.
        failed.extend(
            running
                .into_iter()
                .filter_map(|(name, run)| run.join().is_err().then_some(name)),
        );
    });
    assert!(failed.is_empty(), "failed: {failed:?}\n{}", lab.datapath());
}

#[test]
fn agents_that_are_killed_and_replaced_fail_nobody() {
    changes::agents_come_and_go(&Lab::up(2, &["--families", "dual"]));
}

#[test]
fn services_that_change_fail_nobody_who_asks_others() {
    churn::fails_nobody(&[]);
}

#[test]
fn and_so_it_is_without_programs_at_sockets() {
    churn::fails_nobody(&["--no-socket-hooks"]);
}
