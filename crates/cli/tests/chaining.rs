//! The reference plugins `bandwidth` and `tuning` in a chain with ours, on real nodes: results pass through,
//! settings hold, and a pod's traffic is as slow as it was asked to be, wherever the other side is.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::sandbox::Sandbox;
use support::{Lab, eventually, succeed};
use tombolo_testkit::TestNamespace;

/// The limit of each direction, in bits per second, and what may go at once, in bits.
const RATE: u64 = 8_000_000;
const BURST: u64 = 400_000;

/// For how long bytes are counted.
const WINDOW: Duration = Duration::from_millis(700);

/// Long enough for all but a machine that stands still.
const CONNECT: Duration = Duration::from_secs(10);

/// Bytes that arrive by TCP within the window, and how long it was, from before the first of them.
fn received(from: &TestNamespace, to: &TestNamespace, address: IpAddr) -> (u64, Duration) {
    let listener = to.run(|| TcpListener::bind(SocketAddr::new(address, 0))).unwrap();
    let target = listener.local_addr().unwrap();
    let begin = Instant::now();
    let mut sender = from.run(|| TcpStream::connect_timeout(&target, CONNECT)).unwrap();
    let (mut receiver, _) = listener.accept().unwrap();
    receiver.set_read_timeout(Some(WINDOW)).unwrap();
    sender.set_write_timeout(Some(WINDOW)).unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            let chunk = [0; 16_384];
            while begin.elapsed() < WINDOW && sender.write(&chunk).is_ok() {}
        });
        let (mut bytes, mut buffer) = (0, vec![0; 1 << 16]);
        while begin.elapsed() < WINDOW {
            match receiver.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => bytes += length as u64,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => panic!("receive: {error}"),
            }
        }
        let elapsed = begin.elapsed();
        // Ends the sender, who may have more than will ever be read.
        drop(receiver);
        (bytes, elapsed)
    })
}

/// What the limit lets through in a time, in bytes.
fn allowed(time: Duration) -> f64 {
    (RATE as f64 * time.as_secs_f64() + BURST as f64) / 8.0
}

/// Counts what arrives from and at a sandbox, in both families, with each of the others.
fn measure(sandbox: &Sandbox<'_>, others: &[&Sandbox<'_>], judge: impl Fn(u64, Duration, &str)) {
    for (number, other) in others.iter().enumerate() {
        for v4 in [true, false] {
            for (from, to, direction) in [(sandbox, *other, "to"), (*other, sandbox, "from")] {
                let (bytes, time) = received(&from.namespace, &to.namespace, to.address(v4));
                judge(bytes, time, &format!("{direction} peer {number}, IPv4 {v4}"));
            }
        }
    }
}

fn ours() -> Value {
    json!({"type": "tombolo-cni"})
}

/// With the capability, as the runtime gives it to all plugins that declare it.
fn limited(mut plugin: Value) -> Value {
    plugin["runtimeConfig"] = json!({"bandwidth": {
        "ingressRate": RATE, "ingressBurst": BURST, "egressRate": RATE, "egressBurst": BURST,
    }});
    plugin
}

fn tuning(sysctl: &str, value: &str) -> Value {
    json!({"type": "tuning", "sysctl": {sysctl: value}})
}

fn the_limit_holds(routing: &str) {
    let lab = Lab::up(2, &["--routing", routing]);
    let peers = ["node1", "node2"].map(|node| Sandbox::connect(&lab, node, &[ours()]));
    let peers: Vec<_> = peers.iter().collect();

    let free = Sandbox::connect(&lab, "node1", &[ours()]);
    let before = free.transmitted();
    measure(&free, &peers, |bytes, time, what| {
        assert!(
            bytes as f64 > 5.0 * allowed(time),
            "{what}: only {bytes} bytes in {time:?}, unlimited\n{}",
            lab.datapath()
        );
    });
    assert_eq!(
        free.transmitted(),
        before,
        "the short way does not pass by the link"
    );

    let chain = [
        limited(ours()),
        limited(json!({"type": "bandwidth"})),
        tuning("net.core.somaxconn", "77"),
    ];
    let shaped = Sandbox::connect(&lab, "node1", &chain);
    let before = shaped.transmitted();
    // Within a moment of the chain's end.
    eventually("the slow path", 10, || {
        let (bytes, _) = received(&peers[0].namespace, &shaped.namespace, shaped.address(true));
        (bytes > 0 && shaped.transmitted() > before).then_some(())
    });
    measure(&shaped, &peers, |bytes, time, what| {
        let bytes = bytes as f64;
        assert!(
            bytes <= 1.3 * allowed(time) && bytes >= 0.2 * allowed(time),
            "{what}: {bytes} bytes in {time:?}, where {} are allowed\n{}",
            allowed(time),
            lab.datapath()
        );
    });
    // The node itself and the outside go by the link's qdisc anyway; all of them are still reached.
    let somaxconn = shaped
        .namespace
        .run(|| std::fs::read_to_string("/proc/sys/net/core/somaxconn"));
    assert_eq!(somaxconn.unwrap().trim(), "77");
}

#[test]
fn the_limit_of_bandwidth_holds_in_direct_routing() {
    the_limit_holds("direct");
}

#[test]
fn the_limit_of_bandwidth_holds_in_the_overlay() {
    the_limit_holds("vxlan");
}

#[test]
fn results_pass_through_the_chain_in_both_directions() {
    let lab = Lab::up(1, &[]);
    let links = |lab: &Lab| {
        let links = succeed(&mut lab.exec("node1", &["ip", "-j", "link"]));
        let links: Vec<Value> = serde_json::from_str(&links).unwrap();
        let names = links
            .iter()
            .map(|link| link["ifname"].as_str().unwrap().to_owned());
        names.collect::<std::collections::BTreeSet<String>>()
    };
    let before = links(&lab);
    // `tuning` wants a result before its own, so it is not the first.
    let chain = [
        json!({"type": "loopback"}),
        tuning("net.ipv4.ip_default_ttl", "33"),
        limited(ours()),
        limited(json!({"type": "bandwidth"})),
        tuning("net.core.somaxconn", "88"),
    ];
    let sandbox = Sandbox::connect(&lab, "node1", &chain);
    let result = &sandbox.result;
    let names: Vec<&str> = result["interfaces"]
        .as_array()
        .unwrap()
        .iter()
        .map(|interface| interface["name"].as_str().unwrap())
        .collect();
    let link = sandbox.host_link();
    assert_eq!(names[..3], ["lo", &link, "eth0"], "{result}");
    assert!(names[3].starts_with("bwp"), "{result}");
    // Ours are of ours, whatever came before.
    let of = |interface: u64| {
        let ips = result["ips"].as_array().unwrap().iter();
        ips.filter(|ip| ip["interface"] == interface).count()
    };
    assert_eq!((of(1), of(2), of(3)), (0, 2, 0), "{result}");
    assert!(of(0) > 0, "{result}");
    for (key, value) in [("ipv4/ip_default_ttl", "33"), ("core/somaxconn", "88")] {
        let set = sandbox
            .namespace
            .run(|| std::fs::read_to_string(format!("/proc/sys/net/{key}")));
        assert_eq!(set.unwrap().trim(), value, "{key}");
    }
    // The pod is connected, as a pod of the lab can tell.
    for v4 in [true, false] {
        let target = lab
            .addresses("a1")
            .into_iter()
            .map(|a| a.parse::<IpAddr>().unwrap());
        let target = target.into_iter().find(|a| a.is_ipv4() == v4).unwrap();
        let port = SocketAddr::new(target, 8080);
        let stream = sandbox
            .namespace
            .run(|| TcpStream::connect_timeout(&port, CONNECT))
            .unwrap();
        assert_eq!(stream.local_addr().unwrap().ip(), sandbox.address(v4));
    }
    drop(sandbox);
    assert_eq!(links(&lab), before, "links are left");
}
