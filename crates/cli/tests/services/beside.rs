//! What others are told of Services.

use serde_json::{Value, json};

use crate::objects::{NODES, service};
use crate::support::{Lab, eventually, run, succeed};

/// `curl` from outside: the status, the headers (in lower case) and the body.
fn get(lab: &Lab, node: usize, port: u64, path: &str) -> Option<(u16, String, Value)> {
    let url = format!("http://{}:{port}{path}", NODES[node][0]);
    let output = run(&mut lab.exec(
        "outside",
        &["curl", "--silent", "--include", "--max-time", "2", &url],
    ));
    let text = String::from_utf8(output.stdout).unwrap();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, head.to_lowercase(), serde_json::from_str(body).ok()?))
}

/// A load balancer asks each node whether to send a Service's clients there, in kube-proxy's words.
pub fn load_balancers_learn_where_endpoints_are(lab: &Lab) {
    let local = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local"});
    lab.apply(&[service("asked", json!({"name": "a2"}), local)]);
    let port = lab.object("service", "asked")["spec"]["healthCheckNodePort"]
        .as_u64()
        .unwrap();
    for (node, endpoints) in [(0, 0), (1, 1), (2, 0)] {
        let wanted = json!({
            "service": {"namespace": "default", "name": "asked"},
            "localEndpoints": endpoints,
            "serviceProxyHealthy": true,
        });
        let status = if endpoints > 0 { 200 } else { 503 };
        let head = eventually("the answer to a health check", 10, || {
            let (found, head, body) = get(lab, node, port, "/")?;
            (found == status && body == wanted).then_some(head)
        });
        assert!(
            head.contains(&format!("x-load-balancing-endpoint-weight: {endpoints}")),
            "{head}"
        );
        for path in ["/healthz", "/livez"] {
            let (status, _, body) = get(lab, node, 10256, path).unwrap();
            assert_eq!(status, 200, "{body}");
            assert!(body["currentTime"].is_string(), "{body}");
        }
    }
    succeed(&mut lab.kubectl(&[
        "patch",
        "service",
        "asked",
        "-p",
        r#"{"spec":{"externalTrafficPolicy":"Cluster"}}"#,
    ]));
    eventually("nobody answers any more", 10, || {
        get(lab, 1, port, "/").is_none().then_some(())
    });
}

/// Two Services claim an address and port: the older has it, and the other one is told.
pub fn the_younger_of_two_gets_an_event(lab: &Lab) {
    let claim = |name| {
        service(
            name,
            json!({"name": "a1"}),
            json!({"externalIPs": ["192.0.2.100"]}),
        )
    };
    lab.apply(&[claim("older")]);
    // Ages are told in seconds.
    let created = |name| lab.object("service", name)["metadata"]["creationTimestamp"].clone();
    eventually("a second to pass", 5, || {
        lab.apply(&[claim("younger")]);
        let is_younger = created("younger") != created("older");
        if !is_younger {
            succeed(&mut lab.kubectl(&["delete", "service", "younger"]));
        }
        is_younger.then_some(())
    });
    let event = eventually("an Event", 10, || {
        let selector = "involvedObject.name=younger,reason=AddressInUse";
        let events =
            succeed(&mut lab.kubectl(&["get", "events", "--field-selector", selector, "-o", "json"]));
        let events: Value = serde_json::from_str(&events).unwrap();
        events["items"].as_array()?.first().cloned()
    });
    let message = event["message"].as_str().unwrap();
    assert!(
        message.contains("192.0.2.100:80") && message.contains("default/older"),
        "{event}"
    );
    let status = succeed(&mut lab.exec("node1", &[crate::support::TOMBOLO, "status"]));
    assert!(
        status.contains("Service default/younger: 192.0.2.100:80"),
        "{status}"
    );
}

/// kube-proxy beside has nothing left to do, and `tombolo status` says so where it is.
pub fn kube_proxy_is_noticed(lab: &Lab) {
    let says = || {
        let status = succeed(&mut lab.exec("node2", &[crate::support::TOMBOLO, "status"]));
        status.contains("kube-proxy can be taken away")
    };
    assert!(!says());
    succeed(&mut lab.exec(
        "node2",
        &["nft", "add table ip nat; add chain ip nat KUBE-SERVICES"],
    ));
    assert!(says());
    succeed(&mut lab.exec("node2", &["nft", "delete table ip nat"]));
    assert!(!says());
    succeed(&mut lab.exec(
        "node2",
        &["nft", "add table ip kube-proxy; add chain ip kube-proxy services"],
    ));
    assert!(says());
    succeed(&mut lab.exec("node2", &["nft", "delete table ip kube-proxy"]));
}
