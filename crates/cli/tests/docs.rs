//! Every command of docs/model.md works as printed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use support::{Lab, TOMBOLO, succeed, unique_name};

#[test]
fn the_walk_through_the_model_works_as_printed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = fs::read_to_string(root.join("docs/model.md")).expect("docs/model.md");
    let blocks: Vec<&str> = text
        .split("```sh\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(blocks.len() > 8, "only {} blocks of commands", blocks.len());
    // `! command` does not end a script under `set -e` when it fails to fail.
    let script = blocks.concat().replace("\n! ", "\nrefute ");
    let script = format!("set -euo pipefail\nrefute() {{ if \"$@\"; then return 1; fi; }}\n{script}");
    let lab = Lab::named(unique_name());
    let programs = Path::new(TOMBOLO).parent().expect("a folder");
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").expect("PATH"));
    let mut bash = Command::new("bash");
    bash.args(["-c", &script])
        .current_dir(root)
        .env("TOMBOLO_LAB", &lab.name)
        .env("PATH", path);
    let output = succeed(&mut bash);
    assert!(output.contains("nothing of it is left"), "{output}");
}
