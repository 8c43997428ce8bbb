//! The plugin's environment and stdin, through everything that looks at them before the agent is asked, and the
//! documents that go to stdout.
//!
//! An input is lines `NAME=value`, an empty line, and what comes on stdin.

#![no_main]

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use tombolo_cni::agent::{AddResponse, decode_path_segment, encode_path_segment};
use tombolo_cni::{AddResult, Config, Environment, Error, INTERFACE_NAME_MAX, Version, host_link_name};

fuzz_target!(|input: &[u8]| {
    let end = input.windows(2).position(|two| two == b"\n\n");
    let (variables, stdin) = match end {
        Some(end) => (&input[..end], &input[end + 2..]),
        None => (input, &[][..]),
    };
    look_at_environment(variables);
    look_at_config(stdin);
});

fn look_at_environment(variables: &[u8]) {
    let value = |name: &str| {
        let line = variables
            .split(|byte| *byte == b'\n')
            .find_map(|line| line.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
        Some(OsString::from(std::ffi::OsStr::from_bytes(line)))
    };
    let environment = Environment::new(value);
    check(environment.command());
    if let Some(argument) = check(environment.args()).and_then(|args| args.ip) {
        let config = Config::parse(br#"{"cniVersion":"1.1.0","name":"n"}"#);
        check(config.and_then(|config| config.requested_ips(Some(&argument))));
    }
    if let Some(path) = check(environment.netns()) {
        assert!(path.is_absolute(), "{path:?}");
    }
    let id = check(environment.container_id());
    let name = check(environment.interface_name());
    if let Some(id) = &id {
        // It becomes part of file names.
        assert!(
            !id.as_str().contains('/') && !id.as_str().starts_with('.'),
            "{id}"
        );
    }
    if let (Some(id), Some(name)) = (id, name) {
        let link = host_link_name(id.as_str(), name.as_str());
        assert!(link.len() <= INTERFACE_NAME_MAX, "{link}");
        assert!(name.as_str().len() <= INTERFACE_NAME_MAX, "{name}");
        let segment = encode_path_segment(name.as_str());
        assert_eq!(decode_path_segment(&segment).as_deref(), Some(name.as_str()));
    }
    let _ = decode_path_segment(&String::from_utf8_lossy(variables));
}

fn look_at_config(stdin: &[u8]) {
    let _ = Config::version_for_errors(stdin);
    let Some(config) = check(Config::parse(stdin)) else {
        return;
    };
    assert!(config.socket.is_absolute() && config.state_dir.is_absolute());
    check(config.check_supported());
    check(config.dns());
    check(config.requested_ips(None));
    check(config.valid_attachments());
    let Some(prev) = check(config.prev_result()) else {
        return;
    };
    let mut result = prev.unwrap_or_default();
    let _ = result.expected("eth0", "/run/netns/pod");
    for version in Version::ALL {
        is_document(&result.to_json(version), version);
    }
    // The newest version has room for all of it.
    let again: AddResult = serde_json::from_str(&result.to_json(Version::CURRENT)).expect("a result");
    assert_eq!(again, result);
    let before = (result.interfaces.len(), result.ips.len());
    result.append(made(), "/run/netns/pod");
    assert_eq!(
        (result.interfaces.len(), result.ips.len()),
        (before.0 + 2, before.1 + 1)
    );
    is_document(&result.to_json(config.version), config.version);
}

/// What an agent answers.
fn made() -> AddResponse {
    serde_json::from_value(json!({
        "hostInterface": {"name": "tmb0", "mac": "02:74:6f:6d:62:01"},
        "podInterface": {"name": "eth0", "mac": "02:00:00:00:00:0a", "mtu": 1450},
        "addresses": [{"address": "10.244.1.5/32", "gateway": "169.254.1.1"}],
    }))
    .expect("an answer")
}

/// What is refused is refused by a document that a runtime can read.
fn check<T>(result: Result<T, Error>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            let document = is_document(&error.to_json(Version::CURRENT), Version::CURRENT);
            assert!(document["code"].as_u64() > Some(0), "{document}");
            assert!(
                document["msg"].as_str().is_some_and(|text| !text.is_empty()),
                "{document}"
            );
            None
        }
    }
}

fn is_document(text: &str, version: Version) -> Value {
    let document: Value = serde_json::from_str(text).expect("JSON");
    assert_eq!(document["cniVersion"], version.as_str(), "{text}");
    document
}
