//! Links, addresses, routes, neighbours, qdiscs, sysctls and network namespaces of the Linux kernel.
//!
//! Synchronous on purpose: a request to the kernel is a few system calls without waiting, and namespaces
//! belong to threads, which an async runtime shares. [`Netlink`] asks and changes, one request at a time;
//! [`Monitor`] reports what others change; [`Namespace`] says where.
//!
//! ```no_run
//! # fn main() -> Result<(), tombolo_netlink::Error> {
//! use tombolo_netlink::{LinkChange, Namespace, Netlink, Veth};
//! let pod = Namespace::open("/run/netns/pod".as_ref())?;
//! let mut host = Netlink::open()?;
//! host.add_veth(&Veth { name: "tmb0", peer_name: "eth0", peer_namespace: Some(&pod), ..Veth::default() })?;
//! let mut inside = Netlink::open_in(&pod)?;
//! let eth0 = inside.require_link("eth0")?;
//! inside.add_address(eth0.index, "10.1.2.3/32".parse().expect("a prefix"))?;
//! inside.set_link(eth0.index, &LinkChange { up: Some(true), ..LinkChange::default() })?;
//! # Ok(())
//! # }
//! ```

mod address;
mod decode;
mod error;
mod link;
mod monitor;
mod namespace;
mod neighbour;
mod qdisc;
mod route;
mod socket;
pub mod sysctl;

pub use address::{Address, AddressScope};
#[doc(hidden)]
pub use decode::decode;
pub use error::{Error, Result};
pub use link::{Bridge, Link, LinkChange, Veth, Vxlan};
pub use monitor::{Event, Monitor};
pub use namespace::Namespace;
pub use neighbour::Neighbour;
pub use qdisc::{Direction, Filter, Qdisc};
pub use route::{ROUTE_PROTOCOL, Reach, Route, RouteKind};
pub use socket::Netlink;

/// The address of an Ethernet device, in the order of the wire.
pub type Mac = [u8; 6];
