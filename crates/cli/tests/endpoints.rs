//! Services of a lab as kubectl shows them: which pods are behind them, and the addresses of load balancers.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs;
use std::process::Command;

use serde_json::Value;
use support::{Lab, eventually, run, succeed};

const OBJECTS: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  ipFamilyPolicy: RequireDualStack
  selector: {app: web}
  ports: [{port: 80, targetPort: web}]
---
apiVersion: v1
kind: Pod
metadata: {name: probed, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 20
  containers:
    - name: main
      image: tombolo/probe
      ports: [{name: web, containerPort: 8080}]
      readinessProbe: {exec: {command: [test, -e, FILE]}, periodSeconds: 1, failureThreshold: 1}
      lifecycle: {preStop: {exec: {command: [sh, -c, "while test -e FILE; do sleep 0.05; done"]}}}
---
apiVersion: v1
kind: Pod
metadata: {name: gated, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 1
  readinessGates: [{conditionType: example.com/open}]
  containers:
    - name: main
      image: tombolo/probe
      ports: [{name: web, containerPort: 8080}]
      readinessProbe: {httpGet: {path: /, port: web}, periodSeconds: 1}
"#;

/// `pod ready/serving/terminating` for each endpoint of one family, ordered.
fn endpoints(lab: &Lab, family: &str) -> Vec<String> {
    let selected = [
        "get",
        "endpointslices",
        "-l",
        "kubernetes.io/service-name=web",
        "-o",
        "json",
    ];
    let slices: Value = serde_json::from_str(&succeed(&mut lab.kubectl(&selected))).unwrap();
    let slices = slices["items"].as_array().unwrap().clone();
    let of_family = slices.into_iter().filter(|slice| slice["addressType"] == family);
    let mut all = Vec::new();
    for slice in of_family {
        for endpoint in slice["endpoints"].as_array().unwrap() {
            let is = |condition: &str, letter| {
                if endpoint["conditions"][condition] == true {
                    letter
                } else {
                    '-'
                }
            };
            let pod = endpoint["targetRef"]["name"].as_str().unwrap();
            all.push(format!(
                "{pod} {}{}{}",
                is("ready", 'r'),
                is("serving", 's'),
                is("terminating", 't')
            ));
        }
    }
    all.sort();
    all
}

#[track_caller]
fn comes_to(lab: &Lab, wanted: &[&str]) {
    let mut last = Vec::new();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while std::time::Instant::now() < deadline {
        last = endpoints(lab, "IPv4");
        if last == wanted && endpoints(lab, "IPv6") == wanted {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!(
        "{last:?} and not {wanted:?}: {}",
        succeed(&mut lab.kubectl(&["get", "pods", "-o", "yaml"]))
    );
}

#[test]
fn endpoints_follow_what_pods_are_like() {
    let lab = Lab::up(1, &[]);
    let api = succeed(&mut lab.kubectl(&["describe", "svc", "kubernetes"]));
    assert!(
        api.contains("10.96.0.1") && api.contains("172.20.255.1:6443"),
        "{api}"
    );

    let folder = tempfile::tempdir().unwrap();
    let (file, ready) = (folder.path().join("objects.yaml"), folder.path().join("ready"));
    fs::write(&file, OBJECTS.replace("FILE", ready.to_str().unwrap())).unwrap();
    succeed(&mut lab.kubectl(&["apply", "-f", file.to_str().unwrap()]));
    comes_to(&lab, &["gated ---", "probed ---"]);

    fs::write(&ready, "").unwrap();
    comes_to(&lab, &["gated ---", "probed rs-"]);
    let shown = succeed(&mut lab.kubectl(&["get", "pods", "probed", "gated"]));
    assert!(
        shown
            .lines()
            .all(|line| !line.starts_with("probed") || line.contains("1/1")),
        "{shown}"
    );
    fs::remove_file(&ready).unwrap();
    comes_to(&lab, &["gated ---", "probed ---"]);
    fs::write(&ready, "").unwrap();
    comes_to(&lab, &["gated ---", "probed rs-"]);

    for (status, wanted) in [
        ("True", "gated rs-"),
        ("False", "gated ---"),
        ("True", "gated rs-"),
    ] {
        let open =
            format!(r#"{{"status":{{"conditions":[{{"type":"example.com/open","status":"{status}"}}]}}}}"#);
        succeed(&mut lab.kubectl(&["patch", "pod", "gated", "--subresource=status", "-p", &open]));
        comes_to(&lab, &[wanted, "probed rs-"]);
    }

    // A pod that is told to end serves until it does.
    succeed(&mut lab.kubectl(&["delete", "pod", "probed", "--wait=false"]));
    comes_to(&lab, &["gated rs-", "probed -st"]);
    fs::remove_file(&ready).unwrap();
    comes_to(&lab, &["gated rs-"]);
    succeed(&mut lab.kubectl(&["wait", "--for=delete", "pod/probed", "--timeout=20s"]));

    succeed(&mut lab.kubectl(&["delete", "svc", "web"]));
    eventually("the slices go", 10, || {
        let left = run(&mut lab.kubectl(&["get", "endpointslices", "-o", "name"]));
        let left = String::from_utf8_lossy(&left.stdout).into_owned();
        (left.lines().count() == 1).then_some(())
    });
}

/// Where the lab's router sends what is for an address.
fn next_hop(lab: &Lab, address: &str) -> Option<String> {
    let router = lab.folder_of_lab().join("state/ns/router.net");
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net={}", router.display()))
        .args(["ip", "route", "get", address]);
    let output = run(&mut command);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut words = text.split_whitespace().skip_while(|word| *word != "via");
    words.nth(1).map(str::to_owned)
}

#[test]
fn load_balancers_have_addresses_that_lead_to_nodes() {
    let pools = ["--lb-pool", "203.0.113.0/24", "--lb-pool", "2001:db8:99::/120"];
    let lab = Lab::up(2, &pools);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("service.yaml");
    let service = "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {type: LoadBalancer, selector: {app: none}, ports: [{port: 80}]}}";
    fs::write(&file, service).unwrap();
    succeed(&mut lab.kubectl(&["apply", "-f", file.to_str().unwrap()]));
    let patch = |patch: &str| succeed(&mut lab.kubectl(&["patch", "svc", "web", "-p", patch]));
    patch(r#"{"spec":{"ipFamilyPolicy":"RequireDualStack"}}"#);
    for (address, prefix) in [("203.0.113.1", "172.20.1."), ("2001:db8:99::1", "fd00:20:1::")] {
        let hop = eventually("a route", 10, || next_hop(&lab, address));
        assert!(hop.starts_with(prefix), "{address} via {hop}");
    }
    let shown = succeed(&mut lab.kubectl(&["get", "svc", "web"]));
    assert!(
        shown.contains("2001:db8:99::1,203.0.113.1") || shown.contains("203.0.113.1,2001:db8:99::1"),
        "{shown}"
    );

    // With the policy Local, the way leads to where an endpoint is: `b2`, which the Service selects by what it has
    // been given.
    succeed(&mut lab.kubectl(&["label", "pod", "b2", "app=web"]));
    patch(r#"{"spec":{"externalTrafficPolicy":"Local","selector":{"app":"web"}}}"#);
    eventually("node2 serves", 10, || {
        (next_hop(&lab, "203.0.113.1")? == "172.20.1.12").then_some(())
    });
    succeed(&mut lab.kubectl(&["label", "pod", "b2", "app-"]));
    eventually("nobody serves", 10, || {
        next_hop(&lab, "203.0.113.1").is_none().then_some(())
    });

    patch(r#"{"spec":{"type":"ClusterIP"}}"#);
    eventually("the address is gone", 10, || {
        let shown = succeed(&mut lab.kubectl(&["get", "svc", "web"]));
        (!shown.contains("203.0.113.1")).then_some(())
    });
    patch(r#"{"spec":{"type":"LoadBalancer","loadBalancerIP":"192.0.2.1"}}"#);
    eventually("an event says why", 10, || {
        let shown = succeed(&mut lab.kubectl(&["describe", "svc", "web"]));
        (shown.contains("AllocationFailed") && shown.contains("is in none of")).then_some(())
    });
}
