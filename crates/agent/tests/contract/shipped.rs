//! What is shipped has no fault points. (`make build` looks into the programs themselves.)

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
