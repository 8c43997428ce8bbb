//! Tells the control loop when something of the node's own network has changed, and sees to it that endpoints
//! take the path that their links ask for, and that host ports are where the node's addresses are.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::watch;
use tombolo_cni::HOST_LINK_PREFIX;
use tombolo_netlink::{Event, Monitor, ROUTE_PROTOCOL};

use crate::control::Trigger;
use crate::endpoints::Endpoints;
use crate::error::Error;
use crate::objects::Objects;
use crate::slow_path::{self, Concern};

/// How long to wait after an error: the kernel is short of memory, most likely.
const PAUSE: Duration = Duration::from_secs(1);

/// Addresses that come and go together are one change.
const GATHER: Duration = Duration::from_millis(20);

/// How long to wait for an event, which then has not come.
const FOREVER: Duration = Duration::from_secs(3600);

/// Starts the thread that listens, for as long as the process lives, and tells of addresses, too.
///
/// # Errors
/// The kernel refuses a socket, or a thread.
pub fn start(
    trigger: Arc<Trigger>,
    endpoints: Arc<Endpoints>,
    addresses: watch::Sender<AddressEvents>,
) -> Result<(), Error> {
    let mut monitor = Monitor::open()?;
    let listen = move || {
        // What changed before there was a monitor.
        slow_path::refresh(&endpoints, Concern::AllLinks);
        endpoints.services.refresh_host_ports();
        loop {
            match monitor.next(FOREVER) {
                Ok(Some(event)) => {
                    if concerns_layout(&event) {
                        trigger.pull();
                    }
                    if is_of_addresses(&event) {
                        endpoints.services.refresh_host_ports();
                    }
                    if let Some(concern) = slow_path::concern(&event) {
                        slow_path::refresh(&endpoints, concern);
                    }
                    addresses.send_if_modified(|seen| seen.note(&event));
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, "lost sight of the node's network; looking anew");
                    trigger.pull();
                    slow_path::refresh(&endpoints, Concern::AllLinks);
                    endpoints.services.refresh_host_ports();
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

/// How often the node's addresses were seen to change.
#[derive(Clone, Copy, Debug, Default)]
pub struct AddressEvents {
    /// Addresses that went, or may have.
    pub gone: u64,
    /// Addresses that came, or of which something changed.
    pub come: u64,
}

impl AddressEvents {
    /// Whether it is one of these.
    fn note(&mut self, event: &Event) -> bool {
        match event {
            Event::AddressRemoved(_) | Event::Overrun => self.gone += 1,
            Event::Address(_) => self.come += 1,
            _ => return false,
        }
        true
    }
}

/// Has the API server reached anew whenever an address has gone that it may have been reached from, and
/// again when one has come while it is not reached, rather than when the next attempt is due.
pub async fn reconnect(objects: Arc<Objects>, mut addresses: watch::Receiver<AddressEvents>) {
    let mut gone = 0;
    while addresses.changed().await.is_ok() {
        tokio::time::sleep(GATHER).await;
        let seen = *addresses.borrow_and_update();
        if seen.gone != gone || objects.is_connecting() {
            gone = seen.gone;
            objects.reconnect().await;
        }
    }
}

/// Whether the node may have others after it.
fn is_of_addresses(event: &Event) -> bool {
    matches!(
        event,
        Event::Address(_) | Event::AddressRemoved(_) | Event::Overrun
    )
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
