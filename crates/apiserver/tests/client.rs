//! The server as client libraries see it: kube-rs over TLS.

mod support;

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
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
