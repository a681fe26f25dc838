//! How long to wait before the next try. Pure: randomness is an argument.

use std::time::Duration;

/// Upper bound of the first delay.
const FIRST: Duration = Duration::from_millis(500);
/// Upper bound of every delay.
const MOST: Duration = Duration::from_secs(30);

/// The delay after `failures` failures in a row (from 1): between half and all of a bound that doubles,
/// chosen by `random`, so that a thousand sites do not come back in the same second.
pub(super) fn delay(failures: u32, random: u32) -> Duration {
    let doubled = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let half = doubled.min(MOST) / 2;
    half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn delays_grow_and_stay_within_their_bounds(failures in 1_u32..1000, random: u32) {
            let chosen = delay(failures, random);
            prop_assert!(chosen >= FIRST / 2 && chosen <= MOST);
            prop_assert!(delay(failures + 1, 0) >= delay(failures, 0));
        }
    }

    #[test]
    fn the_first_delay_is_at_most_half_a_second_and_the_tenth_at_least_fifteen() {
        assert_eq!(delay(1, 0), Duration::from_millis(250));
        assert_eq!(delay(1, u32::MAX), Duration::from_millis(500));
        assert_eq!(delay(10, 0), Duration::from_secs(15));
    }
}
