//! The embedded Kubernetes API server of the lab: kinds are registered, objects live in memory, and
//! kubectl and client libraries find what they know from a real one.
//!
//! A request comes through `server` (TLS) and `auth` to `route`, which names what it is about; the
//! handler of its verb works on the `store` under the rules of `lifecycle` and the kind's `schema`.

mod admission;
mod api;
mod auth;
mod builtin;
mod cause;
mod clock;
mod closing;
mod discovery;
mod error;
mod handlers;
mod lifecycle;
mod logs;
mod names;
mod openapi;
mod page;
mod patch;
mod pki;
mod query;
mod random;
mod resource;
mod respond;
mod route;
mod schema;
mod selector;
mod server;
mod store;
mod table;

pub use admission::{Admission, Others, Refusal};
pub use auth::Token;
pub use builtin::{ServiceRanges, resources as built_in_resources};
pub use cause::{Cause, CauseReason};
pub use logs::{LogError, LogRequest, LogSource, LogStream, NoLogs};
pub use pki::{Pki, PkiError, kubeconfig};
pub use resource::{Cell, Column, RegistrationError, Resource, Rules};
pub use schema::{Schema, SchemaError};
pub use server::{DEFAULT_HISTORY, Error, Options, serve};
