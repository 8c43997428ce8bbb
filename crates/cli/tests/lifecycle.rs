//! A lab comes and goes: nothing of it is left, whatever was killed when; labs do not meet; commands inside.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use support::{Lab, TOMBOLO, eventually, run, succeed, unique_name};

/// The namespaces that a lab's processes are in and this one is not, as `net:[...]` and `mnt:[...]`.
fn namespaces(pids: impl IntoIterator<Item = u32>) -> BTreeSet<String> {
    let of = |pid: &str| -> BTreeSet<String> {
        ["net", "mnt"]
            .iter()
            .filter_map(|kind| fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok())
            .map(|link| link.to_string_lossy().into_owned())
            .collect()
    };
    let own = of("self");
    pids.into_iter()
        .flat_map(|pid| of(&pid.to_string()))
        .filter(|one| !own.contains(one))
        .collect()
}

fn all_pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// Settings of this machine that a careless lab would change.
fn settings() -> Vec<(String, String)> {
    [
        "net/ipv4/ip_forward",
        "net/ipv6/conf/all/forwarding",
        "net/ipv4/conf/all/rp_filter",
        "net/ipv6/conf/all/accept_dad",
    ]
    .iter()
    .filter_map(|key| {
        Some((
            (*key).to_owned(),
            fs::read_to_string(Path::new("/proc/sys").join(key)).ok()?,
        ))
    })
    .collect()
}

/// Links of this machine's own namespace that only Tombolo makes.
fn links() -> BTreeSet<String> {
    let names = fs::read_dir("/sys/class/net").unwrap().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter(|name| name.starts_with("tombolo") || name.starts_with("segment"))
        .collect()
}

/// The tables of this machine's own nftables.
fn nft_tables() -> String {
    succeed(Command::new("nft").args(["list", "tables"]))
}

/// An object of the kernel's BPF, as bpftool names it: its kind and its id, which is not given again.
type BpfObject = (&'static str, u64);

/// What a lab's nodes have pinned, and the programs behind that.
fn bpf_objects(lab: &Lab) -> BTreeSet<BpfObject> {
    let mut found = BTreeSet::new();
    let mut folders = vec![lab.folder_of_lab().join("state/bpf")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
                continue;
            }
            let path = entry.path();
            // The kernel's own, in every bpffs.
            if path.extension().is_some_and(|extension| extension == "debug") {
                continue;
            }
            // A pin does not say of which kind it is.
            let shown = ["map", "prog", "link"].into_iter().find_map(|kind| {
                let mut bpftool = Command::new("bpftool");
                let output = run(bpftool.args(["-j", kind, "show", "pinned"]).arg(&path));
                let shown: Value = serde_json::from_slice(&output.stdout).ok()?;
                Some((kind, shown)).filter(|(_, shown)| shown["id"].is_u64())
            });
            let (kind, shown) = shown.unwrap_or_else(|| panic!("bpftool does not know {}", path.display()));
            found.insert((kind, shown["id"].as_u64().unwrap()));
            found.extend(shown["prog_id"].as_u64().map(|id| ("prog", id)));
        }
    }
    found
}

fn is_there((kind, id): &BpfObject) -> bool {
    let mut bpftool = Command::new("bpftool");
    let output = run(bpftool.args([kind, "show", "id", &id.to_string()]));
    output.status.success()
}

#[track_caller]
fn assert_nothing_is_left(lab: &Lab, known: &BTreeSet<String>) {
    assert!(
        !lab.folder_of_lab().exists(),
        "{} is left",
        lab.folder_of_lab().display()
    );
    assert!(!lab.cgroup().exists(), "{} is left", lab.cgroup().display());
    let name = lab.name.as_bytes();
    for pid in all_pids() {
        let Ok(command) = fs::read(format!("/proc/{pid}/cmdline")) else {
            continue;
        };
        let is_of_lab = command.starts_with(TOMBOLO.as_bytes())
            && command.windows(name.len()).any(|window| window == name);
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        assert!(
            !is_of_lab,
            "process {pid} is left: {}",
            String::from_utf8_lossy(&command)
        );
        assert!(
            !mounts.contains(&lab.name),
            "process {pid} still has mounts of the lab"
        );
    }
    let held: BTreeSet<String> = namespaces(all_pids()).intersection(known).cloned().collect();
    assert!(held.is_empty(), "processes are left in {held:?}");
}

#[test]
fn down_leaves_nothing() {
    let (settings_before, links_before, tables_before) = (settings(), links(), nft_tables());
    let lab = Lab::up(2, &["--routing", "vxlan"]);
    let processes = lab.status()["processes"].as_array().unwrap().clone();
    let pids = processes.iter().map(|one| one["pid"].as_u64().unwrap() as u32);
    let known = namespaces(pids);
    // Two nodes of two kinds, four pods, the outside host.
    assert!(known.len() >= 9, "{known:?}");
    let objects = bpf_objects(&lab);
    for kind in ["map", "prog", "link"] {
        assert!(
            objects.iter().any(|(of, _)| *of == kind),
            "no {kind} in {objects:?}"
        );
    }
    assert!(objects.iter().all(is_there));
    lab.down();
    assert_nothing_is_left(&lab, &known);
    assert_eq!(settings(), settings_before);
    assert_eq!(links(), links_before);
    assert_eq!(nft_tables(), tables_before);
    // The kernel frees them when the last who may still read them has ended.
    eventually("the eBPF objects to go", 20, || {
        (!objects.iter().any(is_there)).then_some(())
    });
    let again = succeed(&mut lab.lab(&["down"]));
    assert!(again.contains("There is no lab"), "{again}");
}

fn kill_at(stage: &str, reached: impl Fn(&Lab) -> bool) {
    let lab = Lab::named(unique_name());
    let mut up = lab
        .up_command(2, &[])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually(stage, 30, || reached(&lab).then_some(()));
    up.kill().unwrap();
    up.wait().unwrap();
    lab.down();
    assert_nothing_is_left(&lab, &BTreeSet::new());
}

#[test]
fn an_up_killed_at_any_stage_is_cleaned_by_down() {
    kill_at("folder", |lab| lab.folder_of_lab().exists());
    kill_at("first namespace", |lab| {
        lab.folder_of_lab().join("state/ns/router.net").exists()
    });
    kill_at("control plane", |lab| lab.cgroup().join("control").exists());
    kill_at("API server", |lab| lab.kubeconfig().exists());
    kill_at("agents", |lab| lab.cgroup().join("node2").exists());
    kill_at("first pod", |lab| {
        fs::read_dir(lab.folder_of_lab().join("state/pods")).is_ok_and(|mut pods| pods.next().is_some())
    });
}

#[test]
fn an_interrupted_up_cleans_up_itself() {
    let lab = Lab::named(unique_name());
    let mut up: Child = lab.up_command(2, &[]).stderr(Stdio::piped()).spawn().unwrap();
    eventually("agents", 30, || lab.cgroup().join("node2").exists().then_some(()));
    kill(Pid::from_raw(up.id() as i32), Signal::SIGINT).unwrap();
    let status = eventually("its end", 30, || up.try_wait().unwrap());
    assert_eq!(status.code(), Some(1));
    assert_nothing_is_left(&lab, &BTreeSet::new());
}

#[test]
fn down_works_after_everything_was_killed() {
    let lab = Lab::up(1, &[]);
    for process in lab.status()["processes"].as_array().unwrap() {
        let pid = Pid::from_raw(process["pid"].as_u64().unwrap() as i32);
        // A container may be gone with what ran it.
        let _ = kill(pid, Signal::SIGKILL);
    }
    lab.down();
    assert_nothing_is_left(&lab, &BTreeSet::new());
}

#[test]
fn two_labs_do_not_meet() {
    let (one, other) = std::thread::scope(|scope| {
        let one = scope.spawn(|| Lab::up(2, &["--routing", "vxlan"]));
        let other = scope.spawn(|| Lab::up(2, &["--routing", "direct"]));
        (one.join().unwrap(), other.join().unwrap())
    });
    // The same addresses in both.
    assert_eq!(
        one.status()["nodes"][0]["addresses"],
        other.status()["nodes"][0]["addresses"]
    );
    one.assert_connected();
    other.assert_connected();
    one.down();
    other.assert_connected();
    let again = run(&mut other.up_command(1, &[]));
    assert_eq!(again.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&again.stderr).contains("already up"),
        "{again:?}"
    );
    other.assert_connected();
}

#[test]
fn exec_is_inside() {
    let lab = Lab::up(1, &[]);
    assert_eq!(
        run(&mut lab.exec("node1", &["sh", "-c", "exit 7"])).status.code(),
        Some(7)
    );
    let devices = |place: &str| succeed(&mut lab.exec(place, &["cat", "/proc/net/dev"]));
    assert!(devices("node1").contains("tmb"), "{}", devices("node1"));
    assert!(
        !devices("a1").contains("tmb") && devices("a1").contains("eth0"),
        "{}",
        devices("a1")
    );
    let cgroup = succeed(&mut lab.exec("a1", &["cat", "/proc/self/cgroup"]));
    assert!(
        cgroup.contains(&format!("tombolo-lab-{}/node1/pod-", lab.name)),
        "{cgroup}"
    );
    let sys = succeed(&mut lab.exec("node1", &["ls", "/sys/class/net"]));
    assert!(sys.contains("eth0") && sys.contains("tmb"), "{sys}");
    // Nothing of any lab's folder can be seen, nor held, from inside a node.
    let mounts = succeed(&mut lab.exec("node1", &["cat", "/proc/self/mountinfo"]));
    assert!(!mounts.contains("/run/tombolo/lab"), "{mounts}");
    let unknown = run(&mut lab.exec("nobody", &["true"]));
    let message = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert_eq!(unknown.status.code(), Some(1));
    assert!(message.contains("node1") && message.contains("a1"), "{message}");
}

#[test]
fn a_lab_that_cannot_be_is_refused_before_anything_is_made() {
    let lab = Lab::named(unique_name());
    for options in [
        &["--segments", "0"][..],
        &["--node-mtu", "node9=1400"],
        &["-f", "/nonexistent"],
        &["--cni-path", "/nonexistent"],
    ] {
        let output = run(&mut lab.up_command(1, options));
        assert_eq!(output.status.code(), Some(1), "{options:?} {output:?}");
        assert!(
            !lab.folder_of_lab().exists() && !lab.cgroup().exists(),
            "{options:?}"
        );
    }
}

#[test]
fn an_up_that_fails_removes_everything() {
    let lab = Lab::named(unique_name());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pod.yaml");
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: never}, spec: {containers: [{name: one, image: nginx}]}}";
    fs::write(&file, pod).unwrap();
    let output = run(&mut lab.up_command(1, &["--timeout", "10", "-f", file.to_str().unwrap()]));
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(
        message.contains("default/never") && message.contains("ErrImageNeverPull"),
        "{message}"
    );
    assert_nothing_is_left(&lab, &BTreeSet::new());
}
