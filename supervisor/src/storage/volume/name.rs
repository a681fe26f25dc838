//! Names of a volume's mapping and key, to and fro: pure.
//!
//! ```text
//!  acme/llm-a, scratch ─► mapping bh-acme.llm-a.scratch   /dev/mapper/bh-acme.llm-a.scratch
//!                      ─► key     bulkhead:acme.llm-a.scratch
//! ```
//!
//! Names of tenants, leases and volumes have no dot, so that different volumes have different mappings; with 40
//! characters each the whole has at most 125, and the device mapper takes 127.

use bulkhead_api::id::{LeaseId, VolumeName};

const PREFIX: &str = "bh-";

/// Every mapping of a volume has a UUID that begins so; what follows is random, so that a mapping made anew is
/// another one.
pub const UUID_PREFIX: &str = "BULKHEAD-VOLUME-";

/// Name of the mapping.
#[must_use]
pub fn mapping(lease: &LeaseId, volume: &VolumeName) -> String {
    format!("{PREFIX}{}.{}.{volume}", lease.tenant, lease.name)
}

/// Description of the key: keys of type `logon` have a word and a colon in front.
#[must_use]
pub fn key(lease: &LeaseId, volume: &VolumeName) -> String {
    format!("bulkhead:{}.{}.{volume}", lease.tenant, lease.name)
}

/// Whose mapping it is; `None` for one that is no volume's.
#[must_use]
pub fn parse(mapping: &str) -> Option<(LeaseId, VolumeName)> {
    let mut parts = mapping.strip_prefix(PREFIX)?.split('.');
    let (tenant, name) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let volume = parts.next()?.parse().ok()?;
    parts.next().is_none().then_some((LeaseId { tenant, name }, volume))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LABEL: &str = "[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?";

    #[test]
    fn mappings_of_others_are_no_volumes() {
        for name in ["bulkhead-root", "bh-", "bh-a.b", "bh-a.b.c.d", "bh-A.b.c", "bh--a.b.c", ""] {
            assert_eq!(parse(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_mapping_leads_back_and_fits(tenant in LABEL, name in LABEL, volume in LABEL) {
            let lease = LeaseId { tenant: tenant.parse().unwrap(), name: name.parse().unwrap() };
            let volume: VolumeName = volume.parse().unwrap();
            let mapping = mapping(&lease, &volume);
            prop_assert!(mapping.len() <= 127);
            prop_assert!(key(&lease, &volume).bytes().all(|byte| byte.is_ascii_graphic()));
            prop_assert_eq!(parse(&mapping), Some((lease, volume)));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "(bh-)?.{0,60}") {
            if let Some((lease, volume)) = parse(&text) {
                prop_assert_eq!(mapping(&lease, &volume), text);
            }
        }
    }
}
