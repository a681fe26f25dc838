//! `schemata` of a group of resctrl: what it may fill of each cache, and its share of memory bandwidth (Linux,
//! Documentation/filesystems/resctrl.rst). Pure.
//!
//! ```text
//!     L3:0=ffff0;1=fffff
//!     MB:0= 100;1=  50
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bulkhead_api::resource::CacheWays;

/// Lines of other resources are left out; they stay as they are when this is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Schemata {
    /// Ways of each last-level cache, as a mask.
    pub(super) ways: BTreeMap<u32, u64>,
    /// Memory bandwidth behind each, in percent.
    pub(super) bandwidth: BTreeMap<u32, u64>,
}

/// Why a group's text is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Odd {
    /// Not of the kernel's form.
    #[error("not schemata of a group")]
    Form,
    /// Mounted with `cdp`.
    #[error("code and data have ways of their own here: mount resctrl without cdp")]
    CodeAndData,
}

fn domains(text: &str, radix: u32) -> Option<BTreeMap<u32, u64>> {
    let domain = |part: &str| {
        let (cache, value) = part.split_once('=')?;
        Some((cache.trim().parse().ok()?, u64::from_str_radix(value.trim(), radix).ok()?))
    };
    text.split(';').map(domain).collect()
}

/// Reads the text of `schemata`.
pub(super) fn parse(text: &str) -> Result<Schemata, Odd> {
    let mut schemata = Schemata::default();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let (resource, rest) = line.split_once(':').ok_or(Odd::Form)?;
        match resource.trim() {
            "L3" => schemata.ways = domains(rest, 16).ok_or(Odd::Form)?,
            "MB" => schemata.bandwidth = domains(rest, 10).ok_or(Odd::Form)?,
            "L3CODE" | "L3DATA" => return Err(Odd::CodeAndData),
            _ => {}
        }
    }
    Ok(schemata)
}

impl Schemata {
    /// The text to write. Domains that are not in it stay as they are.
    pub(super) fn render(&self) -> String {
        let mut text = String::new();
        for (name, parts) in [
            ("L3", list(&self.ways, |mask| format!("{mask:x}"))),
            ("MB", list(&self.bandwidth, |percent| percent.to_string())),
        ] {
            if !parts.is_empty() {
                // Writing to a String does not fail.
                let _ = writeln!(text, "{name}:{parts}");
            }
        }
        text
    }

    /// What a lease with those ways is to have.
    pub(super) fn of(ways: &[CacheWays]) -> Self {
        let bandwidth =
            ways.iter().filter_map(|ways| Some((ways.cache, ways.bandwidth_percent?.into())));
        Self {
            ways: ways.iter().map(|ways| (ways.cache, ways.mask)).collect(),
            bandwidth: bandwidth.collect(),
        }
    }

    /// Whether all that is wanted is so here.
    pub(super) fn has(&self, wanted: &Self) -> bool {
        let all = |have: &BTreeMap<u32, u64>, want: &BTreeMap<u32, u64>| {
            want.iter().all(|(cache, value)| have.get(cache) == Some(value))
        };
        all(&self.ways, &wanted.ways) && all(&self.bandwidth, &wanted.bandwidth)
    }

    /// The default group's ways without those of a lease.
    pub(super) fn without(&self, ways: &[CacheWays]) -> Self {
        self.changed(ways, |mine, lease| mine & !lease)
    }

    /// The default group's ways with those of a lease back.
    pub(super) fn with(&self, ways: &[CacheWays]) -> Self {
        self.changed(ways, |mine, lease| mine | lease)
    }

    fn changed(&self, ways: &[CacheWays], change: fn(u64, u64) -> u64) -> Self {
        let mut masks = self.ways.clone();
        for lease in ways {
            if let Some(mask) = masks.get_mut(&lease.cache) {
                *mask = change(*mask, lease.mask);
            }
        }
        Self { ways: masks, bandwidth: BTreeMap::new() }
    }
}

fn list(values: &BTreeMap<u32, u64>, render: impl Fn(&u64) -> String) -> String {
    let parts = values.iter().map(|(cache, value)| format!("{cache}={}", render(value)));
    parts.collect::<Vec<_>>().join(";")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ways(cache: u32, mask: u64, bandwidth_percent: Option<u8>) -> CacheWays {
        CacheWays { cache, mask, bandwidth_percent }
    }

    #[test]
    fn the_kernels_text_is_read_with_its_blanks() {
        let read = parse("    L2:0=ff\n    L3:0=ffff0;1=fffff\n    MB:0= 100;1=  50\n").unwrap();
        assert_eq!(read.ways, BTreeMap::from([(0, 0xffff0), (1, 0xfffff)]));
        assert_eq!(read.bandwidth, BTreeMap::from([(0, 100), (1, 50)]));
        assert_eq!(parse("L3CODE:0=f\nL3DATA:0=f\n"), Err(Odd::CodeAndData));
        for bad in ["L3", "L3:", "L3:0", "L3:0=g", "L3:x=f", "MB:0=fx", "L3:0=1ffffffffffffffff"] {
            assert_eq!(parse(bad), Err(Odd::Form), "{bad}");
        }
    }

    #[test]
    fn ways_go_from_the_default_group_to_a_lease_and_back() {
        let all = parse("L3:0=fff;1=fff\nMB:0=100;1=100\n").unwrap();
        let lease = [ways(1, 0xc00, Some(40))];
        let rest = all.without(&lease);
        assert_eq!(rest.render(), "L3:0=fff;1=3ff\n");
        assert_eq!(rest.without(&lease), rest, "done again, it changes nothing");
        assert_eq!(rest.with(&lease).ways, all.ways);
        let wanted = Schemata::of(&lease);
        assert_eq!(wanted.render(), "L3:1=c00\nMB:1=40\n");
        assert!(parse("L3:0=fff;1=c00\nMB:0=100;1=40\n").unwrap().has(&wanted));
        assert!(!all.has(&wanted));
        assert!(!parse("L3:0=fff\n").unwrap().has(&wanted));
    }

    proptest! {
        #[test]
        fn what_is_rendered_reads_back(
            ways in prop::collection::btree_map(any::<u32>(), any::<u64>(), 1..6),
            bandwidth in prop::collection::btree_map(any::<u32>(), any::<u64>(), 0..6),
        ) {
            let schemata = Schemata { ways, bandwidth };
            prop_assert_eq!(parse(&schemata.render()), Ok(schemata));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "(L3|MB)?:?[0-9a-f=;: \n]{0,40}[\\s\\S]{0,20}") {
            let _ = parse(&text);
        }
    }
}
