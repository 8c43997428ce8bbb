//! Logs of the daemons, on standard error.

use tracing_subscriber::EnvFilter;

/// Starts logging; the variable `RUST_LOG` says how much, `info` if it is unset.
pub fn start(json: bool) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if json {
        log.json().init();
    } else {
        log.with_ansi(false).init();
    }
}
