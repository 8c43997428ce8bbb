//! Whether kube-proxy has its rules on the node, too: they do no harm, and no good. A cheap look, made when somebody
//! asks.

use std::process::{Command, Stdio};

/// What to tell of it, for a person.
pub fn notice() -> Option<String> {
    let found = in_nftables().or_else(in_iptables_legacy).or_else(in_ipvs)?;
    Some(format!(
        "kube-proxy's rules are on this node ({found}). What is for Services from pods and from outside is translated \
         before it gets to them, so they are of no use there, and of no harm; kube-proxy can be taken away"
    ))
}

/// Its own table, or its chains among those of iptables.
fn in_nftables() -> Option<&'static str> {
    let chains = output(Command::new("nft").args(["list", "chains"]))?;
    if chains
        .lines()
        .any(|line| line.trim_end() == "table ip kube-proxy {")
    {
        Some("the nftables table kube-proxy")
    } else if chains.contains("chain KUBE-SERVICES ") {
        Some("the iptables chain KUBE-SERVICES")
    } else {
        None
    }
}

fn in_iptables_legacy() -> Option<&'static str> {
    // A chain of two rules, however many Services there are.
    let chain = output(Command::new("iptables-legacy").args(["-t", "nat", "-S", "KUBE-MARK-MASQ"]))?;
    (!chain.is_empty()).then_some("the iptables chain KUBE-MARK-MASQ")
}

fn in_ipvs() -> Option<&'static str> {
    let services = std::fs::read_to_string("/proc/net/ip_vs").ok()?;
    // Below a heading of three lines.
    (services.lines().count() > 3).then_some("virtual servers of IPVS")
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
