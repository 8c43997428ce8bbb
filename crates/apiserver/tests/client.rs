//! The server as client libraries see it: kube-rs over TLS.

#![allow(clippy::unwrap_used, reason = "what is not there fails the test")]

mod support;

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{
    DeleteParams, ListParams, ObjectList, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::runtime::watcher;
use kube::{Api, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use support::TestServer;
use tokio::time::timeout;
use tombolo_kube::{Network, NodeNetwork};

const DEADLINE: Duration = Duration::from_secs(20);

fn pod(name: &str) -> Pod {
    from(json!({
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "main", "image": "tombolo/probe"}]},
    }))
}

fn node(name: &str) -> Node {
    from(json!({"metadata": {"name": name}}))
}

fn from<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn status(error: kube::Error) -> (u16, String, String) {
    match error {
        kube::Error::Api(s) => (s.code, s.reason.clone(), s.message.clone()),
        other => panic!("not an answer of the server: {other:?}"),
    }
}

#[tokio::test]
async fn objects_are_created_read_listed_and_deleted() {
    let server = TestServer::start().await;
    let nodes: Api<Node> = Api::all(server.client().await);
    let made = nodes.create(&PostParams::default(), &node("a")).await.unwrap();
    assert!(made.uid().is_some() && made.creation_timestamp().is_some());
    assert_eq!(made.metadata.generation, Some(1));
    nodes.create(&PostParams::default(), &node("b")).await.unwrap();
    let names: Vec<_> = nodes
        .list(&ListParams::default())
        .await
        .unwrap()
        .iter()
        .map(|n| n.name_any())
        .collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(nodes.get("a").await.unwrap().uid(), made.uid());

    let (code, reason, message) = status(
        nodes
            .create(&PostParams::default(), &node("a"))
            .await
            .unwrap_err(),
    );
    assert_eq!(
        (code, &*reason, &*message),
        (409, "AlreadyExists", "nodes \"a\" already exists")
    );
    nodes
        .delete("a", &DeleteParams::default())
        .await
        .unwrap()
        .right()
        .expect("the node goes at once");
    let (code, reason, message) = status(nodes.get("a").await.unwrap_err());
    assert_eq!(
        (code, &*reason, &*message),
        (404, "NotFound", "nodes \"a\" not found")
    );
    server.stop().await;
}

#[tokio::test]
async fn lists_come_in_pages_and_are_of_one_moment() {
    let server = TestServer::start().await;
    let client = server.client().await;
    let nodes: Api<Node> = Api::all(client.clone());
    for number in 0..5 {
        let node = node(&format!("n{number}"));
        nodes.create(&PostParams::default(), &node).await.unwrap();
    }
    let names = |list: &ObjectList<Node>| list.iter().map(ResourceExt::name_any).collect::<Vec<_>>();
    let mut page = ListParams::default().limit(2);
    let mut seen = Vec::new();
    let mut revisions = BTreeSet::new();
    for left in [Some(3), Some(1), None] {
        let list = nodes.list(&page).await.unwrap();
        assert_eq!(list.metadata.remaining_item_count, left);
        seen.extend(names(&list));
        revisions.insert(list.metadata.resource_version.clone());
        page.continue_token = list.metadata.continue_.clone();
        // What happens meanwhile is not seen: not what goes, comes, or changes.
        let goes = format!("n{}", seen.len());
        if nodes.get(&goes).await.is_ok() {
            nodes.delete(&goes, &DeleteParams::default()).await.unwrap();
            let comes = node(&format!("{goes}-b"));
            nodes.create(&PostParams::default(), &comes).await.unwrap();
        }
    }
    assert_eq!(
        (seen, page.continue_token),
        (["n0", "n1", "n2", "n3", "n4"].map(str::to_owned).into(), None)
    );
    assert_eq!(revisions.len(), 1, "{revisions:?}");
    assert_eq!(
        names(&nodes.list(&ListParams::default()).await.unwrap()),
        ["n0", "n1", "n2-b", "n3", "n4-b"]
    );

    // Of selected objects, how many are left is not told.
    let some = nodes
        .list(&ListParams::default().limit(1).fields("metadata.name!=n1"))
        .await
        .unwrap();
    assert_eq!(
        (names(&some), some.metadata.remaining_item_count),
        (vec!["n0".to_owned()], None)
    );
    let next = ListParams::default().limit(9).fields("metadata.name!=n1");
    let next = next.continue_token(&some.metadata.continue_.unwrap());
    assert_eq!(names(&nodes.list(&next).await.unwrap()), ["n2-b", "n3", "n4-b"]);

    for (token, code, reason) in [("nonsense", 400, "BadRequest"), ("1//n0", 410, "Expired")] {
        let wrong = ListParams::default().continue_token(token);
        let (got, why, message) = status(nodes.list(&wrong).await.unwrap_err());
        assert_eq!((got, &*why), (code, reason), "{message}");
        assert!(message.contains("continue"), "{message}");
    }

    // Watchers of kube-rs list by pages of 500, and then miss nothing.
    let pods: Api<Pod> = Api::default_namespaced(client);
    for number in 0..7 {
        pods.create(&PostParams::default(), &pod(&format!("p{number}")))
            .await
            .unwrap();
    }
    let events = watcher(pods.clone(), watcher::Config::default().page_size(3));
    let mut events = pin!(events);
    let mut listed = Vec::new();
    loop {
        match timeout(DEADLINE, events.try_next())
            .await
            .expect("an event in time")
            .unwrap()
            .unwrap()
        {
            watcher::Event::Init => {}
            watcher::Event::InitApply(pod) => listed.push(pod.name_any()),
            watcher::Event::InitDone => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(listed, ["p0", "p1", "p2", "p3", "p4", "p5", "p6"]);
    server.stop().await;
}

#[tokio::test]
async fn two_servers_share_nothing() {
    let (one, two) = (TestServer::start().await, TestServer::start().await);
    let nodes: Api<Node> = Api::all(one.client().await);
    let others: Api<Node> = Api::all(two.client().await);
    nodes.create(&PostParams::default(), &node("a")).await.unwrap();
    assert!(
        others
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );
    one.stop().await;
    others.create(&PostParams::default(), &node("b")).await.unwrap();
    two.stop().await;
}

#[tokio::test]
async fn a_watch_tells_what_happens_to_selected_objects() {
    let server = TestServer::start().await;
    let pods: Api<Pod> = Api::default_namespaced(server.client().await);
    let start = pods
        .list(&ListParams::default())
        .await
        .unwrap()
        .metadata
        .resource_version
        .unwrap();
    pods.create(&PostParams::default(), &pod("x")).await.unwrap();
    pods.create(&PostParams::default(), &pod("y")).await.unwrap();
    let selected = WatchParams::default().labels("app in (x, z)").timeout(30);
    let events = pods.watch(&selected, &start).await.unwrap();
    let mut events = pin!(events);
    let mut next = async || match timeout(DEADLINE, events.try_next())
        .await
        .expect("an event in time")
        .unwrap()
        .unwrap()
    {
        WatchEvent::Added(p) => format!("added {}", p.name_any()),
        WatchEvent::Modified(p) => format!("modified {}", p.name_any()),
        WatchEvent::Deleted(p) => format!("deleted {}", p.name_any()),
        other => format!("{other:?}"),
    };
    assert_eq!(next().await, "added x");
    let label = |value: &str| Patch::Merge(json!({"metadata": {"labels": {"app": value}}}));
    pods.patch("x", &PatchParams::default(), &label("z"))
        .await
        .unwrap();
    assert_eq!(next().await, "modified x");
    pods.patch("x", &PatchParams::default(), &label("other"))
        .await
        .unwrap();
    assert_eq!(next().await, "deleted x");
    pods.patch("y", &PatchParams::default(), &label("x"))
        .await
        .unwrap();
    assert_eq!(next().await, "added y");
    pods.delete("y", &DeleteParams::default()).await.unwrap();
    assert_eq!(next().await, "deleted y");
    server.stop().await;
}

#[tokio::test]
async fn a_watcher_that_fell_behind_lists_anew() {
    let server = TestServer::with_history(4).await;
    let nodes: Api<Node> = Api::all(server.client().await);
    let start = nodes
        .list(&ListParams::default())
        .await
        .unwrap()
        .metadata
        .resource_version
        .unwrap();
    for n in 0..6 {
        nodes
            .create(&PostParams::default(), &node(&format!("n{n}")))
            .await
            .unwrap();
    }
    for expired in [&*start, "1", "99999999999999"] {
        let events = nodes.watch(&WatchParams::default(), expired).await.unwrap();
        match timeout(DEADLINE, pin!(events).try_next()).await.unwrap().unwrap() {
            Some(WatchEvent::Error(error)) => assert_eq!((error.code, &*error.reason), (410, "Expired")),
            other => panic!("not an end: {other:?}"),
        }
    }

    let mut seen = BTreeSet::new();
    let events = watcher(nodes.clone(), watcher::Config::default());
    let mut events = pin!(events);
    nodes.delete("n0", &DeleteParams::default()).await.unwrap();
    while seen.len() < 6 || seen.contains("n1") {
        match timeout(DEADLINE, events.next())
            .await
            .expect("an event in time")
            .unwrap()
            .unwrap()
        {
            watcher::Event::Init => seen.clear(),
            watcher::Event::InitDone => {
                nodes.create(&PostParams::default(), &node("late")).await.unwrap();
                nodes.delete("n1", &DeleteParams::default()).await.unwrap();
                nodes
                    .create(&PostParams::default(), &node("later"))
                    .await
                    .unwrap();
            }
            watcher::Event::InitApply(n) | watcher::Event::Apply(n) => {
                seen.insert(n.name_any());
            }
            watcher::Event::Delete(n) => {
                assert!(seen.remove(&n.name_any()));
            }
        }
    }
    assert_eq!(
        seen.iter().collect::<Vec<_>>(),
        ["late", "later", "n2", "n3", "n4", "n5"]
    );
    server.stop().await;
}

#[tokio::test]
async fn whoever_comes_late_is_told_of_the_conflict() {
    let server = TestServer::start().await;
    let nodes: Api<Node> = Api::all(server.client().await);
    let first = nodes.create(&PostParams::default(), &node("a")).await.unwrap();
    let mut mine = first.clone();
    mine.spec.get_or_insert_default().pod_cidr = Some("10.0.0.0/24".to_owned());
    let changed = nodes.replace("a", &PostParams::default(), &mine).await.unwrap();
    assert_eq!(changed.metadata.generation, Some(2));
    let (code, reason, message) = status(
        nodes
            .replace("a", &PostParams::default(), &first)
            .await
            .unwrap_err(),
    );
    assert_eq!((code, &*reason), (409, "Conflict"));
    assert!(
        message.ends_with(
            "the object has been modified; please apply your changes to the latest version and try again"
        ),
        "{message}"
    );
    let same = nodes
        .replace("a", &PostParams::default(), &changed)
        .await
        .unwrap();
    assert_eq!(
        same.resource_version(),
        changed.resource_version(),
        "nothing changed, so no revision"
    );
    let other = DeleteParams {
        preconditions: Some(kube::api::Preconditions {
            uid: Some("other".into()),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    assert_eq!(status(nodes.delete("a", &other).await.unwrap_err()).0, 409);
    server.stop().await;
}

#[tokio::test]
async fn status_has_a_path_of_its_own() {
    let server = TestServer::start().await;
    let nodes: Api<NodeNetwork> = Api::all(server.client().await);
    let make = |pod_mtu: u16| -> NodeNetwork {
        from(json!({
            "apiVersion": "tombolo.dev/v1alpha1", "kind": "NodeNetwork", "metadata": {"name": "a"},
            "spec": {"index": 1, "blocks": ["10.0.0.0/24"]}, "status": {"podMtu": pod_mtu},
        }))
    };
    let made = nodes.create(&PostParams::default(), &make(1400)).await.unwrap();
    assert!(made.status.is_none(), "a status is not created with the object");
    let changed = nodes
        .replace_status("a", &PostParams::default(), &make(1450))
        .await
        .unwrap();
    assert_eq!(changed.status.as_ref().unwrap().pod_mtu, 1450);
    assert_eq!(changed.metadata.generation, Some(1));
    let patch = Patch::Merge(json!({"spec": {"index": 2}, "status": {"podMtu": 9000}}));
    let changed = nodes.patch("a", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!((changed.spec.index, changed.status.unwrap().pod_mtu), (2, 1450));
    let changed = nodes
        .patch_status("a", &PatchParams::default(), &patch)
        .await
        .unwrap();
    assert_eq!((changed.spec.index, changed.status.unwrap().pod_mtu), (2, 9000));
    server.stop().await;
}

#[tokio::test]
async fn deletion_waits_for_finalizers_and_grace() {
    let server = TestServer::start().await;
    let pods: Api<Pod> = Api::default_namespaced(server.client().await);
    let mut guarded = pod("guarded");
    guarded.metadata.finalizers = Some(vec!["tombolo.dev/test".to_owned()]);
    pods.create(&PostParams::default(), &guarded).await.unwrap();
    let ending = pods
        .delete("guarded", &DeleteParams::default())
        .await
        .unwrap()
        .left()
        .unwrap();
    assert!(ending.metadata.deletion_timestamp.is_some());
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    pods.patch("guarded", &PatchParams::default(), &free)
        .await
        .unwrap();
    assert_eq!(status(pods.get("guarded").await.unwrap_err()).0, 404);

    let mut running = pod("running");
    running.spec.as_mut().unwrap().node_name = Some("n1".to_owned());
    pods.create(&PostParams::default(), &running).await.unwrap();
    let ending = pods
        .delete("running", &DeleteParams::default())
        .await
        .unwrap()
        .left()
        .unwrap();
    assert_eq!(ending.metadata.deletion_grace_period_seconds, Some(30));
    let again = pods
        .delete("running", &DeleteParams::default())
        .await
        .unwrap()
        .left()
        .unwrap();
    assert_eq!(
        again.resource_version(),
        ending.resource_version(),
        "already ending"
    );
    pods.delete("running", &DeleteParams::default().grace_period(0))
        .await
        .unwrap()
        .right()
        .unwrap();
    server.stop().await;
}

#[tokio::test]
async fn names_may_be_generated_but_not_made_up() {
    let server = TestServer::start().await;
    let pods: Api<Pod> = Api::default_namespaced(server.client().await);
    let mut generated = pod("");
    (generated.metadata.name, generated.metadata.generate_name) = (None, Some("web-".to_owned()));
    let name = pods
        .create(&PostParams::default(), &generated)
        .await
        .unwrap()
        .name_any();
    assert!(name.starts_with("web-") && name.len() == 9, "{name}");
    for bad in ["Upper", "a/b", "..", "-a", &"a".repeat(254)] {
        let (code, _, message) = status(pods.create(&PostParams::default(), &pod(bad)).await.unwrap_err());
        assert_eq!(code, 422, "{bad}: {message}");
        assert!(message.contains("metadata.name"), "{message}");
    }
    server.stop().await;
}

/// Sends bytes as they are, which no client library would.
async fn raw(
    server: &TestServer,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (u16, Value) {
    let mut request = http::Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(body.as_bytes().to_vec()).unwrap();
    let response = server
        .client()
        .await
        .send(request.map(kube::client::Body::from))
        .await
        .unwrap();
    let code = response.status().as_u16();
    let body = response.into_body().collect_bytes().await.unwrap();
    (code, serde_json::from_slice(&body).unwrap_or_default())
}

#[tokio::test]
async fn bad_requests_are_refused_and_change_nothing() {
    let server = TestServer::start().await;
    let existing: Api<Pod> = Api::default_namespaced(server.client().await);
    existing
        .create(&PostParams::default(), &pod("good"))
        .await
        .unwrap();
    let (nodes, namespaces) = ("/api/v1/nodes", "/api/v1/namespaces");
    let pods = "/api/v1/namespaces/default/pods";
    let json_type = [("content-type", "application/json")];
    let good = r#"{"apiVersion":"v1","kind":"Node","metadata":{"name":"x"}}"#;
    let large = format!(
        r#"{{"apiVersion":"v1","kind":"Node","metadata":{{"name":"{}"}}}}"#,
        "x".repeat(3 << 20)
    );
    for (method, path, headers, body, code) in [
        ("POST", nodes, &json_type[..], "{", 400),
        ("POST", nodes, &json_type, "[]", 400),
        (
            "POST",
            nodes,
            &json_type,
            r#"{"kind":"Pod","apiVersion":"v1"}"#,
            400,
        ),
        (
            "POST",
            nodes,
            &json_type,
            r#"{"kind":"Node","apiVersion":"v1","metadata":3}"#,
            400,
        ),
        (
            "POST",
            nodes,
            &json_type,
            r#"{"kind":"Node","apiVersion":"v1","metadata":{"name":7}}"#,
            422,
        ),
        (
            "POST",
            namespaces,
            &json_type,
            r#"{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"x","labels":"y"}}"#,
            422,
        ),
        (
            "POST",
            namespaces,
            &json_type,
            r#"{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"x"},"spec":"y"}"#,
            422,
        ),
        (
            "POST",
            pods,
            &json_type,
            r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"x"},"spec":{"containers":["y",3]}}"#,
            422,
        ),
        (
            "POST",
            pods,
            &json_type,
            r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"x"},"spec":"y","status":3}"#,
            422,
        ),
        (
            "PATCH",
            "/api/v1/namespaces/default/pods/good",
            &[("content-type", "application/merge-patch+json")],
            r#"{"spec":{"containers":["y"]}}"#,
            422,
        ),
        (
            "PATCH",
            "/api/v1/namespaces/default/pods/good",
            &[("content-type", "application/merge-patch+json")],
            r#"{"spec":null}"#,
            422,
        ),
        ("POST", nodes, &json_type, &large, 413),
        ("POST", nodes, &[("content-type", "application/yaml")], good, 415),
        (
            "POST",
            nodes,
            &[("content-type", "application/vnd.kubernetes.protobuf")],
            "k8s\0",
            415,
        ),
        (
            "POST",
            "/api/v1/pods",
            &json_type,
            r#"{"kind":"Pod","apiVersion":"v1"}"#,
            405,
        ),
        ("GET", nodes, &[("accept", "application/xml")], "", 406),
        ("GET", "/api/v1/nodes?labelSelector=a%20b", &[], "", 400),
        (
            "GET",
            "/api/v1/nodes?fieldSelector=spec.nothing%3D1",
            &[],
            "",
            400,
        ),
        ("GET", "/api/v1/nodes?watch=1&resourceVersion=x", &[], "", 400),
        (
            "POST",
            "/api/v1/namespaces/default/services",
            &json_type,
            r#"{"kind":"Service","apiVersion":"v1","metadata":{"name":"x"},"spec":{"ports":["y"]}}"#,
            422,
        ),
        (
            "POST",
            "/api/v1/namespaces/default/services",
            &json_type,
            r#"{"kind":"Service","apiVersion":"v1","metadata":{"name":"x"},"spec":null}"#,
            422,
        ),
        ("GET", "/api/v1/secrets", &[], "", 404),
        ("GET", "/..%2f..%2fetc/passwd", &[], "", 404),
        ("DELETE", nodes, &[], "", 405),
        ("DELETE", "/api/v1/namespaces/default", &[], "", 403),
        (
            "PATCH",
            "/api/v1/namespaces/default",
            &[("content-type", "text/plain")],
            "{}",
            415,
        ),
        (
            "PATCH",
            "/api/v1/namespaces/default",
            &[("content-type", "application/merge-patch+json")],
            "3",
            400,
        ),
        (
            "PATCH",
            "/api/v1/namespaces/default",
            &[("content-type", "application/merge-patch+json")],
            r#"{"metadata":{"name":"x"}}"#,
            400,
        ),
        (
            "PATCH",
            "/api/v1/namespaces/default",
            &[("content-type", "application/json-patch+json")],
            r#"[{"op":"remove","path":""}]"#,
            422,
        ),
    ] {
        let (got, answer) = raw(&server, method, path, headers, body).await;
        assert_eq!(got, code, "{method} {path}: {answer}");
        assert_eq!(answer["kind"], "Status", "{method} {path}: {answer}");
        assert_eq!(answer["code"], code, "{method} {path}: {answer}");
    }
    let copies: Vec<Value> = std::iter::once(
        json!({"op": "add", "path": "/metadata/annotations", "value": {"a": "x".repeat(1000)}}),
    )
    .chain((0..40).map(|n| json!({"op": "copy", "from": "/metadata", "path": format!("/metadata/c{n}")})))
    .collect();
    let headers = [("content-type", "application/json-patch+json")];
    let (code, answer) = raw(
        &server,
        "PATCH",
        "/api/v1/namespaces/default",
        &headers,
        &json!(copies).to_string(),
    )
    .await;
    assert_eq!(code, 422, "{answer}");
    let list: Api<Node> = Api::all(server.client().await);
    assert!(list.list(&ListParams::default()).await.unwrap().items.is_empty());
    server.stop().await;
}

#[tokio::test]
async fn only_those_with_a_token_come_in() {
    let mut server = TestServer::start().await;
    assert_eq!(raw(&server, "GET", "/api", &[], "").await.0, 200);
    server.kubeconfig = server.kubeconfig.replace(&server.token, "guessed");
    let (code, answer) = raw(&server, "GET", "/api/v1/nodes", &[], "").await;
    assert_eq!((code, &answer["reason"]), (401, &json!("Unauthorized")));
    assert_eq!(raw(&server, "GET", "/healthz", &[], "").await.0, 401);
    assert_eq!(raw(&server, "GET", "/livez", &[], "").await.0, 200);
    server.stop().await;
}

#[tokio::test]
async fn an_open_watch_does_not_hold_up_the_end() {
    let server = TestServer::start().await;
    let networks: Api<Network> = Api::all(server.client().await);
    let events = networks.watch(&WatchParams::default(), "0").await.unwrap();
    timeout(DEADLINE, server.stop()).await.expect("the server ends");
    let rest: Vec<_> = timeout(DEADLINE, pin!(events).collect::<Vec<_>>())
        .await
        .expect("the watch ends");
    assert!(rest.iter().all(Result::is_err), "{rest:?}");
}
