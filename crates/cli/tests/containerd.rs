//! A real containerd with runc on the nodes of a lab, asked as a kubelet asks: pods are connected by what the
//! agents have installed, and nothing of them is left, whoever is restarted or away meanwhile.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use support::{Background, Lab, TOMBOLO, eventually, run, succeed, unique_name};
use tombolo_cni::HOST_LINK_PREFIX;
use tombolo_cri::{Client, Cni, Containerd, Pod, PortMapping, Protocol, Sandbox};

/// Where a node's agent installs plugin and configuration, as the lab has it.
const CNI_FOLDERS: [&str; 2] = ["/run/tombolo/cni/bin", "/run/tombolo/cni/net.d"];

/// The port of servers in containers.
const PORT: &str = "8080";

/// A lab without pods of its own.
fn lab(nodes: &str) -> Lab {
    let lab = Lab::named(unique_name());
    succeed(&mut lab.lab(&["up", "--nodes", nodes]));
    lab
}

/// Starts a containerd on a node.
fn containerd(lab: &Lab, node: &str) -> Containerd {
    let [bin_dir, conf_dir] = CNI_FOLDERS.map(PathBuf::from);
    let words = ["lab", "exec", "--name", &lab.name, node, "--"].map(str::to_owned);
    let command = move |program: &str| {
        let mut command = Command::new(TOMBOLO);
        command.args(&words).arg(program);
        command
    };
    let containerd = Containerd::start(&Cni { bin_dir, conf_dir }, command).unwrap();
    eventually("the network to be ready", 20, || {
        containerd
            .client()
            .network_problem()
            .unwrap()
            .is_none()
            .then_some(())
    });
    containerd
}

/// A table of a node's agent.
fn table(lab: &Lab, node: &str, what: &str) -> Value {
    serde_json::from_str(&succeed(&mut lab.exec(node, &[TOMBOLO, "get", what, "--json"]))).unwrap()
}

/// Who is connected, by the runtime's ids.
fn connected(lab: &Lab, node: &str) -> BTreeSet<String> {
    let endpoints = table(lab, node, "endpoints");
    let ids = endpoints.as_array().unwrap().iter();
    ids.map(|one| one["containerId"].as_str().unwrap().to_owned())
        .collect()
}

/// Checks that a node has nothing of any pod: addresses, endpoints, links, routes, and what is left for an agent.
#[track_caller]
fn assert_nothing_of_pods(lab: &Lab, node: &str) {
    let of_pods = |text: String| -> Vec<String> {
        text.lines()
            .filter(|line| line.contains(HOST_LINK_PREFIX))
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(
        table(lab, node, "addresses")["allocations"],
        Value::Array(Vec::new()),
        "addresses of {node}"
    );
    assert_eq!(connected(lab, node), BTreeSet::new(), "endpoints of {node}");
    for words in [
        ["ip", "-o", "link"],
        ["ip", "-4", "route"],
        ["ip", "-6", "route"],
        ["ip", "neighbour", "show"],
    ] {
        assert_eq!(
            of_pods(succeed(&mut lab.exec(node, &words))),
            Vec::<String>::new(),
            "{words:?} on {node}"
        );
    }
    let pins = succeed(&mut lab.exec(node, &["ls", "/sys/fs/bpf/tombolo/links"]));
    assert_eq!(of_pods(pins), Vec::<String>::new(), "pinned programs of {node}");
    let left_for_an_agent = "find /var/lib/tombolo -path '*/adding/*' -o -path '*/released/*'";
    let records = succeed(&mut lab.exec(node, &["sh", "-c", left_for_an_agent]));
    assert_eq!(records, "", "records of {node}");
}

/// A pod with a container that serves. Gives that container's id, too.
fn serving(client: &Client, name: &str) -> (Sandbox, String) {
    let sandbox = client.run_sandbox(&Pod::new(name)).unwrap();
    let server = client
        .start_container(&sandbox, "server", &["/workload", "serve", PORT])
        .unwrap();
    (sandbox, server)
}

/// What a server at `address` says that it saw of a container, once it serves.
fn seen(client: &Client, container: &str, address: IpAddr) -> IpAddr {
    let server = match address {
        IpAddr::V4(v4) => format!("{v4}:{PORT}"),
        IpAddr::V6(v6) => format!("[{v6}]:{PORT}"),
    };
    let answer = eventually("the server to serve", 20, || {
        client.exec(container, &["/workload", "ask", &server]).ok()
    });
    answer.parse().unwrap()
}

/// Checks that a container of one pod meets the server of another in both families, each under its own address.
fn assert_meet(from: (&Client, &Sandbox, &str), to: (&Client, &Sandbox)) {
    let (own, theirs) = (from.0.addresses(from.1).unwrap(), to.0.addresses(to.1).unwrap());
    assert_eq!(
        (own.len(), theirs.len()),
        (2, 2),
        "addresses of both families: {own:?}, {theirs:?}"
    );
    for address in theirs {
        let source = own.iter().find(|one| one.is_ipv4() == address.is_ipv4());
        assert_eq!(Some(&seen(from.0, from.2, address)), source, "what {address} saw");
    }
}

/// Ends a node's agent by SIGKILL. Gives the command line that it had.
fn kill_agent(lab: &Lab, node: &str) -> Vec<String> {
    let agent = lab.process(node, "tombolo agent").expect("an agent");
    let words = fs::read_to_string(format!("/proc/{agent}/cmdline")).unwrap();
    kill(Pid::from_raw(agent.cast_signed()), Signal::SIGKILL).unwrap();
    eventually("the agent to end", 20, || {
        lab.process(node, "tombolo agent").is_none().then_some(())
    });
    words
        .trim_end_matches('\0')
        .split('\0')
        .map(str::to_owned)
        .collect()
}

/// Starts an agent by a command line, and waits until it serves.
fn start_agent(lab: &Lab, node: &str, words: &[String]) -> Background {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut command = lab.exec(node, &words);
    let agent = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let agent = Background(agent.unwrap());
    eventually("the agent to be ready", 30, || {
        run(&mut lab.exec(node, &[TOMBOLO, "status"]))
            .status
            .success()
            .then_some(())
    });
    agent
}

#[test]
fn containers_and_pods_meet_and_leave_nothing() {
    let lab = lab("2");
    let nodes = ["node1", "node2"];
    let [one, two] = nodes.map(|node| containerd(&lab, node));
    let (a, server) = serving(one.client(), "a");
    let second = one
        .client()
        .start_container(&a, "second", &["/workload", "pause"])
        .unwrap();
    let (b, _) = serving(one.client(), "b");
    let (c, far) = serving(two.client(), "c");

    for local in ["127.0.0.1", "::1"].map(|address| address.parse().unwrap()) {
        assert_eq!(
            seen(one.client(), &second, local),
            local,
            "two containers of one pod"
        );
    }
    assert_meet((one.client(), &a, &second), (one.client(), &b));
    assert_meet((one.client(), &a, &second), (two.client(), &c));
    assert_meet((two.client(), &c, &far), (one.client(), &a));
    assert_ne!(server, second);
    assert_eq!(
        connected(&lab, "node1"),
        [&a, &b].map(|one| one.id.clone()).into()
    );

    one.client().stop_sandbox(&b).unwrap();
    assert_eq!(
        connected(&lab, "node1"),
        [a.id.clone()].into(),
        "a stopped sandbox has no network"
    );
    for sandbox in [&a, &b] {
        one.client().remove_sandbox(sandbox).unwrap();
    }
    two.client().remove_sandbox(&c).unwrap();
    for node in nodes {
        assert_nothing_of_pods(&lab, node);
    }
}

/// A pod's port is reached at its node, from outside, from a pod of another node, and no longer than the pod is there.
#[test]
fn host_ports_lead_to_containers() {
    const HOST_PORT: u16 = 8088;
    let lab = lab("2");
    let [one, two] = ["node1", "node2"].map(|node| containerd(&lab, node));
    let mapping = PortMapping {
        protocol: Protocol::Tcp.into(),
        container_port: PORT.parse().unwrap(),
        host_port: HOST_PORT.into(),
        host_ip: String::new(),
    };
    let pod = Pod {
        port_mappings: vec![mapping],
        ..Pod::new("has-ports")
    };
    let sandbox = one.client().run_sandbox(&pod).unwrap();
    one.client()
        .start_container(&sandbox, "server", &["/workload", "serve", PORT])
        .unwrap();
    let (b, inside_b) = serving(two.client(), "b");
    let outside = lab.namespace("outside");
    let ask = |to: SocketAddr| {
        outside.run(|| {
            let mut answer = String::new();
            TcpStream::connect_timeout(&to, Duration::from_secs(5))?.read_to_string(&mut answer)?;
            std::io::Result::Ok(answer)
        })
    };
    for (node, own) in [
        ("172.20.1.11", "198.51.100.10"),
        ("fd00:20:1::11", "2001:db8:100::10"),
    ] {
        let to = SocketAddr::new(node.parse().unwrap(), HOST_PORT);
        let answer = eventually("the server to serve", 20, || ask(to).ok());
        assert_eq!(answer, own, "whom the server saw");
        let own = two.client().addresses(&b).unwrap();
        let own = own.iter().find(|one| one.is_ipv4() == to.is_ipv4()).unwrap();
        let answer = two
            .client()
            .exec(&inside_b, &["/workload", "ask", &to.to_string()]);
        assert_eq!(answer.unwrap(), own.to_string());
    }
    let error = one
        .client()
        .run_sandbox(&Pod {
            port_mappings: pod.port_mappings.clone(),
            ..Pod::new("too-late")
        })
        .unwrap_err()
        .to_string();
    assert!(error.contains("default/has-ports"), "{error}");
    assert_eq!(connected(&lab, "node1"), [sandbox.id.clone()].into());

    one.client().remove_sandbox(&sandbox).unwrap();
    for node in ["172.20.1.11", "fd00:20:1::11"] {
        let to = SocketAddr::new(node.parse().unwrap(), HOST_PORT);
        assert_eq!(ask(to).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }
    two.client().remove_sandbox(&b).unwrap();
    for node in ["node1", "node2"] {
        assert_nothing_of_pods(&lab, node);
    }
}

#[test]
fn containerd_and_agent_are_restarted_under_running_pods() {
    let lab = lab("1");
    let mut runtime = containerd(&lab, "node1");
    let client = runtime.client().clone();
    let (a, inside_a) = serving(&client, "a");
    let (b, _) = serving(&client, "b");
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        runtime.end(signal);
        runtime.start_again().unwrap();
        assert_eq!(client.sandboxes().unwrap().len(), 2, "after {signal}");
        assert_meet((&client, &a, &inside_a), (&client, &b));
    }
    let words = kill_agent(&lab, "node1");
    assert_meet((&client, &a, &inside_a), (&client, &b));
    assert_eq!(client.network_problem().unwrap(), None, "the configuration stays");
    let error = client
        .run_sandbox(&Pod::new("too-early"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("agent"), "{error}");
    let _agent = start_agent(&lab, "node1", &words);
    let (c, inside_c) = serving(&client, "c");
    assert_meet((&client, &c, &inside_c), (&client, &a));
    // What was refused is forgotten once its remains are removed, as the kubelet does.
    let known = [&a, &b, &c].map(|one| one.id.clone());
    assert_eq!(connected(&lab, "node1"), known.into());
    for sandbox in [&a, &b, &c] {
        client.remove_sandbox(sandbox).unwrap();
    }
    assert_nothing_of_pods(&lab, "node1");
}

#[test]
fn sandboxes_are_removed_while_the_agent_is_away() {
    let lab = lab("1");
    let runtime = containerd(&lab, "node1");
    let client = runtime.client();
    let (a, inside_a) = serving(client, "a");
    let (b, _) = serving(client, "b");
    let words = kill_agent(&lab, "node1");
    client.remove_sandbox(&b).unwrap();
    assert_eq!(client.sandboxes().unwrap(), std::slice::from_ref(&a.id));
    let _agent = start_agent(&lab, "node1", &words);
    assert_eq!(
        connected(&lab, "node1"),
        [a.id.clone()].into(),
        "the agent has settled what went meanwhile"
    );
    let (c, _) = serving(client, "c");
    assert_meet((client, &a, &inside_a), (client, &c));
    for sandbox in [&a, &c] {
        client.remove_sandbox(sandbox).unwrap();
    }
    assert_nothing_of_pods(&lab, "node1");
}

#[test]
fn thirty_sandboxes_come_and_go_at_once() {
    const COUNT: usize = 30;
    let lab = lab("1");
    let runtime = containerd(&lab, "node1");
    let client = runtime.client();
    let sandboxes: Vec<Sandbox> = thread::scope(|scope| {
        let make = |number: usize| move || client.run_sandbox(&Pod::new(&format!("pod-{number}"))).unwrap();
        let all: Vec<_> = (0..COUNT).map(|number| scope.spawn(make(number))).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let addresses: Vec<IpAddr> = sandboxes
        .iter()
        .flat_map(|one| client.addresses(one).unwrap())
        .collect();
    let different: BTreeSet<IpAddr> = addresses.iter().copied().collect();
    assert_eq!(
        (addresses.len(), different.len()),
        (2 * COUNT, 2 * COUNT),
        "{addresses:?}"
    );
    assert_eq!(
        connected(&lab, "node1"),
        sandboxes.iter().map(|one| one.id.clone()).collect()
    );
    let asker = client
        .start_container(&sandboxes[0], "asker", &["/workload", "pause"])
        .unwrap();
    let last = sandboxes.last().unwrap();
    client
        .start_container(last, "server", &["/workload", "serve", PORT])
        .unwrap();
    assert_meet((client, &sandboxes[0], &asker), (client, last));
    thread::scope(|scope| {
        for sandbox in &sandboxes {
            scope.spawn(move || client.remove_sandbox(sandbox).unwrap());
        }
    });
    assert_nothing_of_pods(&lab, "node1");
}

/// These tests make processes, mounts and control groups that would be in the way of everything after them.
#[test]
fn a_test_that_fails_leaves_nothing_either() {
    let mut made = None;
    let failed = catch_unwind(AssertUnwindSafe(|| {
        let lab = lab("1");
        let runtime = containerd(&lab, "node1");
        serving(runtime.client(), "a");
        made = Some((runtime.folder().to_owned(), runtime.cgroup().to_owned()));
        panic!("as intended");
    }));
    assert_eq!(failed.unwrap_err().downcast_ref(), Some(&"as intended"));
    let (folder, cgroup) = made.unwrap();
    let name = folder.to_str().unwrap();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let texts = processes.flat_map(|one| ["cmdline", "mountinfo"].map(|file| one.path().join(file)));
    let left: Vec<PathBuf> = texts
        .filter(|path| fs::read(path).is_ok_and(|text| String::from_utf8_lossy(&text).contains(name)))
        .collect();
    assert_eq!(
        left,
        Vec::<PathBuf>::new(),
        "processes that come from {name}, or have mounts of it"
    );
    assert!(!folder.exists());
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    for hierarchy in mounts.lines().filter(|line| line.starts_with("cgroup")) {
        let path = PathBuf::from(hierarchy.split(' ').nth(1).unwrap()).join(&cgroup);
        assert!(!path.exists(), "{}", path.display());
    }
}
