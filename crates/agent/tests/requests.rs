//! Requests that nobody should send are answered with an error that the plugin can read.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use clap::Parser;
use nix::sched::{CloneFlags, unshare};
use tombolo_cni::agent::ErrorBody;
use tombolo_cni::error::code;
use tombolo_testkit::{Bpffs, Disk};
use tower::ServiceExt;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    agent: tombolo_agent::Args,
}

#[test]
fn a_path_that_is_no_text_is_refused_in_the_plugins_words() {
    unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
    let (bpffs, state) = (Bpffs::new(), Disk::new(64 << 20));
    let mut args = Cli::parse_from(["agent", "--node", "node1"]).agent;
    args.bpffs = bpffs.path().join("tombolo");
    args.state_dir = state.path().join("state");
    args.socket = state.path().join("agent.sock");
    let api = tombolo_agent::local_api(&args).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for (method, path) in [
        ("DELETE", "/v1/endpoints/a/%ff"),
        ("POST", "/v1/endpoints/%c3/eth0/check"),
    ] {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .body(Body::empty())
            .unwrap();
        let (status, body) = runtime.block_on(async {
            let response = api.clone().oneshot(request).await.unwrap();
            let status = response.status();
            (status, to_bytes(response.into_body(), usize::MAX).await.unwrap())
        });
        assert_eq!(status, StatusCode::BAD_REQUEST);
        let error: ErrorBody = serde_json::from_slice(&body).unwrap();
        assert_eq!(error.code, code::DECODING, "{error:?}");
    }
}
