//! Waiting for something to become true.

use std::thread;
use std::time::{Duration, Instant};

/// How often to look.
const INTERVAL: Duration = Duration::from_millis(5);

/// Waits until `condition` holds.
///
/// # Panics
/// When it does not within `deadline`; the message names `description`.
#[track_caller]
pub fn wait_for(deadline: Duration, description: &str, mut condition: impl FnMut() -> bool) {
    wait_for_some(deadline, description, || condition().then_some(()));
}

/// Waits until `attempt` gives a value.
///
/// # Panics
/// When it does not within `deadline`; the message names `description`.
#[track_caller]
pub fn wait_for_some<T>(deadline: Duration, description: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(Instant::now() < end, "not within {deadline:?}: {description}");
        thread::sleep(INTERVAL);
    }
}
