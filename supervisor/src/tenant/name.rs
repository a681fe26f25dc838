//! Unit names of leases, to and fro.
//!
//! ```text
//!  acme/llm-a ◄──► tenant-acme.llm_a.slice      below tenant.slice: the limits
//!             ◄──► tenant-acme.llm_a.service    in that slice: crun in the foreground
//! ```
//!
//! systemd nests slices at each `-` of their names (systemd.slice(5)), so the `-` of a tenant's or lease's
//! name is written `_`, which no name holds ([`TenantName`], [`LeaseName`] are a-z, 0-9 and `-`); `.`, which
//! none holds either, stands between the two. Nothing gets longer, and different leases have different units.

use bulkhead_api::id::{LeaseId, LeaseName, TenantName};

/// The slice above all leases; `tenant-*` is below it by its name.
pub const ROOT_SLICE: &str = "tenant.slice";

const PREFIX: &str = "tenant-";

/// Patterns that match every unit of a lease.
pub const PATTERNS: [&str; 2] = ["tenant-*.slice", "tenant-*.service"];

/// Which of a lease's units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Holds the limits.
    Slice,
    /// Runs the program.
    Service,
}

impl Kind {
    fn suffix(self) -> &'static str {
        match self {
            Self::Slice => ".slice",
            Self::Service => ".service",
        }
    }
}

/// Also the container's name for crun.
#[must_use]
pub fn stem(id: &LeaseId) -> String {
    format!("{}.{}", id.tenant, id.name).replace('-', "_")
}

/// The name of a lease's unit.
#[must_use]
pub fn unit(id: &LeaseId, kind: Kind) -> String {
    format!("{PREFIX}{}{}", stem(id), kind.suffix())
}

/// The lease a unit belongs to; `None` for a unit that is no lease's.
#[must_use]
pub fn lease(unit: &str) -> Option<(LeaseId, Kind)> {
    let rest = unit.strip_prefix(PREFIX)?;
    let (stem, kind) = [Kind::Slice, Kind::Service]
        .into_iter()
        .find_map(|kind| Some((rest.strip_suffix(kind.suffix())?, kind)))?;
    // A `-` here would be a slice nested below another one.
    if stem.contains('-') {
        return None;
    }
    let (tenant, name) = stem.split_once('.')?;
    let tenant: TenantName = tenant.replace('_', "-").parse().ok()?;
    let name: LeaseName = name.replace('_', "-").parse().ok()?;
    Some((LeaseId { tenant, name }, kind))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LABEL: &str = "[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?";

    #[test]
    fn a_dash_in_a_name_does_not_nest_slices() {
        let id = LeaseId { tenant: "acme".parse().unwrap(), name: "llm-a".parse().unwrap() };
        assert_eq!(unit(&id, Kind::Slice), "tenant-acme.llm_a.slice");
        assert_eq!(unit(&id, Kind::Service), "tenant-acme.llm_a.service");
    }

    #[test]
    fn units_of_nobody_are_nobodys() {
        for unit in [
            "tenant.slice",
            "tenant-acme.slice",
            "tenant-acme.a-b.slice",
            "tenant-acme.a.b.slice",
            "tenant-acme.a.scope",
            "tenant-_a.b.slice",
            "user-0.slice",
            "",
        ] {
            assert_eq!(lease(unit), None, "{unit}");
        }
    }

    proptest! {
        #[test]
        fn a_unit_name_leads_back_to_its_lease_and_fits(tenant in LABEL, name in LABEL) {
            let id = LeaseId { tenant: tenant.parse().unwrap(), name: name.parse().unwrap() };
            for kind in [Kind::Slice, Kind::Service] {
                let unit = unit(&id, kind);
                // UNIT_NAME_MAX of systemd is 256 with the final zero.
                prop_assert!(unit.len() < 256);
                prop_assert_eq!(unit.matches('-').count(), 1);
                prop_assert_eq!(lease(&unit), Some((id.clone(), kind)));
            }
        }

        #[test]
        fn any_text_is_read_or_refused_and_what_is_read_writes_back(text in ".{0,80}") {
            for text in [text.clone(), format!("tenant-{text}.slice")] {
                if let Some((id, kind)) = lease(&text) {
                    prop_assert_eq!(unit(&id, kind), text);
                }
            }
        }
    }
}
