//! Tells the control loop when something of the node's own network has changed, and sees to it that endpoints
//! take the path that their links ask for.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tombolo_cni::HOST_LINK_PREFIX;
use tombolo_netlink::{Event, Monitor, ROUTE_PROTOCOL};

use crate::control::Trigger;
use crate::endpoints::Endpoints;
use crate::error::Error;
use crate::slow_path::{self, Concern};

/// How long to wait after an error: the kernel is short of memory, most likely.
const PAUSE: Duration = Duration::from_secs(1);

/// How long to wait for an event, which then has not come.
const FOREVER: Duration = Duration::from_secs(3600);

/// Starts the thread that listens, for as long as the process lives.
///
/// # Errors
/// The kernel refuses a socket, or a thread.
pub fn start(trigger: Arc<Trigger>, endpoints: Arc<Endpoints>) -> Result<(), Error> {
    let mut monitor = Monitor::open()?;
    let listen = move || {
        // What changed before there was a monitor.
        slow_path::refresh(&endpoints, Concern::AllLinks);
        loop {
            match monitor.next(FOREVER) {
                Ok(Some(event)) => {
                    if concerns_layout(&event) {
                        trigger.pull();
                    }
                    if let Some(concern) = slow_path::concern(&event) {
                        slow_path::refresh(&endpoints, concern);
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, "lost sight of the node's network; looking anew");
                    trigger.pull();
                    slow_path::refresh(&endpoints, Concern::AllLinks);
                    thread::sleep(PAUSE);
                }
            }
        }
    };
    let spawned = thread::Builder::new()
        .name("monitor".into())
        .stack_size(256 << 10)
        .spawn(listen);
    spawned.map(drop).map_err(|source| Error::Start {
        what: "the monitor",
        source,
    })
}

/// Whether the layout may depend on it. Pods come and go without.
fn concerns_layout(event: &Event) -> bool {
    match event {
        Event::Link(link) | Event::LinkRemoved(link) => !link.name.starts_with(HOST_LINK_PREFIX),
        // Removals of our routes concern it: somebody else may have done that.
        Event::RouteRemoved(route) => route.destination.prefix_len() != route.destination.max_prefix_len(),
        Event::Route(route) => route.protocol != ROUTE_PROTOCOL,
        Event::Address(_) | Event::AddressRemoved(_) | Event::Overrun => true,
        Event::Qdisc(_) | Event::QdiscRemoved(_) | Event::Filter(_) | Event::FilterRemoved(_) => false,
    }
}
