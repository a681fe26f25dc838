//! The kernel's list format for CPUs and memory nodes, `0-3,8` (`Documentation/admin-guide/kernel-parameters.rst`,
//! "cpu lists"), and systemd's form of the same set: a little-endian bit mask in bytes.

use std::collections::BTreeSet;

/// Above any number that Linux can be built for (`CONFIG_NR_CPUS` <= 8192).
const MOST: u32 = 65_536;

/// Reads a list; `None` where the text is not one. Empty text is the empty set.
#[must_use]
pub fn parse(text: &str) -> Option<BTreeSet<u32>> {
    let mut set = BTreeSet::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= MOST {
            return None;
        }
        set.extend(first..=last);
    }
    Some(set)
}

/// Writes a list with ranges.
#[must_use]
pub fn render(set: &BTreeSet<u32>) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &number in set {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(number) => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let parts: Vec<String> = ranges
        .iter()
        .map(
            |(first, last)| {
                if first == last { first.to_string() } else { format!("{first}-{last}") }
            },
        )
        .collect();
    parts.join(",")
}

/// The set as systemd takes `AllowedCPUs` over D-Bus: bit n of byte n / 8 (systemd `src/shared/cpu-set-util.c`,
/// `cpu_set_to_dbus`).
#[must_use]
pub fn mask(set: &BTreeSet<u32>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for &number in set {
        let at = usize::try_from(number / 8).unwrap_or(0);
        if bytes.len() <= at {
            bytes.resize(at + 1, 0_u8);
        }
        if let Some(byte) = bytes.get_mut(at) {
            *byte |= 1 << (number % 8);
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lists_of_the_kernel_are_read() {
        assert_eq!(parse("0-3,8\n"), Some(BTreeSet::from([0, 1, 2, 3, 8])));
        assert_eq!(parse(""), Some(BTreeSet::new()));
        for bad in ["3-1", "a", "1-", "0-4294967295", "-"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_mask_has_a_bit_for_every_number() {
        assert_eq!(mask(&BTreeSet::from([0, 3, 9])), [0b1001, 0b10]);
        assert_eq!(mask(&BTreeSet::new()), Vec::<u8>::new());
    }

    proptest! {
        #[test]
        fn a_rendered_list_reads_back(set in prop::collection::btree_set(0_u32..200, 0..40)) {
            prop_assert_eq!(parse(&render(&set)), Some(set));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9,-]{0,12}") {
            let _ = parse(&text);
        }
    }
}
