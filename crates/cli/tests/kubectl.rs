//! kubectl against a lab: the real one, as users have it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs;

use serde_json::Value;
use support::{Lab, eventually, run, succeed};

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata:
  name: talker
  labels: {app: talker}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: talk
      image: tombolo/probe
      command: ["sh", "-c", "echo hello $NAME; echo world; exec sleep 1000"]
      env: [{name: NAME, value: there}]
    - name: unknown
      image: nginx
"#;

#[test]
fn get_apply_describe_logs_and_delete() {
    let lab = Lab::up(2, &[]);
    let nodes = succeed(&mut lab.kubectl(&["get", "nodes"]));
    assert_eq!(nodes.matches(" Ready ").count(), 2, "{nodes}");
    let pods = succeed(&mut lab.kubectl(&["get", "pods", "-o", "wide"]));
    for pod in ["a1", "b1", "a2", "b2"] {
        let line = pods.lines().find(|line| line.starts_with(pod)).unwrap();
        assert!(
            line.contains("Running") && line.contains(&lab.addresses(pod)[0]),
            "{line}"
        );
    }
    let network = succeed(&mut lab.kubectl(&["get", "networks.tombolo.dev", "cluster", "-o", "json"]));
    assert_eq!(
        serde_json::from_str::<Value>(&network).unwrap()["spec"]["layout"],
        "island"
    );

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pod.yaml");
    fs::write(&file, POD).unwrap();
    let file = file.to_str().unwrap();
    assert!(succeed(&mut lab.kubectl(&["apply", "-f", file])).contains("created"));
    assert!(succeed(&mut lab.kubectl(&["apply", "-f", file])).contains("unchanged"));
    fs::write(file, POD.replace("app: talker", "app: talker, tier: test")).unwrap();
    assert!(succeed(&mut lab.kubectl(&["apply", "-f", file])).contains("configured"));

    let log = eventually("the log", 10, || {
        let output = run(&mut lab.kubectl(&["logs", "talker", "-c", "talk"]));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.contains("world").then_some(text)
    });
    assert_eq!(log, "hello there\nworld\n");
    assert_eq!(
        succeed(&mut lab.kubectl(&["logs", "talker", "-c", "talk", "--tail", "1"])),
        "world\n"
    );

    let status = succeed(&mut lab.kubectl(&["get", "pod", "talker", "-o", "json"]));
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["metadata"]["labels"]["tier"], "test");
    let containers = status["status"]["containerStatuses"].as_array().unwrap();
    let unknown = containers.iter().find(|one| one["name"] == "unknown").unwrap();
    assert_eq!(unknown["state"]["waiting"]["reason"], "ErrImageNeverPull");
    let described = succeed(&mut lab.kubectl(&["describe", "pod", "talker"]));
    assert!(
        described.contains("tombolo/probe") && described.contains("ErrImageNeverPull"),
        "{described}"
    );

    let gone = lab.addresses("talker");
    succeed(&mut lab.kubectl(&["delete", "pod", "talker", "--timeout=20s"]));
    let left = run(&mut lab.kubectl(&["get", "pod", "talker"]));
    assert!(
        String::from_utf8_lossy(&left.stderr).contains("NotFound"),
        "{left:?}"
    );
    // With the object, everything of the pod is gone.
    for node in ["node1", "node2"] {
        let endpoints = succeed(&mut lab.exec(node, &[support::TOMBOLO, "get", "endpoints", "--json"]));
        assert!(
            !endpoints.contains("talker") && !endpoints.contains(&format!("\"{}\"", gone[0])),
            "{endpoints}"
        );
    }
}

#[test]
fn a_container_that_ends_is_started_again_or_not_as_its_pod_says() {
    let lab = Lab::up(1, &[]);
    let folder = tempfile::tempdir().unwrap();
    let apply = |name: &str, policy: &str, command: &str| {
        let pod = serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {
                "restartPolicy": policy,
                "containers": [{"name": "one", "image": "tombolo/probe", "command": ["sh", "-c", command]}],
            },
        });
        let file = folder.path().join(format!("{name}.json"));
        fs::write(&file, pod.to_string()).unwrap();
        succeed(&mut lab.kubectl(&["apply", "-f", file.to_str().unwrap()]));
    };
    let phase =
        |name: &str| succeed(&mut lab.kubectl(&["get", "pod", name, "-o", "jsonpath={.status.phase}"]));
    apply("good", "Never", "true");
    apply("bad", "OnFailure", "exit 3");
    eventually("good to succeed", 10, || {
        (phase("good") == "Succeeded").then_some(())
    });
    let path = "jsonpath={.status.containerStatuses[0].restartCount}";
    eventually("bad to be started again", 10, || {
        let restarts = succeed(&mut lab.kubectl(&["get", "pod", "bad", "-o", path]));
        (restarts.parse::<u32>().ok()? >= 1).then_some(())
    });
}
