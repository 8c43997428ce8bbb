//! Services as people make and change them: the real kubectl, and several writers at once.

#![allow(clippy::unwrap_used, reason = "what is not there fails the test")]

mod support;

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;
use support::TestServer;
use support::kubectl::{Kubectl, has};

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports:
  - {name: http, port: 80, targetPort: 8080}
  - {name: dns, port: 53, protocol: UDP}
";

const SLICE: &str = "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints:
- {addresses: [10.244.0.1], conditions: {ready: true}}
- {addresses: [10.244.0.2], conditions: {ready: true}}
- {addresses: [10.244.0.3], conditions: {ready: true}}
- {addresses: [10.244.0.4], conditions: {ready: false}}
";

async fn field(kubectl: &Kubectl, path: &str) -> String {
    let path = format!("jsonpath={{{path}}}");
    kubectl.ok(&["get", "svc", "web", "-o", &path]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn services_are_made_shown_and_described() {
    let server = TestServer::start().await;
    let kubectl = Kubectl::new(&server);
    let service = kubectl.file("service.yaml", SERVICE);
    let slice = kubectl.file("slice.yaml", SLICE);
    has(
        &kubectl.ok(&["apply", "-f", &service]).await,
        &["service/web created"],
    );
    has(&kubectl.ok(&["apply", "-f", &service]).await, &["unchanged"]);
    kubectl.ok(&["diff", "-f", &service]).await;
    kubectl.ok(&["apply", "-f", &slice]).await;
    let ip = field(&kubectl, ".spec.clusterIP").await;
    let shown = kubectl.ok(&["get", "svc,endpointslices", "-o", "wide"]).await;
    has(
        &shown,
        &[
            "CLUSTER-IP",
            "PORT(S)",
            "SELECTOR",
            &ip,
            "80/TCP,53/UDP",
            "app=web",
            "ADDRESSTYPE",
            "8080",
            "10.244.0.1,10.244.0.2,10.244.0.3 + 1 more...",
        ],
    );
    has(&kubectl.ok(&["get", "all"]).await, &["service/web"]);
    let described = kubectl.ok(&["describe", "svc", "web"]).await;
    has(
        &described,
        &[
            &ip,
            "Session Affinity:",
            "Internal Traffic Policy:",
            "8080/TCP",
            "10.244.0.1:8080",
        ],
    );
    has(
        &kubectl.ok(&["explain", "service.spec.ports.targetPort"]).await,
        &["IntOrString"],
    );
    kubectl.ok(&["delete", "svc", "web"]).await;
    has(
        &kubectl.fails(&["get", "svc", "web"]).await,
        &["services \"web\" not found"],
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_type_of_a_service_is_patched_to_and_fro() {
    let server = TestServer::start().await;
    let kubectl = Kubectl::new(&server);
    let pod = kubectl.file(
        "pod.yaml",
        r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "labels": {"app": "web"}},
            "spec": {"containers": [{"name": "main", "image": "tombolo/probe", "ports": [{"containerPort": 80}]}]}}"#,
    );
    kubectl.ok(&["apply", "-f", &pod]).await;
    kubectl
        .ok(&["expose", "pod", "web", "--port=80", "--name=web"])
        .await;
    let ip = field(&kubectl, ".spec.clusterIP").await;
    let patch = async |patch: &str| kubectl.ok(&["patch", "svc", "web", "-p", patch]).await;

    patch(r#"{"spec":{"type":"NodePort"}}"#).await;
    let port = field(&kubectl, ".spec.ports[0].nodePort").await;
    has(
        &kubectl.ok(&["get", "svc", "web"]).await,
        &["NodePort", &format!("80:{port}/TCP")],
    );
    patch(r#"{"spec":{"type":"LoadBalancer","externalTrafficPolicy":"Local"}}"#).await;
    assert_eq!(field(&kubectl, ".spec.ports[0].nodePort").await, port);
    assert_ne!(field(&kubectl, ".spec.healthCheckNodePort").await, "");
    has(
        &kubectl.ok(&["get", "svc", "web"]).await,
        &["LoadBalancer", "<pending>"],
    );
    let status = r#"{"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.7"}]}}}"#;
    kubectl
        .ok(&[
            "patch",
            "svc",
            "web",
            "--subresource=status",
            "--type=merge",
            "-p",
            status,
        ])
        .await;
    assert_eq!(
        field(&kubectl, ".status.loadBalancer.ingress[0].ipMode").await,
        "VIP"
    );
    has(&kubectl.ok(&["get", "svc", "web"]).await, &["192.0.2.7"]);

    patch(r#"{"spec":{"type":"ExternalName","externalName":"example.com"}}"#).await;
    assert_eq!(field(&kubectl, ".spec.clusterIPs").await, "");
    assert_eq!(field(&kubectl, ".status.loadBalancer").await, "{}");
    has(
        &kubectl.ok(&["get", "svc", "web"]).await,
        &["ExternalName", "example.com"],
    );
    patch(&format!(
        r#"{{"spec":{{"type":"ClusterIP","externalName":null,"clusterIP":"{ip}"}}}}"#
    ))
    .await;
    assert_eq!(field(&kubectl, ".spec.clusterIP").await, ip, "it was free again");

    for (wrong, wanted) in [
        (
            r#"{"spec":{"clusterIP":"10.96.0.77"}}"#,
            "may not change once set",
        ),
        (
            r#"{"spec":{"type":"NodePort","ports":[{"port":80,"nodePort":80}]}}"#,
            "The range of valid ports is 30000-32767",
        ),
        (r#"{"spec":{"ports":null}}"#, "spec.ports: Required value"),
    ] {
        has(
            &kubectl.fails(&["patch", "svc", "web", "-p", wrong]).await,
            &[wanted],
        );
    }
    patch(r#"{"spec":{"ports":[{"port":80,"name":"http"},{"port":81,"name":"more"}]}}"#).await;
    assert_eq!(
        field(&kubectl, ".spec.ports[*].name").await,
        "http more",
        "ports merge by their number"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_at_once_get_different_addresses_and_ports() {
    let server = TestServer::start().await;
    let services: Api<Service> = Api::default_namespaced(server.client().await);
    let service = |name: &str| -> Service {
        serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"type": "NodePort", "ipFamilyPolicy": "RequireDualStack", "ports": [{"port": 80}]},
        }))
        .unwrap()
    };
    let names: Vec<String> = (0..200).map(|n| format!("s{n}")).collect();
    let post = PostParams::default();
    let made = futures::future::try_join_all(names.iter().map(|name| {
        let (services, service, post) = (services.clone(), service(name), post.clone());
        async move { services.create(&post, &service).await }
    }));
    let made = made.await.unwrap();
    let specs: Vec<_> = made.into_iter().map(|s| s.spec.unwrap()).collect();
    let ips: BTreeSet<_> = specs
        .iter()
        .flat_map(|s| s.cluster_ips.clone().unwrap())
        .collect();
    let ports: BTreeSet<_> = specs
        .iter()
        .map(|s| s.ports.as_ref().unwrap()[0].node_port.unwrap())
        .collect();
    assert_eq!((ips.len(), ports.len()), (400, 200));

    // What is taken is refused until its holder goes.
    let mut again = service("again");
    again.spec.as_mut().unwrap().ports.as_mut().unwrap()[0].node_port = ports.first().copied();
    let refused = services.create(&post, &again).await.unwrap_err().to_string();
    has(&refused, &["provided port is already allocated"]);
    let holder = specs
        .iter()
        .position(|s| s.ports.as_ref().unwrap()[0].node_port == ports.first().copied());
    services
        .delete(&names[holder.unwrap()], &DeleteParams::default())
        .await
        .unwrap();
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    services.create(&dry, &again).await.unwrap();
    services.create(&post, &again).await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slices_that_cannot_be_are_refused() {
    let server = TestServer::start().await;
    let slices: Api<EndpointSlice> = Api::default_namespaced(server.client().await);
    for (slice, wanted) in [
        (
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["fd00::1"]}]}),
            "must be a valid IPv4 address",
        ),
        (
            json!({"addressType": "IPv6", "endpoints": [{"addresses": ["::1"]}]}),
            "loopback",
        ),
        (
            json!({"addressType": "Post", "endpoints": []}),
            "Unsupported value: \"Post\"",
        ),
        (
            json!({"addressType": "IPv4", "endpoints": [{"addresses": []}]}),
            "must contain at least 1 address",
        ),
        (
            json!({"addressType": "IPv4", "endpoints": [], "ports": [{"port": 1}, {"port": 2}]}),
            "ports[1].name: Duplicate value",
        ),
    ] {
        let mut slice = slice;
        slice["metadata"] = json!({"name": "s"});
        let slice = serde_json::from_value(slice).unwrap();
        let refused = slices.create(&PostParams::default(), &slice).await.unwrap_err();
        has(&refused.to_string(), &[wanted]);
    }
    server.stop().await;
}
