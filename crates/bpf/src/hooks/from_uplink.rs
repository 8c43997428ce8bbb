//! What comes in from the wire. Most of it is the node's own and passes on.

use aya_ebpf::{EbpfContext as _, bindings::__sk_buff, macros::classifier, programs::TcContext};
use tombolo_abi::{Hook, MacKey, Outcome, Route, RouteKind, Way};

use crate::{
    counters::counted,
    deliver::{Entry, deliver},
    maps::UPLINK_MACS,
    parse::Packet,
    resolve::{self, Place, resolve},
    services,
    skb::Skb,
    tracking::Tracking,
    tunnel,
    verdict::Verdict,
};

/// Ingress of an uplink.
#[classifier]
pub fn from_uplink(context: TcContext) -> i32 {
    counted(Hook::FromUplink, Skb::new(context.as_ptr().cast()), stages)
}

#[inline(always)]
fn stages(skb: Skb) -> Result<Verdict, Verdict> {
    skb.clear_resolved();
    let packet = match Packet::parse(skb) {
        Ok(packet) => packet,
        // No node and no router sends this: on the wire these addresses mean nothing (RFC 4942,
        // section 2.2), and here they would pass for IPv4.
        Err(Outcome::MappedAddress) => return Err(Outcome::MappedAddress.into()),
        // The stack makes of it what it will; no pod ever sees it.
        Err(_) => return Ok(Verdict::pass(Outcome::NotOurs)),
    };
    // What most traffic of the node itself is for, and all that is encapsulated.
    let is_primary = resolve::is_node_primary(&packet.destination);
    if is_primary && (!services::are_on() || tunnel::check(skb, &packet).is_err()) {
        return Ok(Verdict::pass(Outcome::NotOurs));
    }
    let place = if is_primary {
        Place::OwnNode
    } else {
        resolve(&packet.destination)
    };
    let tracking = Tracking::begin()?;
    match place {
        Place::Endpoint(endpoint) => {
            match check_way(skb, &packet) {
                Ok(()) => services::goes_on(skb, &packet, tracking)?,
                // A router on the way to a backend has its say.
                Err(Outcome::ExternalToPod) if services::is_about_a_flow(skb, &packet, tracking) => {}
                Err(reason) => return Err(reason.into()),
            }
            deliver(skb, &packet, &tracking.to, endpoint, Entry::Forwarded)
        }
        Place::OwnBlock => Err(Outcome::UnknownEndpoint.into()),
        // A node is no router for the pods of others.
        Place::Remote(route) if route.kind == RouteKind::Pods as u8 => Err(Outcome::NotLocal.into()),
        Place::Remote(_) | Place::OwnNode | Place::Services | Place::Outside => {
            match services::arrived(skb, &packet, tracking, || check_pod(skb, &packet))? {
                Some(verdict) => Ok(verdict),
                None if matches!(place, Place::Services) => Err(services::unknown(skb, &packet)),
                None => Ok(Verdict::pass(Outcome::NotOurs)),
            }
        }
    }
}

/// Holds a pod that sends to a Service to the way that its packets take.
#[inline(always)]
fn check_pod(skb: Skb, packet: &Packet) -> Result<(), Outcome> {
    match resolve::route(&packet.source) {
        Some(route) if route.kind == RouteKind::Pods as u8 || resolve::is_local(route) => {
            match source_complaint(skb.as_ptr(), packet) {
                0 => Ok(()),
                reason => Err(Outcome::from_number(reason as u8).unwrap_or(Outcome::Malformed)),
            }
        }
        _ => Ok(()),
    }
}

/// Public by name, so that the verifier looks at it once. Returns an outcome's number; 0: there is nothing to say
/// against the source.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn source_complaint(context: *mut __sk_buff, packet: *const Packet) -> i32 {
    // SAFETY: it is called with a reference. The verifier, which looks at it alone, wants it tested.
    match unsafe { packet.as_ref() }.map(|packet| check_way(Skb::new(context), packet)) {
        Some(Ok(())) => 0,
        Some(Err(reason)) => reason as i32,
        None => Outcome::Malformed as i32,
    }
}

/// Holds whoever sends to a pod to the way that the source's packets take.
#[inline(always)]
fn check_way(skb: Skb, packet: &Packet) -> Result<(), Outcome> {
    let route = resolve::route(&packet.source).ok_or(Outcome::ExternalToPod)?;
    if route.way == Way::Overlay as u8 {
        return Err(Outcome::Unencapsulated);
    }
    if route.way == Way::Local as u8 {
        return Err(Outcome::SpoofedSource);
    }
    // A node's own address cannot be told from a forged one on its own link without encryption.
    if route.kind == RouteKind::Pods as u8 {
        check_mac(skb, route)
    } else {
        Ok(())
    }
}

/// A pod's packet comes from one of its node's uplinks, unless a router lies between.
#[inline(always)]
fn check_mac(skb: Skb, route: &Route) -> Result<(), Outcome> {
    let mac = skb.source_mac().ok_or(Outcome::Malformed)?;
    // SAFETY: only whether it is there counts.
    if unsafe {
        UPLINK_MACS.get(MacKey {
            node: route.node,
            mac,
            pad: [0; 2],
        })
    }
    .is_some()
    {
        return Ok(());
    }
    // On the same link, the next hop to a node is the node; past a router, it is the router.
    match resolve::node(&route.next_hop) {
        Some(next_hop) if next_hop.node == route.node => Err(Outcome::WrongUplinkMac),
        _ => Ok(()),
    }
}
