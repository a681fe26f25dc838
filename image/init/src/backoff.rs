//! How long to wait before the next try.

use std::time::Duration;

/// Waiting times that double up to a limit, each spread over its upper half so that machines that failed together do not
/// come back together.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    limit: Duration,
    tries: u32,
}

impl Backoff {
    /// Begins with `first` and ends at `limit`.
    #[must_use]
    pub fn new(first: Duration, limit: Duration) -> Self {
        Self { first, limit, tries: 0 }
    }

    /// The next waiting time; `random` picks the place in its upper half.
    pub fn next(&mut self, random: u32) -> Duration {
        let full = self.first.saturating_mul(1 << self.tries.min(20)).min(self.limit);
        self.tries = self.tries.saturating_add(1);
        full / 2 + (full / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn waiting_times_double_up_to_the_limit() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
        let times: Vec<_> = (0..6).map(|_| backoff.next(u32::MAX).as_secs()).collect();
        assert_eq!(times, [1, 2, 4, 8, 10, 10]);
    }

    proptest! {
        #[test]
        fn every_waiting_time_is_in_the_upper_half(random: u32, tries in 0u32..100) {
            let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
            backoff.tries = tries;
            let full = Duration::from_secs(1).saturating_mul(1 << tries.min(20)).min(Duration::from_secs(60));
            let time = backoff.next(random);
            prop_assert!(time >= full / 2 && time <= full);
        }
    }
}
