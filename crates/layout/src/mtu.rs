//! How large packets may be.

use crate::members::Member;
use crate::settings::Settings;
use crate::{Error, Local};

/// The least MTU that IPv6 works with (RFC 8200, section 5).
pub const IPV6_MIN_MTU: u16 = 1280;

/// What VXLAN adds to an IP packet: the outer IP header, UDP (8), VXLAN (8) and the inner Ethernet
/// header (14). RFC 7348, section 5.
pub(crate) const fn overhead(outer_v4: bool) -> u32 {
    if outer_v4 { 20 + 30 } else { 40 + 30 }
}

/// The MTU of this node's pods: the Network's, or else the lowest uplink's less the overlay's overhead
/// where an overlay is used.
pub(crate) fn of_pods(settings: &Settings, local: &Local, own: &Member<'_>) -> Result<u16, Error> {
    if let Some(mtu) = settings.mtu {
        return Ok(mtu);
    }
    let lowest = local.uplinks.iter().map(|u| u.mtu).min();
    let lowest = lowest.ok_or_else(|| Error::NoUplink {
        node: own.name.into(),
    })?;
    let less = if settings.overlays() {
        overhead(own.primary(true).is_some())
    } else {
        0
    };
    Ok(clamp(lowest.saturating_sub(less)))
}

/// An MTU as rows have it: no IP packet is larger than 65535 bytes.
pub(crate) fn clamp(mtu: u32) -> u16 {
    u16::try_from(mtu).unwrap_or(u16::MAX)
}
