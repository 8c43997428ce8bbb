//! The routes of the kernel's main table that the layout asks for. Routes to single addresses are the
//! pods' own, and come and go with them (`wiring.rs`).

use std::collections::BTreeMap;

use ipnet::IpNet;
use tombolo_layout::KernelRoute;
use tombolo_netlink::{Netlink, ROUTE_PROTOCOL, Route, RouteKind};

use crate::error::Error;

/// Changes what differs. All that can be done is done; what cannot is in `errors`.
pub fn reconcile(
    netlink: &mut Netlink,
    wanted: &BTreeMap<IpNet, KernelRoute>,
    overlay_ifindex: Option<u32>,
    errors: &mut Vec<Error>,
) {
    let found = match netlink.routes(ROUTE_PROTOCOL) {
        Ok(routes) => routes,
        Err(error) => return errors.push(error.into()),
    };
    let mut found: BTreeMap<IpNet, Route> = found
        .into_iter()
        .filter(|r| r.destination.prefix_len() != r.destination.max_prefix_len())
        .map(|r| (r.destination, r))
        .collect();
    for (&destination, wanted) in wanted {
        let Some(route) = to_route(destination, wanted, overlay_ifindex) else {
            continue;
        };
        let same = found
            .remove(&destination)
            .is_some_and(|found| equal(&found, &route));
        if !same && let Err(error) = netlink.replace_route(&route) {
            errors.push(error.into());
        }
    }
    for stale in found.values() {
        if let Err(error) = netlink.delete_route(stale) {
            errors.push(error.into());
        }
    }
}

fn to_route(destination: IpNet, wanted: &KernelRoute, overlay_ifindex: Option<u32>) -> Option<Route> {
    Some(match *wanted {
        KernelRoute::Unreachable => Route::unreachable(destination),
        KernelRoute::Overlay { source, mtu } => Route {
            ifindex: Some(overlay_ifindex?),
            source,
            mtu: Some(mtu.into()),
            ..Route::new(destination)
        },
        KernelRoute::Direct {
            ifindex,
            next_hop,
            source,
            mtu,
        } => Route {
            ifindex: Some(ifindex),
            gateway: Some(next_hop),
            source,
            mtu: Some(mtu.into()),
            ..Route::new(destination)
        },
    })
}

/// Whether the kernel's route does what ours would. It says things of its own, such as the device of
/// an unreachable IPv6 route.
fn equal(found: &Route, wanted: &Route) -> bool {
    let of_kind = |r: &Route| match r.kind {
        RouteKind::Unreachable => Route::unreachable(r.destination),
        _ => r.clone(),
    };
    of_kind(found) == of_kind(wanted)
}
