//! Arithmetic on points in time that cannot fail.

use bulkhead_api::time::Timestamp;
use jiff::SignedDuration;

/// `now` plus `seconds`, at most the end of time.
#[must_use]
pub fn later(now: Timestamp, seconds: i64) -> Timestamp {
    now.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

/// Whole seconds from `earlier` to `now`; 0 when the clock went back.
#[must_use]
pub fn seconds_since(earlier: Timestamp, now: Timestamp) -> i64 {
    now.duration_since(earlier).as_secs().max(0)
}
