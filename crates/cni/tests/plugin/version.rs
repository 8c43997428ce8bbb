//! VERSION, and operations that a version does not have.

use serde_json::json;

use crate::run::{Node, plugin, run};

fn version(stdin: &str) -> serde_json::Value {
    run(plugin(), &[("CNI_COMMAND", "VERSION".into())], stdin.as_bytes()).success()
}

#[test]
fn version_answers_in_the_version_asked_for() {
    let all = json!(["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]);
    for (stdin, expected) in [
        (r#"{"cniVersion":"0.4.0"}"#, "0.4.0"),
        (r#"{"cniVersion":"1.1.0","name":"n"}"#, "1.1.0"),
        (r#"{"cniVersion":"9.9.9"}"#, "1.1.0"),
        ("{}", "1.1.0"),
        ("", "1.1.0"),
        ("nonsense", "1.1.0"),
    ] {
        assert_eq!(
            version(stdin),
            json!({ "cniVersion": expected, "supportedVersions": all }),
            "{stdin}"
        );
    }
}

#[test]
fn what_a_version_does_not_have_is_incompatible_with_it() {
    let node = Node::new();
    for (command, version) in [("CHECK", "0.3.1"), ("STATUS", "1.0.0"), ("GC", "0.4.0")] {
        let error = node.run(command, version).error(1, version);
        assert!(error.contains(command), "{error}");
    }
}
