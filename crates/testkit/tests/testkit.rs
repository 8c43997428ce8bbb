//! What the other crates' tests rely on.

use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::Duration;

use etherparse::{IpNumber, SlicedPacket, TcpHeader, TransportSlice};
use tombolo_testkit::{
    Bpffs, End, Packet, Process, Server, Tap, TestNamespace, VXLAN_PORT, ask_tcp, ask_udp, connect,
    etherparse, vxlan, wait_for,
};

const PATIENCE: Duration = Duration::from_secs(10);
const A: [u8; 6] = [2, 0, 0, 0, 0, 1];
const B: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Two namespaces on one wire, with addresses of both families.
fn wire() -> (TestNamespace, TestNamespace) {
    let a = TestNamespace::new("a");
    let b = TestNamespace::new("b");
    let ends = [
        &["192.0.2.1/24", "2001:db8::1/64"],
        &["192.0.2.2/24", "2001:db8::2/64"],
    ];
    connect(
        (
            &a,
            End {
                name: "eth0",
                mac: Some(A),
                addresses: ends[0],
                ..End::default()
            },
        ),
        (
            &b,
            End {
                name: "eth0",
                mac: Some(B),
                addresses: ends[1],
                ..End::default()
            },
        ),
    );
    (a, b)
}

fn families() -> [(IpAddr, IpAddr); 2] {
    [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")]
        .map(|(a, b)| (a.parse().expect("an address"), b.parse().expect("an address")))
}

#[test]
fn servers_report_whom_they_saw() {
    let (a, b) = wire();
    for (client, server) in families() {
        let server = Server::start(&b, SocketAddr::new(server, 0));
        for size in [0, 1, 1_000, 60_000] {
            let payload = vec![7; size];
            assert_eq!(ask_udp(&a, server.address(), &payload).unwrap().ip(), client);
            assert_eq!(ask_tcp(&a, server.address(), &payload).unwrap().ip(), client);
        }
        let address = server.address();
        drop(server);
        assert!(ask_tcp(&a, address, b"x").is_err());
    }
}

#[test]
fn crafted_packets_are_what_the_kernel_takes_for_real() {
    let (a, b) = wire();
    let tap = Tap::open(&a, "eth0");
    for (from, to) in families() {
        let server = Server::start(&b, SocketAddr::new(to, 0));
        let packet = Packet::new(from, to).macs(A, B);
        let port = server.address().port();
        tap.send(&packet.udp(4000, port, b"hello"));
        let answer = tap.receive(PATIENCE, |frame| {
            udp_payload(frame).is_some_and(|text| text.ends_with(b"\nhello"))
        });
        assert!(answer.is_some(), "no answer over UDP from {to}");

        let mut syn = TcpHeader::new(4000, port, 1, 1000);
        syn.syn = true;
        tap.send(&packet.tcp(syn, &[]));
        let answer = tap.receive(PATIENCE, |frame| {
            let packet = SlicedPacket::from_ethernet(frame).ok();
            matches!(packet.and_then(|packet| packet.transport),
                Some(TransportSlice::Tcp(tcp)) if tcp.syn() && tcp.ack() && tcp.acknowledgment_number() == 2)
        });
        assert!(answer.is_some(), "no answer over TCP from {to}");

        tap.send(&packet.echo(7, 8, b"ping"));
        let answer = tap.receive(PATIENCE, |frame| frame[6..12] == B && frame.ends_with(b"ping"));
        assert!(answer.is_some(), "no answer to ping from {to}");
    }
}

#[test]
fn fragments_and_extension_headers_are_put_together_by_the_kernel() {
    let (a, b) = wire();
    let tap = Tap::open(&a, "eth0");
    for (from, to) in families() {
        let server = Server::start(&b, SocketAddr::new(to, 0));
        let mut packet = Packet::new(from, to).macs(A, B);
        if from.is_ipv6() {
            // Destination options with padding (RFC 8200, 4.2 and 4.6).
            packet = packet.extension(IpNumber::IPV6_DESTINATION_OPTIONS, &[0, 0, 1, 4, 0, 0, 0, 0]);
        }
        let whole = Packet::new(from, to).udp(4000, server.address().port(), &[b'x'; 100]);
        let datagram = &whole[whole.len() - 108..];
        tap.send(
            &packet
                .clone()
                .fragment(77, 0, true)
                .payload(IpNumber::UDP, &datagram[..64]),
        );
        tap.send(
            &packet
                .fragment(77, 64, false)
                .payload(IpNumber::UDP, &datagram[64..]),
        );
        let answer = tap.receive(PATIENCE, |frame| {
            udp_payload(frame).is_some_and(|text| text.ends_with(&[b'x'; 100]))
        });
        assert!(answer.is_some(), "no answer from {to}");
    }
}

#[test]
fn vxlan_frames_are_what_the_kernels_device_takes() {
    let (a, b) = wire();
    let add = "link add vx0 address 02:00:00:00:00:03 type vxlan id 5 dstport 4789 local 192.0.2.2";
    for arguments in [add, "link set vx0 up", "address add 10.0.0.2/24 dev vx0"] {
        assert!(
            b.command("ip")
                .args(arguments.split(' '))
                .status()
                .unwrap()
                .success()
        );
    }
    let inside = Tap::open(&b, "vx0");
    let tap = Tap::open(&a, "eth0");
    let (from, to) = families()[0];
    let inner =
        Packet::new("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()).macs(A, [2, 0, 0, 0, 0, 3]);
    let inner = inner.udp(1, 2, b"inner");
    tap.send(&vxlan(&Packet::new(from, to).macs(A, B), 5000, 6, &inner));
    tap.send(&vxlan(&Packet::new(from, to).macs(A, B), 5000, 5, &inner));
    assert_eq!(VXLAN_PORT, 4789);
    assert_eq!(
        inside.receive(PATIENCE, |frame| frame.ends_with(b"inner")),
        Some(inner)
    );
    let second = inside.receive(Duration::from_millis(50), |frame| frame.ends_with(b"inner"));
    assert_eq!(second, None, "the wrong network identifier");
}

#[test]
fn a_bpf_file_system_is_private_and_leaves_no_mount() {
    let (one, other) = (Bpffs::new(), Bpffs::new());
    let number = one.path().file_name().unwrap().to_owned();
    let status = std::fs::read_to_string(std::path::Path::new("/proc/self/fdinfo").join(number)).unwrap();
    let mount = status
        .lines()
        .find_map(|line| line.strip_prefix("mnt_id:"))
        .unwrap()
        .trim();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(
        !mounts.lines().any(|line| line.starts_with(&format!("{mount} "))),
        "mounted somewhere"
    );
    std::fs::create_dir(one.path().join("v1")).unwrap();
    assert!(!other.path().join("v1").exists());
    let listed = Command::new("ls")
        .arg(format!("{}/", one.path().display()))
        .output()
        .unwrap();
    assert!(
        String::from_utf8(listed.stdout).unwrap().contains("v1\n"),
        "other processes see it"
    );
}

#[test]
fn processes_end_with_their_guard() {
    let namespace = TestNamespace::new("a");
    let process = Process::spawn(namespace.command("sleep").arg("1000").stdout(Stdio::null()));
    let id = process.id();
    let link = std::fs::read_link(format!("/proc/{id}/ns/net")).unwrap();
    let own = namespace.run(|| std::fs::read_link("/proc/thread-self/ns/net").unwrap());
    assert_eq!(link, own);
    drop(process);
    assert!(!std::path::Path::new(&format!("/proc/{id}")).exists());
}

#[test]
fn processes_end_with_the_thread_that_started_them() {
    let id = std::thread::spawn(|| {
        let process = Process::spawn(Command::new("sleep").arg("1000"));
        let id = process.id();
        // As if the test were killed: nobody drops the guard.
        std::mem::forget(process);
        id
    });
    let id = id.join().unwrap();
    wait_for(PATIENCE, "death of the process", || {
        std::fs::read_to_string(format!("/proc/{id}/stat")).map_or(true, |stat| stat.contains(") Z "))
    });
}

fn udp_payload(frame: &[u8]) -> Option<Vec<u8>> {
    match SlicedPacket::from_ethernet(frame).ok()?.transport? {
        TransportSlice::Udp(udp) => Some(udp.payload().to_vec()),
        _ => None,
    }
}
