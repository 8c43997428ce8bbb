//! The compiler of Services: objects go in, and what this node's kernel must hold so that they are reached comes out.
//!
//! Pure: no I/O, no clock, no kernel. It is in two parts. [`compile`] looks at one Service, its EndpointSlices and what
//! is true of this node, and knows nothing of other Services. [`Tables`] holds what was compiled of all of them: it
//! gives out what they share (backend ids, slabs, numbers), decides who gets an address that two want, and says which
//! rows to write in which order, at the cost of what changed.
//!
//! ```text
//! Service ────────▶ spec ──────────────────────┐                      ┌─▶ claims ───┐
//! EndpointSlices ─▶ endpoints ─▶ topology ─────┼─▶ ports ─▶ Tables ───┼─▶ backends ─┼─▶ Changes (rows, in order)
//! Facts ─────────────────────────┘─────────────┘   (Compiled)    ▲    └─▶ slabs ────┘
//! a pod's host ports ─▶ host_ports ───────────────▶              └─ adopt: rows that the kernel holds
//! ```
//!
//! The host ports of this node's pods are frontends, too, whose one backend is the pod ([`compile_host_ports`]). The
//! tables know of two kinds of [`Owner`]s; all else is the same.

mod compile;
mod compiled;
mod error;
mod facts;
mod maglev;
mod name;
mod owner;
mod place;
mod tables;

pub use compile::{HostPort, compile, compile_host_ports, service_of};
pub use compiled::{Compiled, Family, Frontend, HealthCheck, Port, Scope, Set, Spread};
pub use error::{Error, Resource};
pub use facts::Facts;
pub use maglev::table as maglev_table;
pub use name::ServiceName;
pub use owner::{Attachment, Owner};
pub use place::Place;
pub use tables::{Capacity, Changes, Conflict, KernelRows, Tables};
