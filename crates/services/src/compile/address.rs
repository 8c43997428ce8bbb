//! Addresses and ranges as objects hold them.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};

/// IPv4-mapped addresses (RFC 4291, 2.5.5.2): what the tables call IPv4 addresses.
const MAPPED: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96);

/// An address that a Service may be reached by or lead to; otherwise what is wrong with it. The API server refuses the
/// same ones, unspecified, loopback and link-local, and no connection goes to a multicast address.
pub(super) fn parse(text: &str) -> Result<IpAddr, String> {
    let Ok(address) = text.parse::<IpAddr>() else {
        return Err(format!("`{text}` is no IP address"));
    };
    let address = address.to_canonical();
    let what = match address {
        a if a.is_unspecified() => "the unspecified address",
        a if a.is_loopback() => "a loopback address",
        a if a.is_multicast() => "a multicast address",
        IpAddr::V4(a) if a.is_link_local() => "a link-local address",
        IpAddr::V6(a) if a.is_unicast_link_local() => "a link-local address",
        _ => return Ok(address),
    };
    Err(format!("`{text}` is {what}"))
}

/// A range of clients; otherwise what is wrong with it. Host bits may be set, and blanks are around it in objects that
/// the API server once let pass.
pub(super) fn parse_range(text: &str) -> Result<IpNet, String> {
    match text.trim().parse::<IpNet>() {
        Ok(IpNet::V6(net)) if MAPPED.contains(&net) => Err(format!(
            "`{text}` is of IPv4-mapped addresses; write an IPv4 range"
        )),
        Ok(net) => Ok(net.trunc()),
        Err(_) => Err(format!("`{text}` is no range of addresses")),
    }
}
