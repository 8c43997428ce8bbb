//! One handler for each verb.

mod delete;
mod log;
mod read;
mod watch;
mod write;

pub use delete::delete;
pub use log::log;
pub use read::{get, list};
pub use watch::watch;
pub use write::{create, patch, update};
