//! The kernel's settings of the node. Those of single devices are set where these are made.

use tombolo_layout::LocalUplink;
use tombolo_netlink::sysctl;

use crate::error::Error;

/// Makes the node forward packets.
///
/// # Errors
/// A setting cannot be read or written.
pub fn ensure(uplinks: &[LocalUplink]) -> Result<(), Error> {
    // A host that forwards takes no router advertisements, and loses its default route where that
    // came from one. 2 takes them all the same. Before forwarding is turned on, so that no route is lost.
    for uplink in uplinks {
        let key = format!("net/ipv6/conf/{}/accept_ra", uplink.name);
        if sysctl::read(&key)? == "1" {
            sysctl::write(&key, "2")?;
        }
    }
    // Pods speak to the world through the node's stack, and so do nodes to pods.
    set("net/ipv4/ip_forward", "1")?;
    set("net/ipv6/conf/all/forwarding", "1")
}

/// Writing, even the same again, has side effects on every device (`ip_forward` resets their settings).
fn set(key: &str, value: &str) -> Result<(), Error> {
    if sysctl::read(key)? != value {
        sysctl::write(key, value)?;
    }
    Ok(())
}
