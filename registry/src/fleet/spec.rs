//! What a host's next spec is, and whether one is due.

use std::collections::BTreeSet;

use bulkhead_api::document::API_VERSION;
use bulkhead_api::id::{HostId, LeaseId};
use bulkhead_api::resource::ResourceClass;
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
    /// The lease whose tenant the machine comes back from, as it says.
    pub returning: Option<&'a LeaseId>,
    /// Classes of which a weaker erase is accepted.
    pub weaker_erase: &'a BTreeSet<ResourceClass>,
    /// End of its time.
    pub expiry: Timestamp,
}

/// What a host's spec is to say.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The leases on it.
    pub leases: &'a [WantedLease],
    /// The lease whose tenant the machine comes back from.
    pub returning: Option<&'a LeaseId>,
    /// Classes of which its site accepts a weaker erase.
    pub weaker_erase: &'a BTreeSet<ResourceClass>,
}

/// The spec to sign now; `None` while the last one says the same and is in the first half of its time.
#[must_use]
pub fn next(
    host: &HostId,
    last: Option<Last<'_>>,
    wanted: Wanted<'_>,
    now: Timestamp,
) -> Option<HostSpec> {
    let same = |last: Last<'_>| {
        last.leases == wanted.leases
            && last.returning == wanted.returning
            && last.weaker_erase == wanted.weaker_erase
    };
    let young = |last: Last<'_>| last.expiry.duration_since(now) > LIFE / 2;
    let current = last.is_some_and(|last| same(last) && young(last));
    (!current).then(|| HostSpec {
        api_version: API_VERSION.to_owned(),
        host: host.clone(),
        generation: last.map_or(0, |last| last.generation).saturating_add(1),
        not_before: now - BACKDATE,
        expiry: now + LIFE,
        leases: wanted.leases.to_vec(),
        weaker_erase: wanted.weaker_erase.clone(),
        returning: wanted.returning.cloned(),
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

    static NONE: BTreeSet<ResourceClass> = BTreeSet::new();

    fn wanted(leases: &[WantedLease]) -> Wanted<'_> {
        Wanted { leases, returning: None, weaker_erase: &NONE }
    }

    fn last(leases: &[WantedLease]) -> Last<'_> {
        Last { generation: 7, leases, returning: None, weaker_erase: &NONE, expiry: now() + LIFE }
    }

    fn after(
        before: Option<(&[WantedLease], SignedDuration)>,
        leases: &[WantedLease],
    ) -> Option<u64> {
        let before = before.map(|(leases, left)| Last { expiry: now() + left, ..last(leases) });
        let spec = next(&"a-000001".parse().unwrap(), before, wanted(leases), now());
        spec.map(|spec| spec.generation)
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
    fn who_the_machine_comes_back_from_is_part_of_what_a_spec_says() {
        let (host, id) = ("a-000001".parse().unwrap(), lease("a").id);
        let back = Wanted { returning: Some(&id), ..wanted(&[]) };
        let told = Last { returning: Some(&id), ..last(&[]) };
        let spec = next(&host, Some(last(&[])), back, now()).unwrap();
        assert_eq!((spec.generation, spec.returning.as_ref()), (8, Some(&id)));
        assert_eq!(next(&host, Some(told), back, now()), None);
        assert!(next(&host, Some(told), wanted(&[]), now()).unwrap().returning.is_none());
    }

    #[test]
    fn a_changed_policy_of_the_site_is_a_new_generation() {
        let host = "a-000001".parse().unwrap();
        let weaker = BTreeSet::from([ResourceClass::Volume]);
        let lax = Wanted { weaker_erase: &weaker, ..wanted(&[]) };
        let told = Last { weaker_erase: &weaker, ..last(&[]) };
        let spec = next(&host, Some(last(&[])), lax, now()).unwrap();
        assert_eq!((spec.generation, spec.weaker_erase), (8, weaker.clone()));
        assert_eq!(next(&host, Some(told), lax, now()), None);
        assert_eq!(next(&host, Some(told), wanted(&[]), now()).unwrap().weaker_erase, NONE.clone());
    }

    #[test]
    fn a_spec_is_signed_again_at_half_of_its_life() {
        assert_eq!(after(Some((&[], LIFE / 2 + SignedDuration::from_secs(1))), &[]), None);
        assert_eq!(after(Some((&[], LIFE / 2)), &[]), Some(8));
        assert_eq!(after(Some((&[], -LIFE)), &[]), Some(8));
    }
}
