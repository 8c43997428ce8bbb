//! Neighbours: which MAC an address on a link has (ARP, RFC 826; NDP, RFC 4861).

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};

use crate::address::family;
use crate::{Mac, Netlink, Result};

/// An entry of the neighbour table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neighbour {
    /// The link.
    pub ifindex: u32,
    /// The neighbour's address.
    pub address: IpAddr,
    /// Its MAC; none while it is being asked for, or when nobody answered.
    pub mac: Option<Mac>,
    /// Whether the entry stays until it is deleted, and nobody is asked.
    pub permanent: bool,
}

impl Netlink {
    /// All neighbours of both families in this namespace.
    pub fn neighbours(&mut self) -> Result<Vec<Neighbour>> {
        let request = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        self.socket()
            .dump(&"list neighbours", request, |answer| match answer {
                RouteNetlinkMessage::NewNeighbour(message) => Neighbour::from_message(&message),
                _ => None,
            })
    }

    /// Makes an address a permanent neighbour, replacing what the table says of it.
    pub fn replace_neighbour(&mut self, ifindex: u32, address: IpAddr, mac: Mac) -> Result<()> {
        let operation = format_args!("set neighbour {address} of link {ifindex}");
        let mut message = to_message(ifindex, address);
        message.header.state = NeighbourState::Permanent;
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        let request = RouteNetlinkMessage::NewNeighbour(message);
        self.socket()
            .request(&operation, request, NLM_F_CREATE | NLM_F_REPLACE)
            .map(drop)
    }

    /// Deletes a neighbour. False: there was none.
    pub fn delete_neighbour(&mut self, ifindex: u32, address: IpAddr) -> Result<bool> {
        let operation = format_args!("delete neighbour {address} of link {ifindex}");
        let request = RouteNetlinkMessage::DelNeighbour(to_message(ifindex, address));
        match self.socket().request(&operation, request, 0) {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Neighbour {
    pub(crate) fn from_message(message: &NeighbourMessage) -> Option<Self> {
        let mut address = None;
        let mut mac = None;
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => address = Some((*v4).into()),
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => address = Some((*v6).into()),
                NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
                _ => {}
            }
        }
        Some(Self {
            ifindex: message.header.ifindex,
            address: address?,
            mac,
            permanent: message.header.state == NeighbourState::Permanent,
        })
    }
}

fn to_message(ifindex: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = ifindex;
    message.header.family = family(address);
    message
        .attributes
        .push(NeighbourAttribute::Destination(address.into()));
    message
}
