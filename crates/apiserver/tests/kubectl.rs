//! The server as people see it: the real kubectl.

#![allow(clippy::unwrap_used, reason = "what is not there fails the test")]

mod support;

use std::collections::BTreeSet;
use std::process::Stdio;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::DeleteParams;
use support::TestServer;
use support::kubectl::{DEADLINE, Kubectl, has, text};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::timeout;

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers:
  - name: main
    image: tombolo/probe:1
    ports: [{containerPort: 80}]
    env: [{name: A, value: "1"}]
"#;

const NETWORK: &str = "
apiVersion: tombolo.dev/v1alpha1
kind: Network
metadata: {name: cluster}
spec:
  routing: vxlan
  pools: [{cidr: 10.244.0.0/16, blockSize: 24}]
  nodeCIDRs: [172.20.0.0/16]
";

#[tokio::test(flavor = "multi_thread")]
async fn apply_creates_changes_and_leaves_alone() {
    let server = TestServer::start().await;
    let kubectl = Kubectl::new(&server);
    let pod = kubectl.file("pod.yaml", POD);
    let network = kubectl.file("network.yaml", NETWORK);
    for (file, name) in [(&pod, "pod/web"), (&network, "network.tombolo.dev/cluster")] {
        has(&kubectl.ok(&["apply", "-f", file]).await, &[name, "created"]);
        has(&kubectl.ok(&["apply", "-f", file]).await, &[name, "unchanged"]);
        kubectl.ok(&["diff", "-f", file]).await;
    }

    let changed = POD
        .replace("{app: web}", "{other: \"1\"}")
        .replace("probe:1", "probe:2");
    let changed = kubectl.file("changed.yaml", &changed);
    let difference = kubectl.run(&["diff", "-f", &changed]).await;
    has(&text(&difference.stdout), &["-    app: web", "+    other: \"1\""]);
    let difference = text(&difference.stdout);
    assert!(
        !difference
            .lines()
            .any(|l| l.starts_with('+') && l.contains("resourceVersion")),
        "{difference}"
    );
    has(&kubectl.ok(&["apply", "-f", &changed]).await, &["configured"]);
    let labels = kubectl
        .ok(&["get", "pod", "web", "-o", "jsonpath={.metadata.labels}"])
        .await;
    assert_eq!(labels, r#"{"other":"1"}"#);
    has(
        &kubectl.ok(&["get", "pod", "web", "-o", "yaml"]).await,
        &["image: tombolo/probe:2", "name: A"],
    );

    let rerouted = kubectl.file("rerouted.yaml", &NETWORK.replace("vxlan", "direct"));
    has(&kubectl.ok(&["apply", "-f", &rerouted]).await, &["configured"]);
    let generation = kubectl
        .ok(&[
            "get",
            "network",
            "cluster",
            "-o",
            "jsonpath={.metadata.generation}",
        ])
        .await;
    assert_eq!(generation, "2");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_in_chunks() {
    let server = TestServer::start().await;
    let kubectl = Kubectl::new(&server);
    let names = ["one", "two", "three", "four", "five"];
    let nodes = names.map(|name| format!("---\napiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\n"));
    let nodes = kubectl.file("nodes.yaml", &nodes.concat());
    kubectl.ok(&["apply", "-f", &nodes]).await;
    for format in ["name", "wide", "json"] {
        let words = ["get", "nodes", "--chunk-size=2", "-v=8", "-o", format];
        let output = kubectl.run(&words).await;
        has(&text(&output.stdout), &names);
        let asked = text(&output.stderr);
        let pages = asked.lines().filter(|line| line.contains("limit=2"));
        let continued = pages.filter_map(|line| line.split("continue=").nth(1));
        assert_eq!(continued.collect::<BTreeSet<_>>().len(), 2, "{asked}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_named() {
    let server = TestServer::start().await;
    let kubectl = Kubectl::new(&server);
    let unknown = kubectl.file(
        "unknown.yaml",
        &NETWORK.replace("routing: vxlan", "rooting: vxlan"),
    );
    has(
        &kubectl.fails(&["apply", "-f", &unknown]).await,
        &["unknown field \"spec.rooting\""],
    );
    let wrong = NETWORK.replace("vxlan", "teleport").replace("24", "200");
    let wrong = kubectl.file("wrong.yaml", &wrong);
    has(
        &kubectl.fails(&["apply", "-f", &wrong]).await,
        &[
            "spec.routing: Unsupported value: \"teleport\"",
            "spec.pools[0].blockSize: Invalid value: 200",
        ],
    );
    let empty = kubectl.file(
        "empty.yaml",
        r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {}}"#,
    );
    has(
        &kubectl.fails(&["apply", "-f", &empty]).await,
        &["spec.containers: Required value"],
    );
    let pod = kubectl.file("pod.yaml", POD);
    has(
        &kubectl.fails(&["apply", "-f", &pod, "-n", "nowhere"]).await,
        &["namespaces \"nowhere\" not found"],
    );
    kubectl.ok(&["apply", "-f", &pod]).await;
    let other = kubectl.file("other.yaml", &POD.replace("value: \"1\"", "value: \"2\""));
    has(
        &kubectl.fails(&["apply", "-f", &other]).await,
        &["pod updates may not change fields"],
    );
    has(
        &kubectl.fails(&["get", "pod", "missing"]).await,
        &["pods \"missing\" not found"],
    );
    assert!(
        kubectl.ok(&["get", "networks", "-o", "name"]).await.is_empty(),
        "nothing half-made stays"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_shown_and_explained() {
    let server = TestServer::start().await;
    let kubectl = Kubectl::new(&server);
    let files = [("pod.yaml", POD), ("network.yaml", NETWORK)];
    for (name, content) in files {
        let file = kubectl.file(name, content);
        kubectl.ok(&["apply", "-f", &file]).await;
    }
    let node = kubectl.file(
        "node.yaml",
        r#"{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}"#,
    );
    kubectl.ok(&["apply", "-f", &node]).await;
    kubectl.ok(&["cordon", "n1"]).await;
    let shown = kubectl.ok(&["get", "nodes", "-o", "wide"]).await;
    has(&shown, &["INTERNAL-IP", "Unknown,SchedulingDisabled"]);
    let shown = kubectl
        .ok(&["get", "po", "-A", "-o", "wide", "--show-labels"])
        .await;
    has(
        &shown,
        &["NAMESPACE", "READY", "NODE", "0/1", "Pending", "app=web"],
    );
    has(
        &kubectl.ok(&["get", "networks"]).await,
        &["LAYOUT", "ROUTING", "vxlan"],
    );
    has(
        &kubectl.ok(&["get", "ns"]).await,
        &["default", "kube-system", "Active"],
    );
    has(
        &kubectl.ok(&["get", "pods", "-o", "json"]).await,
        &["\"kind\": \"List\"", "\"name\": \"web\""],
    );
    has(&kubectl.ok(&["get", "all"]).await, &["web"]);
    has(
        &kubectl
            .ok(&["get", "pods", "--field-selector=spec.nodeName=n1", "-o", "name"])
            .await,
        &[""],
    );
    has(
        &kubectl.ok(&["describe", "pod", "web"]).await,
        &["tombolo/probe:1", "80/TCP", "Events:"],
    );
    has(
        &kubectl.ok(&["describe", "node", "n1"]).await,
        &["Unschedulable:      true", "Events:"],
    );
    has(
        &kubectl.ok(&["describe", "network", "cluster"]).await,
        &["10.244.0.0/16", "Events:"],
    );
    has(
        &kubectl.ok(&["explain", "pod.spec.containers.env"]).await,
        &["<[]EnvVar>", "valueFrom"],
    );
    has(
        &kubectl.ok(&["explain", "network.spec"]).await,
        &["GROUP:      tombolo.dev", "nodeCIDRs"],
    );
    has(
        &kubectl.ok(&["api-resources"]).await,
        &["po ", "nodenetworks", "tombolo.dev/v1alpha1"],
    );
    has(&kubectl.ok(&["version"]).await, &["v1.33.0+tombolo"]);
    assert_eq!(
        kubectl.ok(&["logs", "web"]).await,
        "web/main 1\nweb/main 2\nweb/main 3\n"
    );
    let last = kubectl
        .ok(&["logs", "web", "-c", "main", "--tail=1", "--timestamps"])
        .await;
    assert_eq!(last, "2026-01-01T00:00:00Z web/main 3\n");
    has(
        &kubectl.fails(&["logs", "web", "-c", "none"]).await,
        &["container none is not valid"],
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_patched_in_three_ways() {
    let server = TestServer::start().await;
    let kubectl = Kubectl::new(&server);
    let pod = kubectl.file("pod.yaml", POD);
    kubectl.ok(&["create", "-f", &pod]).await;
    kubectl.ok(&["label", "pod", "web", "by=label"]).await;
    kubectl.ok(&["annotate", "pod", "web", "by=annotate"]).await;
    for (kind, patch) in [
        (
            "json",
            r#"[{"op":"add","path":"/metadata/labels/json","value":"1"}]"#,
        ),
        ("merge", r#"{"metadata":{"labels":{"merge":"1","app":null}}}"#),
        (
            "strategic",
            r#"{"spec":{"containers":[{"name":"main","image":"other:1"}]}}"#,
        ),
    ] {
        kubectl
            .ok(&["patch", "pod", "web", "--type", kind, "-p", patch])
            .await;
    }
    let labels = kubectl
        .ok(&["get", "pod", "web", "-o", "jsonpath={.metadata.labels}"])
        .await;
    assert_eq!(labels, r#"{"by":"label","json":"1","merge":"1"}"#);
    let main = kubectl
        .ok(&[
            "get",
            "pod",
            "web",
            "-o",
            "jsonpath={.spec.containers[0]['image','name']}",
        ])
        .await;
    assert_eq!(main, "other:1 main");
    let status = r#"{"status":{"conditions":[{"type":"Ready","status":"True"}]}}"#;
    kubectl
        .ok(&["patch", "pod", "web", "--subresource=status", "-p", status])
        .await;
    kubectl
        .ok(&["wait", "--for=condition=Ready", "pod/web", "--timeout=20s"])
        .await;
    let wrong = r#"[{"op":"test","path":"/metadata/name","value":"x"}]"#;
    kubectl
        .fails(&["patch", "pod", "web", "--type", "json", "-p", wrong])
        .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_and_deletions_wait_for_the_end() {
    let server = TestServer::start().await;
    let kubectl = Kubectl::new(&server);
    let namespace = kubectl.file(
        "ns.yaml",
        r#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "demo"}}"#,
    );
    kubectl.ok(&["apply", "-f", &namespace]).await;
    let pod = kubectl.file("pod.yaml", POD);
    kubectl.ok(&["apply", "-n", "demo", "-f", &pod]).await;
    kubectl
        .ok(&[
            "patch",
            "-n",
            "demo",
            "pod",
            "web",
            "-p",
            r#"{"spec":{"nodeName":"n1"}}"#,
        ])
        .await;

    let mut watch = kubectl.command(&["get", "pods", "-n", "demo", "-w", "--no-headers"]);
    let mut watch = watch.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = async || {
        timeout(DEADLINE, lines.next_line())
            .await
            .expect("a line in time")
            .unwrap()
            .unwrap()
    };
    has(&next().await, &["web", "Pending"]);

    let mut delete = kubectl.command(&["delete", "namespace", "demo"]).spawn().unwrap();
    has(&next().await, &["web", "Terminating"]);
    let phase = kubectl
        .ok(&["get", "ns", "demo", "-o", "jsonpath={.status.phase}"])
        .await;
    assert_eq!(phase, "Terminating");
    has(
        &kubectl
            .fails(&[
                "apply",
                "-n",
                "demo",
                "-f",
                &kubectl.file("late.yaml", &POD.replace("web", "late")),
            ])
            .await,
        &["it is being terminated"],
    );
    assert!(
        delete.try_wait().unwrap().is_none(),
        "kubectl delete waits while the pod is still there"
    );

    let pods: Api<Pod> = Api::namespaced(server.client().await, "demo");
    pods.delete("web", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    assert!(
        timeout(DEADLINE, delete.wait())
            .await
            .expect("kubectl delete ends")
            .unwrap()
            .success()
    );
    has(&kubectl.fails(&["get", "ns", "demo"]).await, &["not found"]);
    watch.kill().await.unwrap();
    server.stop().await;
}
