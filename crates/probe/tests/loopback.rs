//! Server and client against each other, in a network namespace of the test's own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::IpAddr;
use std::sync::mpsc;

use tombolo_netlink::Namespace;
use tombolo_probe::check::{Answer, Check, Kind, Outcome, Protocol, run};
use tombolo_probe::serve::{Args, Server};
use tombolo_probe::{Error, flood};

const FAMILIES: [&str; 2] = ["127.0.0.1", "::1"];

fn check(protocol: Protocol, address: &str, size: usize) -> Check {
    Check {
        id: format!("{protocol:?} {address} {size}"),
        protocol,
        address: address.parse().unwrap(),
        port: None,
        size,
        dont_fragment: false,
        deadline_ms: 5000,
        source: None,
    }
}

/// Runs `test` in a new namespace, beside a server.
fn beside_a_server<T: Send>(test: impl AsyncFnOnce() -> T + Send) -> T {
    let namespace = Namespace::new().unwrap();
    let inside = namespace.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let server = Server::bind(&Args::default()).unwrap();
            tokio::select! {
                stopped = server.run() => panic!("{stopped:?}"),
                result = test() => result,
            }
        })
    });
    inside.unwrap()
}

fn kind(outcome: &Outcome) -> Option<Kind> {
    match &outcome.answer {
        Answer::Success(_) => None,
        Answer::Failure(failure) => Some(failure.kind),
    }
}

#[test]
fn every_protocol_family_and_size_comes_back_and_reports_both_ends() {
    let mut checks = Vec::new();
    for address in FAMILIES {
        for size in [0, 1, 64, 1472, 65_507] {
            checks
                .extend([Protocol::Tcp, Protocol::Udp, Protocol::Icmp].map(|one| check(one, address, size)));
        }
        checks.push(check(Protocol::Tcp, address, 8 << 20));
        checks.push(check(Protocol::Http, address, 0));
    }
    let report = beside_a_server(async || run(checks.clone()).await.unwrap());
    assert_eq!(report.results.len(), checks.len());
    for (check, outcome) in checks.iter().zip(&report.results) {
        let Answer::Success(success) = &outcome.answer else {
            panic!("{outcome:?}")
        };
        assert_eq!(outcome.id, check.id);
        assert_eq!(success.server.ip(), check.address, "{outcome:?}");
        assert_eq!(success.local.ip(), check.address, "{outcome:?}");
        assert_eq!(
            success.seen.is_none(),
            check.protocol == Protocol::Icmp,
            "{outcome:?}"
        );
        assert!(
            success.seen.is_none_or(|seen| seen == success.local),
            "{outcome:?}"
        );
    }
}

#[test]
fn failures_are_told_apart() {
    let refused = |protocol, address: &str| Check {
        port: Some(9),
        ..check(protocol, address, 64)
    };
    let checks = vec![
        refused(Protocol::Tcp, FAMILIES[0]),
        refused(Protocol::Udp, FAMILIES[1]),
        // There is no other route than loopback's.
        check(Protocol::Udp, "192.0.2.1", 64),
        check(Protocol::Icmp, "2001:db8::1", 64),
        Check {
            dont_fragment: true,
            ..check(Protocol::Udp, FAMILIES[0], 65_508)
        },
        // HTTP is no echo.
        Check {
            port: Some(8080),
            deadline_ms: 300,
            ..check(Protocol::Tcp, FAMILIES[0], 0)
        },
    ];
    let report = beside_a_server(async || run(checks).await.unwrap());
    let kinds: Vec<_> = report.results.iter().map(kind).collect();
    let expected = [
        Kind::Refused,
        Kind::Refused,
        Kind::Unreachable,
        Kind::Unreachable,
        Kind::TooBig,
        Kind::Timeout,
    ];
    assert_eq!(kinds, expected.map(Some), "{report:?}");
}

#[test]
fn a_server_answers_from_the_address_that_was_asked() {
    // All of 127.0.0.0/8 is the host's own: without care, the answer would come from 127.0.0.1.
    let checks = vec![Check {
        source: Some("127.0.0.9".parse::<IpAddr>().unwrap()),
        ..check(Protocol::Udp, "127.0.0.77", 64)
    }];
    let report = beside_a_server(async || run(checks).await.unwrap());
    let Answer::Success(success) = &report.results[0].answer else {
        panic!("{report:?}")
    };
    assert_eq!(success.server.ip().to_string(), "127.0.0.77");
    assert_eq!(success.seen.unwrap().ip().to_string(), "127.0.0.9");
}

#[test]
fn a_taken_port_is_an_error_that_names_it() {
    let error = beside_a_server(async || Server::bind(&Args::default()).err().unwrap());
    assert!(
        matches!(&error, Error::Listen { address, .. } if address.port() == 7070),
        "{error}"
    );
}

#[test]
fn a_flood_counts_what_is_lost() {
    let args = |port| flood::Args {
        to: FAMILIES[0].parse().unwrap(),
        port,
        rate: 2000,
        packets: 500,
        until_eof: false,
        size: 64,
    };
    let flooded = |port| {
        beside_a_server(async move || {
            let (sender, receiver) = mpsc::channel();
            let own = Namespace::current().unwrap();
            let flooding = std::thread::spawn(move || {
                let tally = own.run(|| flood::run(&args(port)).unwrap()).unwrap();
                sender.send(tally).unwrap();
            });
            while !flooding.is_finished() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            receiver.recv().unwrap()
        })
    };
    let good = flooded(7070);
    assert_eq!(
        (good.sent, good.received, good.lost, good.duplicated),
        (500, 500, 0, 0),
        "{good:?}"
    );
    let bad = flooded(9);
    assert_eq!(
        (bad.sent, bad.received, bad.lost, bad.first_lost),
        (500, 0, 500, Some(0)),
        "{bad:?}"
    );
}
