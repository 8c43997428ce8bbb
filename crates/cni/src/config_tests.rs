use super::*;

fn code_of(json: &str) -> u32 {
    Config::parse(json.as_bytes()).unwrap_err().code
}

#[test]
fn errors_have_their_codes() {
    for (json, expected) in [
        ("", code::DECODING),
        ("[]", code::DECODING),
        (r#"{"cniVersion":"1.0.0","name":"n""#, code::DECODING),
        (r#"{"cniVersion":1,"name":"n"}"#, code::DECODING),
        (
            r#"{"cniVersion":"1.0.0","cniVersions":"1.1.0","name":"n"}"#,
            code::DECODING,
        ),
        (r#"{"cniVersion":"1.0.0"}"#, code::INVALID_CONFIG),
        (r#"{"cniVersion":"1.0.0","name":"../n"}"#, code::INVALID_CONFIG),
        (
            r#"{"cniVersion":"1.0.0","name":"n","socket":"run"}"#,
            code::INVALID_CONFIG,
        ),
        (
            r#"{"cniVersion":"1.0.0","name":"n","timeoutSeconds":0}"#,
            code::INVALID_CONFIG,
        ),
        (r#"{"name":"n"}"#, code::INCOMPATIBLE_VERSION),
        (r#"{"cniVersion":"0.2.0","name":"n"}"#, code::INCOMPATIBLE_VERSION),
        (r#"{"cniVersion":"2.0.0","name":"n"}"#, code::INCOMPATIBLE_VERSION),
    ] {
        assert_eq!(code_of(json), expected, "{json}");
    }
}

#[test]
fn several_versions_may_be_listed() {
    let json = r#"{"cniVersion":"1.0.0","cniVersions":["1.0.0","1.1.0","9.9.9"],"name":"n"}"#;
    let config = Config::parse(json.as_bytes()).unwrap();
    assert_eq!(config.version, Version::V1_0_0);
    assert_eq!(config.socket, Path::new(DEFAULT_SOCKET));
    assert_eq!(
        Config::version_for_errors(br#"{"cniVersion":"0.4.0"}"#),
        Version::V0_4_0
    );
    assert_eq!(Config::version_for_errors(b"nonsense"), Version::V1_1_0);
}

#[test]
fn a_limit_on_what_the_pod_sends_is_a_rate() {
    let of = |runtime_config: &str| {
        let json = format!(r#"{{"cniVersion":"1.0.0","name":"n","runtimeConfig":{runtime_config}}}"#);
        Config::parse(json.as_bytes()).unwrap().egress_limit()
    };
    for (runtime_config, expected) in [
        ("null", false),
        ("{}", false),
        (r#"{"bandwidth":{"ingressRate":1000}}"#, false),
        (r#"{"bandwidth":{"ingressRate":1000,"egressRate":0}}"#, false),
        (r#"{"bandwidth":{"egressRate":1000,"egressBurst":1000}}"#, true),
        // As containerd writes it.
        (r#"{"bandwidth":{"IngressRate":0,"EgressRate":1000}}"#, true),
    ] {
        assert_eq!(of(runtime_config).unwrap(), expected, "{runtime_config}");
    }
    assert_eq!(
        of(r#"{"bandwidth":{"egressRate":"1M"}}"#).unwrap_err().code,
        code::INVALID_CONFIG
    );
}

#[test]
fn port_mappings_are_read_as_runtimes_write_them() {
    let of = |mappings: &str| {
        let json =
            format!(r#"{{"cniVersion":"1.0.0","name":"n","runtimeConfig":{{"portMappings":{mappings}}}}}"#);
        let ports = Config::parse(json.as_bytes()).unwrap().host_ports()?;
        Ok(ports
            .iter()
            .map(|port| format!("{port} to {}", port.container_port))
            .collect::<Vec<_>>())
    };
    for (mappings, expected) in [
        ("null", &[][..]),
        ("[]", &[]),
        // As containerd writes them, and as CRI-O does.
        (
            r#"[{"HostPort":8080,"ContainerPort":80,"Protocol":"tcp","HostIP":""}]"#,
            &["8080/TCP to 80"],
        ),
        (
            r#"[{"hostPort":53,"containerPort":5353,"protocol":"UDP","hostIP":"2001:db8::1"},
                {"hostPort":1,"containerPort":65535,"protocol":"sctp","hostIP":"::ffff:192.0.2.1"}]"#,
            &["[2001:db8::1]:53/UDP to 5353", "192.0.2.1:1/SCTP to 65535"],
        ),
        (r#"[{"hostPort":65535,"containerPort":1}]"#, &["65535/TCP to 1"]),
        // Without a host port there is nothing to do; what is there twice is there once.
        (r#"[{"hostPort":0,"containerPort":80},{"containerPort":80}]"#, &[]),
        (
            r#"[{"hostPort":80,"containerPort":80},{"hostPort":80,"containerPort":80,"hostIP":"0.0.0.0"}]"#,
            &["80/TCP to 80"],
        ),
        // All addresses of one family and all addresses at all are all, in whichever order they come.
        (
            r#"[{"hostPort":80,"containerPort":80,"hostIP":"0.0.0.0"},{"hostPort":80,"containerPort":80,"hostIP":""}]"#,
            &["80/TCP to 80"],
        ),
        (
            r#"[{"hostPort":80,"containerPort":80,"hostIP":"::"},{"hostPort":80,"containerPort":80}]"#,
            &["80/TCP to 80"],
        ),
        (
            r#"[{"hostPort":80,"containerPort":80,"hostIP":"::"},{"hostPort":81,"containerPort":80},
                {"hostPort":80,"containerPort":80,"hostIP":"0.0.0.0"},{"hostPort":80,"containerPort":80}]"#,
            &["81/TCP to 80", "80/TCP to 80"],
        ),
        (
            r#"[{"hostPort":80,"containerPort":80,"hostIP":"::"},{"hostPort":80,"containerPort":80},
                {"hostPort":80,"containerPort":80,"hostIP":"0.0.0.0"}]"#,
            &["80/TCP to 80"],
        ),
        (
            r#"[{"hostPort":80,"containerPort":80,"hostIP":"::"},{"hostPort":80,"containerPort":81,"hostIP":"0.0.0.0"}]"#,
            &["[::]:80/TCP to 80", "0.0.0.0:80/TCP to 81"],
        ),
        (
            r#"[{"hostPort":80,"containerPort":80},{"hostPort":80,"containerPort":81,"hostIP":"192.0.2.1"}]"#,
            &["80/TCP to 80", "192.0.2.1:80/TCP to 81"],
        ),
    ] {
        assert_eq!(
            of(mappings).map_err(|e: Error| e.details),
            Ok(expected.iter().map(ToString::to_string).collect()),
            "{mappings}"
        );
    }
    for (mappings, why) in [
        (r#"{"hostPort":80}"#, "must be a list"),
        ("[80]", "must be an object"),
        (r#"[{"hostPort":80}]"#, "\"containerPort\" must be 1 to 65535"),
        (
            r#"[{"hostPort":80,"containerPort":0}]"#,
            "\"containerPort\" must be 1 to 65535",
        ),
        (
            r#"[{"hostPort":65536,"containerPort":80}]"#,
            "\"hostPort\" is 65536",
        ),
        (r#"[{"hostPort":-1,"containerPort":80}]"#, "\"hostPort\" is -1"),
        (
            r#"[{"hostPort":"80","containerPort":80}]"#,
            "\"hostPort\" is \"80\"",
        ),
        (
            r#"[{"hostPort":80,"containerPort":80,"protocol":"icmp"}]"#,
            "must be tcp, udp or sctp",
        ),
        (
            r#"[{"hostPort":80,"containerPort":80,"protocol":6}]"#,
            "must be a text",
        ),
        (
            r#"[{"hostPort":80,"containerPort":80,"hostIP":"host"}]"#,
            "must be an address",
        ),
        (
            r#"[{"hostPort":80,"containerPort":80,"hostIP":"::"},{"hostPort":80,"containerPort":81,"hostIP":"0.0.0.0"},
                {"hostPort":80,"containerPort":80}]"#,
            "asked for twice, for the pod's ports 81 and 80",
        ),
        (
            r#"[{"hostPort":80,"containerPort":80},{"hostPort":80,"containerPort":81}]"#,
            "asked for twice, for the pod's ports 80 and 81",
        ),
    ] {
        let error = of(mappings).unwrap_err();
        assert_eq!(error.code, code::INVALID_CONFIG, "{mappings}");
        assert!(error.details.contains(why), "{mappings}: {error}");
    }
}

#[test]
fn addresses_may_be_requested_in_both_ways() {
    let of = |rest: &str| {
        let json = format!(r#"{{"cniVersion":"1.0.0","name":"n",{rest}}}"#);
        Config::parse(json.as_bytes()).unwrap().requested_ips(None)
    };
    let wanted: Vec<IpAddr> = vec!["10.0.0.7".parse().unwrap(), "fd00::7".parse().unwrap()];
    assert_eq!(
        of(r#""runtimeConfig":{"ips":["10.0.0.7/24","fd00::7"]}"#).unwrap(),
        wanted
    );
    assert_eq!(
        of(r#""args":{"cni":{"ips":["10.0.0.7","fd00::7/64"]}}"#).unwrap(),
        wanted
    );
    assert_eq!(of(r#""runtimeConfig":{}"#).unwrap(), Vec::<IpAddr>::new());
    assert_eq!(
        of(r#""runtimeConfig":{"ips":["10.0.0"]}"#).unwrap_err().code,
        code::INVALID_CONFIG
    );
    assert_eq!(
        of(r#""runtimeConfig":{"ips":"10.0.0.1"}"#).unwrap_err().code,
        code::INVALID_CONFIG
    );
}

#[test]
fn the_newer_way_of_requesting_addresses_wins() {
    let of = |rest: &str| {
        let json = format!(r#"{{"cniVersion":"1.0.0","name":"n"{rest}}}"#);
        Config::parse(json.as_bytes())
            .unwrap()
            .requested_ips(Some("10.0.0.3/24"))
    };
    let one = |text: &str| -> Vec<IpAddr> { vec![text.parse().unwrap()] };
    assert_eq!(of("").unwrap(), one("10.0.0.3"));
    assert_eq!(of(r#","runtimeConfig":{"ips":null}"#).unwrap(), one("10.0.0.3"));
    assert_eq!(
        of(r#","args":{"cni":{"ips":["10.0.0.2"]}}"#).unwrap(),
        one("10.0.0.2")
    );
    let both = r#","args":{"cni":{"ips":["10.0.0.2"]}},"runtimeConfig":{"ips":["10.0.0.1"]}"#;
    assert_eq!(of(both).unwrap(), one("10.0.0.1"));
    let config = Config::parse(br#"{"cniVersion":"1.0.0","name":"n"}"#).unwrap();
    assert_eq!(
        config.requested_ips(Some("ten")).unwrap_err().code,
        code::INVALID_CONFIG
    );
}

#[test]
fn a_gc_keeps_what_either_key_lists() {
    let of = |rest: &str| {
        let json = format!(r#"{{"cniVersion":"1.1.0","name":"n"{rest}}}"#);
        Config::parse(json.as_bytes()).unwrap().valid_attachments()
    };
    let name = |id: &str| AttachmentName {
        container_id: id.into(),
        ifname: "eth0".into(),
    };
    let a = r#"{"containerID":"a","ifname":"eth0"}"#;
    let b = r#"{"containerID":"b","ifname":"eth0"}"#;
    assert_eq!(
        of(&format!(r#","cni.dev/valid-attachments":[{a}]"#)).unwrap(),
        [name("a")]
    );
    assert_eq!(
        of(&format!(r#","cni.dev/attachments":[{a},{b}]"#)).unwrap(),
        [name("a"), name("b")]
    );
    let both = format!(r#","cni.dev/valid-attachments":[{a}],"cni.dev/attachments":[{b}]"#);
    assert_eq!(of(&both).unwrap(), [name("a"), name("b")]);
    for nothing in ["[]", "null"] {
        let keys = format!(r#","cni.dev/valid-attachments":{nothing}"#);
        assert_eq!(of(&keys).unwrap(), []);
    }
    assert_eq!(of("").unwrap_err().code, code::INVALID_CONFIG);
    for bad in ["{}", "7", r#"["a"]"#, r#"[{"containerID":"a"}]"#, "[null]"] {
        let keys = format!(r#","cni.dev/valid-attachments":{bad}"#);
        assert_eq!(of(&keys).unwrap_err().code, code::DECODING, "{bad}");
        let keys = format!(r#","cni.dev/valid-attachments":[],"cni.dev/attachments":{bad}"#);
        assert_eq!(of(&keys).unwrap_err().code, code::DECODING, "{bad}");
    }
}

#[test]
fn what_is_done_otherwise_is_refused_with_key_and_value() {
    let json = r#"{"cniVersion":"1.0.0","name":"n","ipam":{"type":"host-local"}}"#;
    let error = Config::parse(json.as_bytes())
        .unwrap()
        .check_supported()
        .unwrap_err();
    assert_eq!(error.code, code::UNSUPPORTED_FIELD);
    assert!(
        error.msg.contains("ipam") && error.msg.contains("host-local"),
        "{error}"
    );
    let json = r#"{"cniVersion":"1.0.0","name":"n","ipam":{},"ipMasq":false}"#;
    Config::parse(json.as_bytes()).unwrap().check_supported().unwrap();
}
