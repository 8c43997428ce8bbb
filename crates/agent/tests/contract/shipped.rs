//! What is shipped has no fault points.

use std::process::Command;

/// The packages with the features that a build of all that is shipped has, or with those of the tests.
fn features(edges: &str) -> String {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--workspace",
            "--prefix",
            "none",
            "--edges",
            edges,
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "cargo tree: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn nothing_but_tests_turns_fault_points_on() {
    let shipped = features("normal,build,features");
    assert!(
        shipped.contains("tombolo-cli") && shipped.contains("tombolo-cni"),
        "{shipped}"
    );
    assert!(!shipped.contains("fault-points"), "a dependency turns them on");
    // The same question finds them where they are.
    assert!(features("all,features").contains("tombolo-cni feature \"fault-points\""));
}

#[test]
fn without_the_feature_nothing_is_compiled_in() {
    // By their marker: the name of the environment variable that arms them.
    let marker = tombolo_cni::fault::FILE.as_bytes();
    let has_marker = |program: &std::path::Path| {
        let bytes = std::fs::read(program).unwrap();
        bytes.windows(marker.len()).any(|window| window == marker)
    };
    assert!(has_marker(std::path::Path::new(env!(
        "CARGO_BIN_EXE_tombolo-agent"
    ))));
    // The plugin as it is shipped, but for its optimisation; in a folder of its own, where no test runs it.
    let agent = std::path::Path::new(env!("CARGO_BIN_EXE_tombolo-agent"));
    assert!(has_marker(agent));
    let folder = agent.parent().unwrap().with_file_name("shipped");
    let built = Command::new(env!("CARGO"))
        .args([
            "build",
            "--quiet",
            "--offline",
            "--package",
            "tombolo-cni",
            "--bin",
            "tombolo-cni",
        ])
        .arg("--target-dir")
        .arg(&folder)
        .status()
        .unwrap();
    assert!(built.success(), "cargo cannot build the plugin");
    assert!(!has_marker(&folder.join("debug/tombolo-cni")));
}
