//! What leaves the cluster under the node's own address: one rule, in an nftables table of our own.
//!
//! A rule that translates makes the kernel track every connection that its stack sees. The outer packets of the
//! overlay are none, and are kept out: tracking them would cost each a twentieth of its whole way. What pods on
//! the slow path send to pods is kept out as well, since the answers take the short way: a connection that is
//! seen in one direction only counts as invalid.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::{Command, Stdio};

use ipnet::IpNet;
use tombolo_cni::HOST_LINK_PREFIX;
use tombolo_layout::Masquerade;

/// Why the rule is not there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no nft.
    #[error(
        "cannot run nft, without which pods have no way out of the cluster: {0}; install the package nftables"
    )]
    Missing(#[source] io::Error),
    /// nft did not take the rule.
    #[error("nft refuses the masquerade rule: {0}; does the kernel have nftables with NAT (nft_masq)?")]
    Refused(String),
}

/// Puts the rule in force, in place of what there was, in one step; with the overlay's UDP port, where there is one.
///
/// # Errors
/// What there was is then still in force.
pub fn apply(masquerade: &Masquerade, overlay_port: Option<u16>) -> Result<(), Error> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::Missing)?;
    if let Some(mut stdin) = child.stdin.take() {
        // What nft has to say about an input cut short is better than "broken pipe".
        let _ = stdin.write_all(rules(masquerade, overlay_port).as_bytes());
    }
    let output = child.wait_with_output().map_err(Error::Missing)?;
    if output.status.success() {
        Ok(())
    } else {
        Err(Error::Refused(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        ))
    }
}

/// The whole table. Made before it is deleted, since only what exists can be.
fn rules(masquerade: &Masquerade, overlay_port: Option<u16>) -> String {
    let mut text = String::from("table inet tombolo\ndelete table inet tombolo\ntable inet tombolo {\n");
    for (family, v4) in [("ip", true), ("ip6", false)] {
        set(&mut text, family, "pods", v4, &masquerade.pods);
        set(&mut text, family, "cluster", v4, &masquerade.cluster);
    }
    text.push_str("  chain postrouting {\n    type nat hook postrouting priority srcnat; policy accept;\n");
    for family in ["ip", "ip6"] {
        let _ = writeln!(
            text,
            "    {family} saddr @pods_{family} {family} daddr != @cluster_{family} masquerade"
        );
    }
    text.push_str("  }\n");
    untracked(&mut text, overlay_port);
    text.push_str("}\n");
    text
}

fn untracked(text: &mut String, overlay_port: Option<u16>) {
    text.push_str("  chain prerouting {\n    type filter hook prerouting priority raw; policy accept;\n");
    for family in ["ip", "ip6"] {
        let _ = writeln!(
            text,
            "    iifname \"{HOST_LINK_PREFIX}*\" {family} daddr @pods_{family} notrack"
        );
    }
    if let Some(port) = overlay_port {
        // What pods send to the same port is not the overlay's, and may have to be translated.
        let _ = writeln!(
            text,
            "    iifname != \"{HOST_LINK_PREFIX}*\" udp dport {port} notrack\n  }}"
        );
        let _ = writeln!(
            text,
            "  chain output {{\n    type filter hook output priority raw; policy accept;\n    udp dport {port} notrack\n  }}"
        );
    } else {
        text.push_str("  }\n");
    }
}

fn set(text: &mut String, family: &str, name: &str, v4: bool, ranges: &BTreeSet<IpNet>) {
    let kind = if v4 { "ipv4_addr" } else { "ipv6_addr" };
    let ranges: Vec<String> = ranges
        .iter()
        .filter(|r| r.addr().is_ipv4() == v4)
        .map(IpNet::to_string)
        .collect();
    let _ = write!(
        text,
        "  set {name}_{family} {{ type {kind}; flags interval; auto-merge; "
    );
    if !ranges.is_empty() {
        let _ = write!(text, "elements = {{ {} }} ", ranges.join(", "));
    }
    text.push_str("}\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_whole() {
        let nets = |list: &[&str]| list.iter().map(|n| n.parse().unwrap()).collect();
        let masquerade = Masquerade {
            pods: nets(&["10.244.0.0/16"]),
            cluster: nets(&["10.244.0.0/16", "172.20.0.0/16"]),
        };
        let expected = "\
table inet tombolo
delete table inet tombolo
table inet tombolo {
  set pods_ip { type ipv4_addr; flags interval; auto-merge; elements = { 10.244.0.0/16 } }
  set cluster_ip { type ipv4_addr; flags interval; auto-merge; elements = { 10.244.0.0/16, 172.20.0.0/16 } }
  set pods_ip6 { type ipv6_addr; flags interval; auto-merge; }
  set cluster_ip6 { type ipv6_addr; flags interval; auto-merge; }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr @pods_ip ip daddr != @cluster_ip masquerade
    ip6 saddr @pods_ip6 ip6 daddr != @cluster_ip6 masquerade
  }
  chain prerouting {
    type filter hook prerouting priority raw; policy accept;
    iifname \"tmb*\" ip daddr @pods_ip notrack
    iifname \"tmb*\" ip6 daddr @pods_ip6 notrack
  }
}
";
        assert_eq!(rules(&masquerade, None), expected);
        let untracked = "    iifname != \"tmb*\" udp dport 4789 notrack
  }
  chain output {
    type filter hook output priority raw; policy accept;
    udp dport 4789 notrack
  }
}
";
        let with_overlay = [expected.strip_suffix("  }\n}\n").unwrap(), untracked].concat();
        assert_eq!(rules(&masquerade, Some(4789)), with_overlay);
    }
}
