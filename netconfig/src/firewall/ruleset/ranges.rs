//! Sets of numbers as ranges: addresses, ports, hardware addresses, all as 128-bit numbers.

use std::fmt;

/// A set of numbers, as ascending ranges (both ends belong to them) of which no two touch: equal sets are equal values.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ranges(Vec<(u128, u128)>);

impl Ranges {
    /// No number.
    #[must_use]
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// One number.
    #[must_use]
    pub fn one(number: u128) -> Self {
        Self(vec![(number, number)])
    }

    /// From `first` to `last`; none where they are the wrong way round.
    #[must_use]
    pub fn span(first: u128, last: u128) -> Self {
        if first <= last { Self(vec![(first, last)]) } else { Self::none() }
    }

    /// Whether there is no number in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a number is in it.
    #[must_use]
    pub fn contains(&self, number: u128) -> bool {
        self.0.iter().any(|&(first, last)| (first..=last).contains(&number))
    }

    /// The ranges, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u128, u128)> + '_ {
        self.0.iter().copied()
    }

    /// Its smallest number.
    #[must_use]
    pub fn first(&self) -> Option<u128> {
        self.0.first().map(|&(first, _)| first)
    }

    /// What is in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.iter().chain(other.iter()).collect()
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut found = Vec::new();
        while let (Some(&&(a, b)), Some(&&(c, d))) = (left.peek(), right.peek()) {
            if a.max(c) <= b.min(d) {
                found.push((a.max(c), b.min(d)));
            }
            if b < d {
                left.next()
            } else {
                right.next()
            };
        }
        Self(found)
    }

    /// What is in this and not in the other.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        self.intersection(&other.complement(u128::MAX))
    }

    /// What is up to `largest` and not in it.
    #[must_use]
    pub fn complement(&self, largest: u128) -> Self {
        let (mut found, mut next) = (Vec::new(), Some(0));
        for &(first, last) in &self.0 {
            if let (Some(from), Some(to)) = (next, first.checked_sub(1))
                && from <= to.min(largest)
            {
                found.push((from, to.min(largest)));
            }
            next = last.checked_add(1);
        }
        if let Some(from) = next.filter(|&from| from <= largest) {
            found.push((from, largest));
        }
        Self(found)
    }

    /// Whether everything in it is in the other.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        self.without(other).is_empty()
    }
}

impl FromIterator<(u128, u128)> for Ranges {
    fn from_iter<I: IntoIterator<Item = (u128, u128)>>(ranges: I) -> Self {
        let mut all: Vec<_> = ranges.into_iter().filter(|(first, last)| first <= last).collect();
        all.sort_unstable();
        let mut joined: Vec<(u128, u128)> = Vec::with_capacity(all.len());
        for (first, last) in all {
            match joined.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => joined.push((first, last)),
            }
        }
        Self(joined)
    }
}

impl fmt::Debug for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().map(|(first, last)| first..=last)).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::Ranges;

    fn ranges() -> impl Strategy<Value = Ranges> {
        prop::collection::vec((0_u128..40, 0_u128..40), 0..6)
            .prop_map(|pairs| pairs.into_iter().collect())
    }

    fn numbers(ranges: &Ranges) -> BTreeSet<u128> {
        (0..64).filter(|&number| ranges.contains(number)).collect()
    }

    proptest! {
        #[test]
        fn ranges_behave_as_sets_of_numbers(a in ranges(), b in ranges()) {
            let (x, y) = (numbers(&a), numbers(&b));
            prop_assert_eq!(numbers(&a.union(&b)), x.union(&y).copied().collect::<BTreeSet<_>>());
            prop_assert_eq!(numbers(&a.intersection(&b)), x.intersection(&y).copied().collect::<BTreeSet<_>>());
            prop_assert_eq!(numbers(&a.without(&b)), x.difference(&y).copied().collect::<BTreeSet<_>>());
            let rest: BTreeSet<u128> = (0..=50).filter(|number| !x.contains(number)).collect();
            prop_assert_eq!(numbers(&a.complement(50)), rest);
            prop_assert_eq!(a == b, x == y);
            prop_assert_eq!(a.is_within(&b), x.is_subset(&y));
        }
    }

    #[test]
    fn the_largest_number_is_a_number_like_others() {
        let top = Ranges::one(u128::MAX);
        let all = Ranges::span(0, u128::MAX);
        assert_eq!(all.without(&top), Ranges::span(0, u128::MAX - 1));
        assert_eq!(all.without(&top).union(&top), all);
        assert!(all.complement(u128::MAX).is_empty());
    }
}
