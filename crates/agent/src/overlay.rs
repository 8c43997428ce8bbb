//! The overlay device: VXLAN, told by the programs where each packet goes.

use tombolo_layout::Overlay;
use tombolo_netlink::{Link, LinkChange, Netlink, Vxlan, sysctl};

use crate::error::Error;

/// The device's name.
pub const NAME: &str = "tombolo_vxlan";

/// Makes the device what it should be; true where it had to be made.
///
/// # Errors
/// The kernel refuses.
pub fn ensure(netlink: &mut Netlink, wanted: &Overlay) -> Result<bool, Error> {
    let found = netlink.link(NAME)?;
    let made = match &found {
        Some(link) if link.external_vxlan_port == Some(wanted.port) => {
            adjust(netlink, link, wanted)?;
            false
        }
        _ => {
            // The port of a VXLAN device cannot be changed.
            netlink.delete_link(NAME)?;
            let vxlan = Vxlan {
                name: NAME,
                mac: Some(wanted.mac),
                mtu: wanted.mtu.into(),
                port: wanted.port,
                up: false,
            };
            let index = netlink.add_vxlan(&vxlan)?;
            let up = LinkChange {
                ipv6_link_local: Some(false),
                up: Some(true),
                ..LinkChange::default()
            };
            netlink.set_link(index, &up)?;
            tracing::info!(port = wanted.port, mtu = wanted.mtu, "made the overlay device");
            true
        }
    };
    // What comes out of the tunnel has sources that the kernel would send elsewhere (a node's own
    // address, which is reached by an uplink). The larger of this and that of `all` counts: 2 is loose.
    sysctl::write(&format!("net/ipv4/conf/{NAME}/rp_filter"), "2")?;
    // Nothing on the other side is a router of this node's.
    sysctl::write(&format!("net/ipv6/conf/{NAME}/accept_ra"), "0")?;
    Ok(made)
}

/// Removes the device; it is fine if there is none.
///
/// # Errors
/// The kernel refuses.
pub fn remove(netlink: &mut Netlink) -> Result<(), Error> {
    if netlink.delete_link(NAME)? {
        tracing::info!("removed the overlay device");
    }
    Ok(())
}

fn adjust(netlink: &mut Netlink, link: &Link, wanted: &Overlay) -> Result<(), Error> {
    let mtu = u32::from(wanted.mtu);
    let change = LinkChange {
        mtu: (link.mtu != mtu).then_some(mtu),
        mac: (link.mac != Some(wanted.mac)).then_some(wanted.mac),
        up: (!link.up).then_some(true),
        ..LinkChange::default()
    };
    if change != LinkChange::default() {
        netlink.set_link(link.index, &change)?;
    }
    Ok(())
}
