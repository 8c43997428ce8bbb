//! What Tombolo is compared to: the bare kernel, and Debian's CNI plugins.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tombolo_cri::Cni;
use tombolo_netlink::sysctl;
use tombolo_testkit::{End, TestNamespace, connect};

use crate::cluster::STATE_ROOT;
use crate::load::PORT;
use crate::plugin::Plugin;

/// Where the package containernetworking-plugins puts them.
pub const DEBIAN_PLUGINS: &str = "/usr/lib/cni";

/// A node with one of Debian's plugins, which takes addresses from `host-local`.
pub struct DebianNode {
    pub namespace: TestNamespace,
    pub plugin: Plugin,
    _folder: tempfile::TempDir,
}

impl DebianNode {
    /// For the plugin `ptp` or `bridge`. Without masquerade, as Tombolo's ADD has none.
    pub fn new(kind: &str) -> Result<Self> {
        let program = PathBuf::from(DEBIAN_PLUGINS).join(kind);
        ensure!(
            program.exists(),
            "{} is not there: install the package containernetworking-plugins",
            program.display()
        );
        // On a disk, as Tombolo's.
        let folder = tempfile::tempdir_in(STATE_ROOT)?;
        let plugin = Plugin {
            program,
            path: DEBIAN_PLUGINS.into(),
            config: json!({
                "cniVersion": "1.0.0", "name": "bench", "type": kind, "mtu": 1500,
                "bridge": "cni0", "isGateway": true,
                "ipam": {
                    "type": "host-local", "dataDir": folder.path(),
                    "ranges": [[{"subnet": "10.245.0.0/20"}]], "routes": [{"dst": "0.0.0.0/0"}],
                },
            }),
        };
        let namespace = TestNamespace::new(kind);
        Ok(Self {
            namespace,
            plugin,
            _folder: folder,
        })
    }
}

/// A node with the chain of plugins that containerd's own documentation sets up (`script/setup/install-cni`), for
/// one family, from Debian's package.
pub struct DebianChain {
    pub namespace: TestNamespace,
    pub cni: Cni,
    _folder: tempfile::TempDir,
}

impl DebianChain {
    /// `bridge` with masquerade, then `portmap`.
    pub fn new() -> Result<Self> {
        // On a disk, as Tombolo's.
        let folder = tempfile::tempdir_in("/var/tmp")?;
        let list = json!({
            "cniVersion": "1.0.0", "name": "containerd-net",
            "plugins": [
                {
                    "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "promiscMode": true,
                    "ipam": {
                        "type": "host-local", "dataDir": folder.path().join("addresses"),
                        "ranges": [[{"subnet": "10.247.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}],
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": true}},
            ],
        });
        let cni = Cni {
            bin_dir: DEBIAN_PLUGINS.into(),
            conf_dir: folder.path().join("net.d"),
        };
        std::fs::create_dir(&cni.conf_dir)?;
        std::fs::write(cni.conf_dir.join("10-containerd-net.conflist"), list.to_string())?;
        Ok(Self {
            namespace: TestNamespace::new("chain"),
            cni,
            _folder: folder,
        })
    }
}

/// Two namespaces and one veth pair between them.
pub struct BareVeth {
    pub ends: [TestNamespace; 2],
    pub address: IpAddr,
}

impl BareVeth {
    /// With an MTU of 1500.
    pub fn new() -> Result<Self> {
        let ends = ["client", "server"].map(TestNamespace::new);
        let end = |addresses| End {
            name: "eth0",
            addresses,
            ..End::default()
        };
        connect(
            (&ends[0], end(&["10.9.0.1/24"])),
            (&ends[1], end(&["10.9.0.2/24"])),
        );
        Ok(Self {
            ends,
            address: "10.9.0.2".parse()?,
        })
    }
}

/// Two nodes that the kernel's VXLAN joins, each with a pod, all of it by routes.
pub struct KernelVxlan {
    pub pods: [TestNamespace; 2],
    pub address: IpAddr,
    _nodes: [TestNamespace; 2],
}

impl KernelVxlan {
    /// With an MTU of 1500 between the nodes and 1450 in pods.
    pub fn new() -> Result<Self> {
        let nodes = ["node-1", "node-2"].map(TestNamespace::new);
        let pods = ["pod-1", "pod-2"].map(TestNamespace::new);
        let wire = |addresses| End {
            name: "eth0",
            addresses,
            ..End::default()
        };
        connect(
            (&nodes[0], wire(&["172.20.1.11/24"])),
            (&nodes[1], wire(&["172.20.1.12/24"])),
        );
        for (here, there) in [(1, 2), (2, 1)] {
            let (node, pod) = (&nodes[here - 1], &pods[here - 1]);
            let gateway = format!("10.246.{here}.1/24");
            let address = format!("10.246.{here}.2/24");
            let port = |name, address| End {
                name,
                mtu: Some(1450),
                addresses: address,
                ..End::default()
            };
            connect(
                (node, port("pod", &[gateway.as_str()])),
                (pod, port("eth0", &[address.as_str()])),
            );
            node.run(|| sysctl::write("net/ipv4/ip_forward", "1"))?;
            ip(pod, &format!("route add default via 10.246.{here}.1"))?;
            let commands = [
                // As an agent of its own does it: peers known, nothing learned, no checksums outside.
                format!(
                    "link add vxlan0 mtu 1450 address 02:00:00:00:00:0{here} type vxlan id 1 dstport 4789 \
                     dev eth0 local 172.20.1.1{here} remote 172.20.1.1{there} nolearning noudpcsum"
                ),
                "link set vxlan0 up".into(),
                format!("address add 10.246.{here}.0/32 dev vxlan0"),
                format!("neighbour add 10.246.{there}.0 lladdr 02:00:00:00:00:0{there} dev vxlan0"),
                format!("route add 10.246.{there}.0/24 via 10.246.{there}.0 dev vxlan0 onlink"),
            ];
            for command in &commands {
                ip(node, command)?;
            }
        }
        Ok(Self {
            pods,
            address: "10.246.2.2".parse()?,
            _nodes: nodes,
        })
    }
}

/// A node that leads two of its ports to pods by rules of nftables, as simple as they can be: a pod of its own, and
/// one of another node, which is behind masquerade: its node would answer past this one.
pub struct NatNode {
    pub node: TestNamespace,
    pub outside: TestNamespace,
    pub pods: [TestNamespace; 2],
    pub addresses: [IpAddr; 2],
    _other_node: TestNamespace,
}

impl NatNode {
    /// With an MTU of 1500 everywhere.
    pub fn new() -> Result<Self> {
        let [node, other_node, outside] = ["node", "other-node", "outside"].map(TestNamespace::new);
        let pods = ["local", "remote"].map(TestNamespace::new);
        fn end<'a>(name: &'a str, addresses: &'a [&'a str]) -> End<'a> {
            End {
                name,
                addresses,
                ..End::default()
            }
        }
        connect(
            (&node, end("eth0", &["172.20.1.11/24"])),
            (&other_node, end("eth0", &["172.20.1.12/24"])),
        );
        connect(
            (&node, end("eth1", &["172.20.2.11/24"])),
            (&outside, end("eth0", &["172.20.2.1/24"])),
        );
        for (number, (host, pod)) in [&node, &other_node].into_iter().zip(&pods).enumerate() {
            let [gateway, address] = [1, 2].map(|n| format!("10.246.{number}.{n}/24"));
            connect(
                (host, end("pod", &[gateway.as_str()])),
                (pod, end("eth0", &[address.as_str()])),
            );
            host.run(|| sysctl::write("net/ipv4/ip_forward", "1"))?;
            ip(pod, &format!("route add default via 10.246.{number}.1"))?;
        }
        ip(&node, "route add 10.246.1.0/24 via 172.20.1.12")?;
        ip(&other_node, "route add 10.246.0.0/24 via 172.20.1.11")?;
        let rules = format!(
            "table ip nat {{
                chain in {{
                    type nat hook prerouting priority dstnat;
                    ip daddr 172.20.2.11 tcp dport 30000 dnat to 10.246.0.2:{PORT}
                    ip daddr 172.20.2.11 tcp dport 30001 dnat to 10.246.1.2:{PORT}
                }}
                chain out {{
                    type nat hook postrouting priority srcnat;
                    oifname eth0 ip saddr 172.20.2.0/24 masquerade
                }}
            }}"
        );
        let status = node.command("nft").arg(&rules).status();
        let status = status.context("run `nft`: install the package nftables")?;
        ensure!(status.success(), "`nft` refuses the rules");
        Ok(Self {
            node,
            outside,
            pods,
            addresses: ["10.246.0.2".parse()?, "10.246.1.2".parse()?],
            _other_node: other_node,
        })
    }

    /// Where the pod of this number is found from outside.
    pub fn node_port(&self, number: usize) -> SocketAddr {
        ([172, 20, 2, 11], 30_000 + number as u16).into()
    }
}

/// Runs `ip` of iproute2 in a namespace.
fn ip(namespace: &TestNamespace, arguments: &str) -> Result<()> {
    let status = namespace
        .command("ip")
        .args(arguments.split_whitespace())
        .status();
    let status = status.context("run `ip`: install the package iproute2")?;
    ensure!(
        status.success(),
        "`ip {arguments}` failed in {}",
        namespace.name()
    );
    Ok(())
}
