//! What a host's next spec is, and whether one is due.

use bulkhead_api::document::API_VERSION;
use bulkhead_api::id::HostId;
use bulkhead_api::spec::{HostSpec, WantedLease};
use bulkhead_api::time::Timestamp;
use jiff::SignedDuration;

/// How long a spec is accepted.
pub const LIFE: SignedDuration = SignedDuration::from_hours(24 * 7);
/// Allowance for hosts whose clocks are behind.
const BACKDATE: SignedDuration = SignedDuration::from_mins(10);

/// The spec that was signed last.
#[derive(Debug, Clone, Copy)]
pub struct Last<'a> {
    /// Its generation.
    pub generation: u64,
    /// The leases in it.
    pub leases: &'a [WantedLease],
    /// End of its time.
    pub expiry: Timestamp,
}

/// The spec to sign now; `None` while the last one says the same and is in the first half of its time.
#[must_use]
pub fn next(
    host: &HostId,
    last: Option<Last<'_>>,
    wanted: &[WantedLease],
    now: Timestamp,
) -> Option<HostSpec> {
    let current = last
        .is_some_and(|last| last.leases == wanted && last.expiry.duration_since(now) > LIFE / 2);
    (!current).then(|| HostSpec {
        api_version: API_VERSION.to_owned(),
        host: host.clone(),
        generation: last.map_or(0, |last| last.generation).saturating_add(1),
        not_before: now - BACKDATE,
        expiry: now + LIFE,
        leases: wanted.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }

    fn lease(name: &str) -> WantedLease {
        serde_json::from_value(serde_json::json!({
            "id": { "tenant": "acme", "name": name },
            "spec": {
                "instance": "container", "cpus": 1, "memory": "64Mi",
                "workload": { "image": "oci://bulkhead.site/demo:1" },
            },
        }))
        .unwrap()
    }

    fn after(
        last: Option<(&[WantedLease], SignedDuration)>,
        wanted: &[WantedLease],
    ) -> Option<u64> {
        let last = last.map(|(leases, left)| Last { generation: 7, leases, expiry: now() + left });
        next(&"a-000001".parse().unwrap(), last, wanted, now()).map(|spec| spec.generation)
    }

    #[test]
    fn a_new_host_gets_generation_1_even_without_leases() {
        assert_eq!(after(None, &[]), Some(1));
    }

    #[test]
    fn nothing_is_signed_while_the_last_spec_says_the_same() {
        assert_eq!(after(Some((&[lease("a")], LIFE)), &[lease("a")]), None);
    }

    #[test]
    fn a_lease_more_or_less_is_a_new_generation() {
        assert_eq!(after(Some((&[lease("a")], LIFE)), &[]), Some(8));
        assert_eq!(after(Some((&[], LIFE)), &[lease("a")]), Some(8));
    }

    #[test]
    fn a_spec_is_signed_again_at_half_of_its_life() {
        assert_eq!(after(Some((&[], LIFE / 2 + SignedDuration::from_secs(1))), &[]), None);
        assert_eq!(after(Some((&[], LIFE / 2)), &[]), Some(8));
        assert_eq!(after(Some((&[], -LIFE)), &[]), Some(8));
    }
}
