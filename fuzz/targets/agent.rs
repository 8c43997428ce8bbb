//! Requests to the agent's local API: the whole of it, with an address store and tables of its own.
//!
//! An input is a line `METHOD /path`, an empty line, and the body. The agent is in an empty network namespace, and
//! no request that names a file which exists, such as a pod's namespace, is sent. Needs root.

#![no_main]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::Path;
use std::sync::LazyLock;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use clap::Parser;
use libfuzzer_sys::{Corpus, fuzz_target};
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tombolo_cni::agent::ErrorBody;
use tombolo_cni::error::code;
use tombolo_testkit::{Bpffs, Disk};
use tower::ServiceExt;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    agent: tombolo_agent::Args,
}

struct Agent {
    api: Router,
    runtime: Runtime,
    _folders: (Bpffs, Disk),
}

static AGENT: LazyLock<Agent> = LazyLock::new(|| {
    unshare(CloneFlags::CLONE_NEWNET).expect("the agent's tables are in the kernel, which needs root");
    let (bpffs, state) = (Bpffs::new(), Disk::new(64 << 20));
    let mut args = Cli::parse_from(["agent", "--node", "node1"]).agent;
    args.bpffs = bpffs.path().join("tombolo");
    args.state_dir = state.path().join("state");
    args.socket = state.path().join("agent.sock");
    Agent {
        api: tombolo_agent::local_api(&args).unwrap(),
        runtime: Builder::new_current_thread().enable_all().build().unwrap(),
        _folders: (bpffs, state),
    }
});

fuzz_target!(|input: &[u8]| -> Corpus {
    let Some(end) = input.windows(2).position(|two| two == b"\n\n") else {
        return Corpus::Reject;
    };
    let (line, body) = (&input[..end], &input[end + 2..]);
    let Some((method, path)) = std::str::from_utf8(line)
        .ok()
        .and_then(|line| line.split_once(' '))
    else {
        return Corpus::Reject;
    };
    if serde_json::from_slice(body).is_ok_and(|body| names_a_file(&body)) {
        return Corpus::Reject;
    }
    let request = Request::builder()
        .method(method)
        .uri(path)
        .body(Body::from(body.to_vec()));
    let Ok(request) = request else {
        return Corpus::Reject;
    };
    AGENT.runtime.block_on(send(request));
    Corpus::Keep
});

async fn send(request: Request<Body>) {
    let response = AGENT.api.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    if status == StatusCode::OK {
        serde_json::from_slice::<Value>(&body).expect("an answer in JSON");
    } else if status != StatusCode::PAYLOAD_TOO_LARGE {
        let error: ErrorBody = serde_json::from_slice(&body).expect("an error as the plugin reads it");
        assert!(
            error.code != code::AGENT_ANSWER && !error.msg.is_empty(),
            "{error:?}"
        );
    }
}

fn names_a_file(body: &Value) -> bool {
    match body {
        Value::String(text) => text.contains('/') && Path::new(text).exists(),
        Value::Array(items) => items.iter().any(names_a_file),
        Value::Object(fields) => fields.values().any(names_a_file),
        _ => false,
    }
}
