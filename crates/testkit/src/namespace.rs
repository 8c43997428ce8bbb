//! Network namespaces of tests, and the links between them.

use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use ipnet::IpNet;
use tombolo_netlink::{LinkChange, Mac, Namespace, Netlink, Veth};

/// A network namespace. A new one has loopback up and nothing else, and lives as long as this value (and processes
/// that were started in it): no file names it, so nothing is left of a test that is killed.
#[derive(Debug)]
pub struct TestNamespace {
    name: String,
    namespace: Namespace,
}

/// One end of a link between two namespaces.
#[derive(Debug, Clone, Default)]
pub struct End<'a> {
    /// The device's name.
    pub name: &'a str,
    /// Its address; none: random.
    pub mac: Option<Mac>,
    /// Its MTU in bytes; none: 1500.
    pub mtu: Option<u32>,
    /// Its addresses, with the prefixes that are on the link.
    pub addresses: &'a [&'a str],
}

impl TestNamespace {
    /// Makes a namespace. The name is for messages only.
    ///
    /// # Panics
    /// When the test does not run as root, for one.
    pub fn new(name: &str) -> Self {
        let namespace = Namespace::new().unwrap_or_else(|error| panic!("make namespace {name}: {error}"));
        Self {
            name: name.into(),
            namespace,
        }
    }

    /// One that somebody else has made, by its file.
    ///
    /// # Panics
    /// When the file is not that of a network namespace.
    pub fn open(name: &str, file: &Path) -> Self {
        let namespace =
            Namespace::open(file).unwrap_or_else(|error| panic!("open namespace {name}: {error}"));
        Self {
            name: name.into(),
            namespace,
        }
    }

    /// What it was called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A path by which any process can open the namespace while this value lives.
    pub fn path(&self) -> PathBuf {
        format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            self.namespace.as_fd().as_raw_fd()
        )
        .into()
    }

    /// The namespace itself.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Runs `f` inside, on a thread of its own.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        self.namespace
            .run(f)
            .unwrap_or_else(|error| panic!("enter namespace {}: {error}", self.name))
    }

    /// A connection to its network configuration.
    pub fn netlink(&self) -> Netlink {
        Netlink::open_in(&self.namespace)
            .unwrap_or_else(|error| panic!("open netlink in {}: {error}", self.name))
    }

    /// Writes a kernel setting of this namespace, such as `net/ipv4/ip_forward`.
    pub fn sysctl(&self, key: &str, value: &str) {
        self.run(|| tombolo_netlink::sysctl::write(key, value))
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// A command that will run inside.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let namespace = self
            .namespace
            .try_clone()
            .unwrap_or_else(|error| panic!("{error}"));
        let mut command = Command::new(program);
        // SAFETY: between fork and exec this makes one system call and nothing else.
        unsafe { command.pre_exec(move || namespace.enter().map_err(std::io::Error::other)) };
        command
    }
}

/// Joins two namespaces by a pair of veth devices, up and with their addresses. Gives the indices of both ends.
/// There are no link-local addresses, so that no packets but the test's are on the wire.
///
/// # Panics
/// When the kernel refuses.
pub fn connect(a: (&TestNamespace, End<'_>), b: (&TestNamespace, End<'_>)) -> (u32, u32) {
    let mut netlink = a.0.netlink();
    let made = netlink.add_veth(&Veth {
        name: a.1.name,
        mac: a.1.mac,
        mtu: a.1.mtu,
        peer_name: b.1.name,
        peer_mac: b.1.mac,
        peer_mtu: b.1.mtu,
        peer_namespace: Some(b.0.namespace()),
        ..Veth::default()
    });
    made.unwrap_or_else(|error| panic!("join {} and {}: {error}", a.0.name, b.0.name));
    let indices = [&a, &b].map(|(namespace, end)| {
        let mut netlink = namespace.netlink();
        bring_up(&mut netlink, end)
            .unwrap_or_else(|error| panic!("{} of {}: {error}", end.name, namespace.name))
    });
    (indices[0], indices[1])
}

fn bring_up(netlink: &mut Netlink, end: &End<'_>) -> tombolo_netlink::Result<u32> {
    let index = netlink.require_link(end.name)?.index;
    let up = LinkChange {
        up: Some(true),
        ipv6_link_local: Some(false),
        ..LinkChange::default()
    };
    netlink.set_link(index, &up)?;
    for address in end.addresses {
        let address: IpNet = address
            .parse()
            .unwrap_or_else(|error| panic!("{address}: {error}"));
        netlink.add_address(index, address)?;
    }
    Ok(index)
}
