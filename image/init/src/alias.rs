//! Matching of device names against driver aliases, as `modprobe` does it (`fnmatch` without flags).

/// Whether `text` matches `pattern`: `*` any characters, `?` one, `[a-f0]` one of a set, all else itself.
///
/// A set that is not closed matches itself literally.
#[must_use]
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // where to go on after a mismatch: behind the last `*`, one character further
    let mut retry: Option<(usize, usize)> = None;
    loop {
        match (pattern.get(p), text.get(t)) {
            (Some(b'*'), _) => {
                retry = Some((p + 1, t));
                p += 1;
            }
            (None, None) => return true,
            (Some(_), Some(&character))
                if let Some(length) = one(pattern.get(p..).unwrap_or_default(), character) =>
            {
                p += length;
                t += 1;
            }
            _ => match retry {
                Some((after, from)) if from < text.len() => {
                    retry = Some((after, from + 1));
                    (p, t) = (after, from + 1);
                }
                _ => return false,
            },
        }
    }
}

/// Length of the pattern element that matches `character`, if the first one does.
fn one(pattern: &[u8], character: u8) -> Option<usize> {
    match pattern {
        [b'?', ..] => Some(1),
        [b'[', rest @ ..] => match rest.iter().position(|&c| c == b']') {
            Some(end) => set_has(rest.get(..end)?, character).then_some(end + 2),
            None => (character == b'[').then_some(1),
        },
        [first, ..] => (*first == character).then_some(1),
        [] => None,
    }
}

fn set_has(set: &[u8], character: u8) -> bool {
    let mut rest = set;
    loop {
        rest = match rest {
            [low, b'-', high, more @ ..] => {
                if (*low..=*high).contains(&character) {
                    return true;
                }
                more
            }
            [single, more @ ..] => {
                if *single == character {
                    return true;
                }
                more
            }
            [] => return false,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn aliases_of_real_drivers_match_their_devices_and_no_others() {
        let virtio = "virtio:d00000001v*";
        assert!(matches(virtio, "virtio:d00000001v00001AF4"));
        assert!(!matches(virtio, "virtio:d00000002v00001AF4"));
        let igb = "pci:v00008086d000010C9sv*sd*bc*sc*i*";
        assert!(matches(igb, "pci:v00008086d000010C9sv00001AF4sd00001100bc02sc00i00"));
        assert!(!matches(igb, "pci:v00008086d000010CAsv00001AF4sd00001100bc02sc00i00"));
    }

    #[test]
    fn sets_and_single_characters() {
        assert!(matches("a[0-3f]?", "a2x") && matches("a[0-3f]?", "afx"));
        assert!(!matches("a[0-3f]?", "a4x") && !matches("a?", "a"));
        assert!(matches("[x", "[x"));
        assert!(matches("*", "") && matches("a*b*c", "a1b2b3c") && !matches("a*b", "a1b2"));
    }

    proptest! {
        #[test]
        fn a_text_matches_itself_and_a_star(text in "[a-z0-9:]{0,20}", cut in 0usize..20) {
            prop_assert!(matches(&text, &text));
            let cut = cut.min(text.len());
            let starred = format!("{}*", &text[..cut]);
            prop_assert!(matches(&starred, &text));
        }

        #[test]
        fn any_pattern_and_text_are_decided(pattern in "[*?\\[\\]a-c-]{0,12}", text in "[a-c]{0,12}") {
            let _ = matches(&pattern, &text);
        }
    }
}
