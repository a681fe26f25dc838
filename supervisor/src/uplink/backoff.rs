//! How long to wait before the next try. Pure: randomness is an argument.

use std::time::Duration;

/// Doubling delays with jitter, so that a thousand hosts do not come back in the same second.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// Upper bound of the first delay.
    pub first: Duration,
    /// Upper bound of every delay.
    pub most: Duration,
}

impl Backoff {
    /// For the link: 1 s to 60 s.
    pub const LINK: Self = Self { first: Duration::from_secs(1), most: Duration::from_secs(60) };

    /// The delay after `failures` failures in a row (1 or more): between half and all of the bound,
    /// chosen by `random`.
    #[must_use]
    pub fn delay(self, failures: u32, random: u32) -> Duration {
        let doubled = self.first.saturating_mul(1 << failures.saturating_sub(1).min(16));
        let half = doubled.min(self.most) / 2;
        half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn delays_grow_and_stay_below_the_bound(failures in 1_u32..100, random: u32) {
            let delay = Backoff::LINK.delay(failures, random);
            prop_assert!(delay <= Backoff::LINK.most);
            prop_assert!(delay >= Backoff::LINK.first / 2);
            prop_assert!(Backoff::LINK.delay(failures + 1, 0) >= Backoff::LINK.delay(failures, 0));
        }
    }

    #[test]
    fn the_first_delay_is_half_a_second_to_a_second() {
        assert_eq!(Backoff::LINK.delay(1, 0), Duration::from_millis(500));
        assert_eq!(Backoff::LINK.delay(1, u32::MAX), Duration::from_secs(1));
    }
}
