//! Whether what was seen after an erase shows that it was one: pure.
//!
//! The eraser's own word counts for nothing: a step that did not do what it said contradicts what is read.

use bulkhead_api::receipt::Evidence;
use bulkhead_api::resource::Extent;

use crate::storage::dm::crypt::RESERVED;

/// Length of what is read at one place.
pub const SAMPLE: usize = 4096;
/// Places besides beginning and end of each run.
pub const RANDOM_PLACES: usize = 32;

/// How the volume's place was cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clearing {
    /// All of it must read as zeros.
    Zeroed,
    /// The reserved end must read as zeros; the rest is the disk's choice.
    ReservedEnd,
}

/// What was read at a place of the pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Which byte of the pool.
    pub at: u64,
    /// What was there.
    pub bytes: Vec<u8>,
}

/// What is known of the canary from when the volume was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canary {
    /// What its block was full of, in plain.
    pub marker: Vec<u8>,
    /// SHA-256 of the block on the disk.
    pub digest: String,
}

/// Everything that was looked at after an erase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Name of the mapping.
    pub mapping: String,
    /// It is still there.
    pub mapped: bool,
    /// Description of the key.
    pub key: String,
    /// It can still be found.
    pub key_found: bool,
    /// How the place was cleared.
    pub clearing: Clearing,
    /// The pool.
    pub pool: String,
    /// Where the canary's block was.
    pub canary_at: u64,
    /// What is there now.
    pub canary_now: Vec<u8>,
    /// SHA-256 of that.
    pub canary_now_digest: String,
    /// From when the volume was made; absent where nothing was remembered.
    pub canary: Option<Canary>,
    /// Other places.
    pub samples: Vec<Sample>,
}

/// Something that is not as it should be after an erase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contradiction {
    /// What was looked at.
    pub what: String,
    /// What should have been there.
    pub expected: String,
    /// What was.
    pub found: String,
}

/// The evidence for the receipt.
///
/// # Errors
/// The first contradiction.
pub fn verdict(seen: &Seen) -> Result<Vec<Evidence>, Contradiction> {
    let expect = |holds: bool, what: String, expected: &str, found: String| {
        if holds {
            Ok(Evidence { what, found })
        } else {
            Err(Contradiction { what, expected: expected.to_owned(), found })
        }
    };
    let there = |is: bool| if is { "there" } else { "none" }.to_owned();
    let mapping = format!("mapping {}", seen.mapping);
    let key = format!("key {}", seen.key);
    let mut evidence = vec![
        expect(!seen.mapped, mapping, "none", there(seen.mapped))?,
        expect(!seen.key_found, key, "none", there(seen.key_found))?,
    ];
    let Seen { pool, canary_at, canary_now, canary_now_digest, .. } = seen;
    let place = format!("canary block at byte {canary_at} of pool {pool}");
    let same = seen.canary.as_ref().is_some_and(|canary| canary.digest == *canary_now_digest);
    let now = if same {
        "the ciphertext of before".to_owned()
    } else if is_zero(canary_now) {
        match &seen.canary {
            Some(canary) => format!("zeros; its ciphertext was SHA-256 {}", canary.digest),
            None => "zeros".to_owned(),
        }
    } else {
        format!("SHA-256 {canary_now_digest}")
    };
    evidence.push(expect(!same && is_zero(canary_now), place, "zeros", now)?);
    evidence.push(samples(seen)?);
    Ok(evidence)
}

fn samples(seen: &Seen) -> Result<Evidence, Contradiction> {
    let marker = seen.canary.as_ref().map(|canary| canary.marker.as_slice());
    for Sample { at, bytes } in &seen.samples {
        let what = || format!("byte {at} of pool {}", seen.pool);
        if marker.is_some_and(|marker| contains(bytes, marker)) {
            let (expected, found) = ("no marker".to_owned(), "the marker in plain".to_owned());
            return Err(Contradiction { what: what(), expected, found });
        }
        if seen.clearing == Clearing::Zeroed && !is_zero(bytes) {
            let (expected, found) = ("zeros".to_owned(), "other bytes".to_owned());
            return Err(Contradiction { what: what(), expected, found });
        }
    }
    let found = match seen.clearing {
        Clearing::Zeroed => "zeros in all",
        Clearing::ReservedEnd => "the marker in none",
    };
    let places = seen.samples.len();
    let what = format!("{places} places of {SAMPLE} bytes of the volume in pool {}", seen.pool);
    Ok(Evidence { what, found: found.to_owned() })
}

/// Whether one text of bytes is in another.
#[must_use]
pub fn contains(bytes: &[u8], marker: &[u8]) -> bool {
    !marker.is_empty() && bytes.windows(marker.len()).any(|window| window == marker)
}

fn is_zero(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| byte == 0)
}

/// Where the canary's block is in the pool: in the reserved end, which lies in the last extent.
#[must_use]
pub fn canary_place(extents: &[Extent]) -> u64 {
    extents.last().map_or(0, |last| last.end().saturating_sub(RESERVED))
}

/// Where to look: beginning and end of every extent, and a place for each random number.
#[must_use]
pub fn places(extents: &[Extent], random: &[u64]) -> Vec<u64> {
    let unit = SAMPLE as u64;
    let total: u64 = extents.iter().map(|extent| extent.length / unit).sum();
    let mut places: Vec<u64> = extents
        .iter()
        .flat_map(|extent| [extent.start, extent.end().saturating_sub(unit)])
        .collect();
    for number in random {
        let Some(mut left) = number.checked_rem(total) else { continue };
        for extent in extents {
            let here = extent.length / unit;
            if left < here {
                places.push(extent.start.saturating_add(left.saturating_mul(unit)));
                break;
            }
            left = left.saturating_sub(here);
        }
    }
    places.sort_unstable();
    places.dedup();
    places
}

#[cfg(test)]
mod tests {
    use bulkhead_api::resource::EXTENT;
    use proptest::prelude::*;

    use super::*;

    const MARKER: [u8; 32] = [0xa5; 32];

    fn clean() -> Seen {
        Seen {
            mapping: "bh-a.b.c".to_owned(),
            mapped: false,
            key: "bulkhead:a.b.c".to_owned(),
            key_found: false,
            clearing: Clearing::Zeroed,
            pool: "p".to_owned(),
            canary_at: 3 << 20,
            canary_now: vec![0; SAMPLE],
            canary_now_digest: "now".to_owned(),
            canary: Some(Canary { marker: MARKER.to_vec(), digest: "then".to_owned() }),
            samples: vec![Sample { at: 0, bytes: vec![0; SAMPLE] }],
        }
    }

    #[test]
    fn a_clean_volume_has_four_lines_of_evidence() {
        let evidence = verdict(&clean()).unwrap();
        let found: Vec<&str> = evidence.iter().map(|line| line.found.as_str()).collect();
        assert_eq!(
            found,
            ["none", "none", "zeros; its ciphertext was SHA-256 then", "zeros in all"]
        );
    }

    #[test]
    fn an_eraser_that_did_nothing_is_contradicted_whatever_it_left_out() {
        let mut marked = vec![1; SAMPLE];
        marked[100..132].copy_from_slice(&MARKER);
        let left: [(&str, Seen); 6] = [
            ("mapping", Seen { mapped: true, ..clean() }),
            ("key", Seen { key_found: true, ..clean() }),
            (
                "canary",
                Seen {
                    canary_now: vec![7; SAMPLE],
                    canary_now_digest: "then".to_owned(),
                    ..clean()
                },
            ),
            ("canary", Seen { canary_now: vec![7; SAMPLE], canary: None, ..clean() }),
            ("byte 0", Seen { samples: vec![Sample { at: 0, bytes: vec![1; SAMPLE] }], ..clean() }),
            (
                "byte 8",
                Seen {
                    clearing: Clearing::ReservedEnd,
                    samples: vec![Sample { at: 8, bytes: marked }],
                    ..clean()
                },
            ),
        ];
        for (what, seen) in left {
            let found = verdict(&seen).unwrap_err();
            assert!(found.what.starts_with(what), "{found:?}");
        }
    }

    #[test]
    fn a_disk_that_cannot_clear_may_keep_noise_but_not_at_the_canary() {
        let noise = vec![Sample { at: 0, bytes: vec![1; SAMPLE] }];
        let seen = Seen { clearing: Clearing::ReservedEnd, samples: noise, ..clean() };
        assert!(verdict(&seen).is_ok());
        assert!(verdict(&Seen { canary_now: vec![1; SAMPLE], ..seen }).is_err());
    }

    #[test]
    fn nothing_read_is_not_clean() {
        assert!(verdict(&Seen { canary_now: Vec::new(), ..clean() }).is_err());
    }

    proptest! {
        #[test]
        fn places_are_inside_the_volume_and_aligned(
            runs in prop::collection::vec((0_u64..4, 1_u64..4), 1..5),
            random in prop::collection::vec(any::<u64>(), 0..40),
        ) {
            let mut next = 0;
            let extents: Vec<Extent> = runs.iter().map(|(gap, count)| {
                let start = (next + gap) * EXTENT;
                next += gap + count;
                Extent { start, length: count * EXTENT }
            }).collect();
            let places = places(&extents, &random);
            prop_assert!(places.len() >= 2 * extents.len());
            for place in places {
                prop_assert!(place.is_multiple_of(4096));
                let sample = Extent { start: place, length: 4096 };
                prop_assert!(extents.iter().any(|e| e.start <= place && sample.end() <= e.end()));
            }
        }

        #[test]
        fn odd_extents_have_places_or_none(start in any::<u64>(), length in any::<u64>()) {
            let extents = [Extent { start, length }];
            let _ = (places(&extents, &[7]), canary_place(&extents));
        }
    }
}
