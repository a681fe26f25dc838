//! Tables of the device mapper as facts: pure.
//!
//! | target | parameters (kernel `Documentation/admin-guide/device-mapper/`) |
//! |---|---|
//! | `crypt` | cipher, key, offset of the vector, device, first sector, … |
//! | `linear` | device, first sector |
//! | `verity` | version, device, … |
//!
//! Of any other target it is not known what it lies on.

use std::collections::BTreeSet;

use bulkhead_api::isolation::{DeviceKind, Stretch};
use ring::digest::{SHA256, digest};

use crate::storage::dm::wire::Target;

/// In which tables and sysfs count.
pub const SECTOR: u64 = 512;

/// A mapping as the device mapper tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// Its name.
    pub name: String,
    /// Its number.
    pub number: (u32, u32),
    /// Its live table.
    pub targets: Vec<Target>,
}

/// What it is. `called` gives the kernel's name of a block device by its number.
#[must_use]
pub fn kind(
    mapping: &Mapping,
    read_only: bool,
    called: &dyn Fn((u32, u32)) -> Option<String>,
) -> DeviceKind {
    let Mapping { name, targets, .. } = mapping;
    let verified = !targets.is_empty() && targets.iter().all(|target| target.kind == "verity");
    if verified && read_only {
        return DeviceKind::Image;
    }
    let under: Option<Vec<Stretch>> =
        targets.iter().map(|target| stretch(target, called)).collect();
    let keys: BTreeSet<String> = targets.iter().filter_map(key).collect();
    let key = keys.into_iter().reduce(|all, key| format!("{all},{key}"));
    DeviceKind::Mapping { name: name.clone(), key, under: under.unwrap_or_default() }
}

fn stretch(target: &Target, called: &dyn Fn((u32, u32)) -> Option<String>) -> Option<Stretch> {
    let mut words = target.parameters.split(' ');
    let device = match target.kind.as_str() {
        "crypt" => words.nth(3)?,
        "linear" => words.next()?,
        _ => return None,
    };
    let (major, minor) = device.split_once(':')?;
    let device = called((major.parse().ok()?, minor.parse().ok()?))?;
    let start = words.next()?.parse::<u64>().ok()?.checked_mul(SECTOR)?;
    Some(Stretch { device, start, length: target.length.checked_mul(SECTOR)? })
}

/// What says which key it is: its description in the kernel's keyring, or a digest where the table holds the key.
fn key(target: &Target) -> Option<String> {
    let key = target.parameters.split(' ').nth(1).filter(|_| target.kind == "crypt")?;
    match key.strip_prefix(':') {
        // SIZE:TYPE:DESCRIPTION
        Some(kept) => kept.split_once(':').map(|(_, described)| described.to_owned()),
        None if key == "-" => None,
        None => {
            let digest = digest(&SHA256, key.as_bytes());
            let first = digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}"));
            Some(format!("sha256:{}", first.collect::<String>()))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn target(kind: &str, parameters: &str) -> Target {
        let (kind, parameters) = (kind.to_owned(), parameters.to_owned());
        Target { start: 0, length: 8192, kind, parameters }
    }

    fn kind_of(targets: &[Target], read_only: bool) -> DeviceKind {
        let targets = targets.to_vec();
        let mapping = Mapping { name: "m".to_owned(), number: (253, 1), targets };
        kind(&mapping, read_only, &|(major, minor)| Some(format!("b{major}.{minor}")))
    }

    #[test]
    fn a_volume_names_its_key_and_what_it_lies_on() {
        let crypt = "aes-xts-plain64 :64:logon:bulkhead:a.b.c 0 254:2 16384 1 sector_size:4096";
        let stretch =
            Stretch { device: "b254.2".to_owned(), start: 16384 * 512, length: 8192 * 512 };
        let expected = DeviceKind::Mapping {
            name: "m".to_owned(),
            key: Some("logon:bulkhead:a.b.c".to_owned()),
            under: vec![stretch],
        };
        assert_eq!(kind_of(&[target("crypt", crypt)], false), expected);
    }

    #[test]
    fn a_key_in_the_table_is_told_by_its_digest_alone() {
        let crypt = target("crypt", "aes-xts-plain64 00112233 0 254:2 0");
        let DeviceKind::Mapping { key, .. } = kind_of(&[crypt], false) else { panic!() };
        let key = key.unwrap();
        assert!(key.starts_with("sha256:") && !key.contains("00112233"), "{key}");
    }

    #[test]
    fn an_image_is_verified_and_read_only() {
        let verity = target("verity", "1 7:0 7:0 4096 4096 10 10 sha256 ab cd");
        assert_eq!(kind_of(std::slice::from_ref(&verity), true), DeviceKind::Image);
        assert_ne!(kind_of(std::slice::from_ref(&verity), false), DeviceKind::Image);
        assert_ne!(kind_of(&[verity, target("linear", "7:0 0")], true), DeviceKind::Image);
        assert_ne!(kind_of(&[], true), DeviceKind::Image);
    }

    #[test]
    fn of_a_table_with_another_target_nothing_is_known() {
        let known = target("linear", "8:1 2048");
        let DeviceKind::Mapping { under, .. } = kind_of(&[known, target("error", "")], false)
        else {
            panic!()
        };
        assert_eq!(under, []);
    }

    proptest! {
        #[test]
        fn any_table_is_read(kind in "crypt|linear|verity|.{0,4}", parameters in ".{0,80}", length in any::<u64>()) {
            let target = Target { start: 0, length, kind, parameters };
            let _ = kind_of(&[target], true);
        }
    }
}
