//! The time of day, and how objects carry it.

use std::time::{SystemTime, UNIX_EPOCH};

use k8s_openapi::jiff::Timestamp;

/// The time now, in whole milliseconds; the epoch, if the clock stands before it.
pub fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let milliseconds = i64::try_from(since_epoch.as_millis()).unwrap_or_default();
    Timestamp::from_millisecond(milliseconds).unwrap_or_default()
}

/// A time as objects carry it: RFC 3339, in UTC, in whole seconds.
pub fn rfc3339(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
