use bulkhead_api::spec::WantedLease;
use proptest::prelude::*;

use super::*;
use crate::samples::{at, key, mac};

fn host() -> HostId {
    "lab-000001".parse().unwrap()
}

fn lease(name: &str) -> LeaseId {
    LeaseId { tenant: "acme".parse().unwrap(), name: name.parse().unwrap() }
}

fn metal(name: &str, args: &[&str]) -> WantedLease {
    let spec = serde_json::json!({
        "instance": "bareMetal", "cpus": 1, "memory": "1Gi",
        "workload": { "image": "oci://bulkhead.site/os:1", "args": args },
    });
    WantedLease { id: lease(name), spec: serde_json::from_value(spec).unwrap() }
}

fn spec(generation: u64, leases: &[WantedLease], returning: Option<&str>) -> HostSpec {
    HostSpec {
        api_version: "bulkhead.io/v1".to_owned(),
        host: host(),
        generation,
        not_before: Timestamp::UNIX_EPOCH,
        expiry: Timestamp::MAX,
        leases: leases.to_vec(),
        weaker_erase: std::collections::BTreeSet::new(),
        returning: returning.map(lease),
    }
}

fn tenancy(stage: TenancyStage) -> Tenancy {
    Tenancy {
        host: host(),
        lease: lease("metal"),
        boot: MetalBoot::Always,
        uki_sha256: "ab".repeat(32),
        generation: 5,
        key: HostKey { key: key(1), until: at(1000) },
        stage,
        since: at(0),
        fetched: 0,
        back: false,
    }
}

#[test]
fn only_a_newer_spec_of_the_host_without_the_lease_ends_the_tenants_time() {
    use TenancyStage::{Given, Leaving, Returning};
    let with = [metal("metal", &[])];
    let foreign = HostSpec { host: "lab-000002".parse().unwrap(), ..spec(6, &[], Some("metal")) };
    let back = |stage| Tenancy { back: true, ..tenancy(stage) };
    for (case, tenancy, spec, verdict) in [
        ("still wanted", tenancy(Given), spec(6, &with, None), Verdict::Stays),
        ("old", tenancy(Given), spec(5, &[], Some("metal")), Verdict::Stays),
        ("of another host", tenancy(Given), foreign, Verdict::Stays),
        ("taken back", tenancy(Given), spec(6, &[], Some("metal")), Verdict::Returns),
        ("taken back early", tenancy(Leaving), spec(6, &[], Some("metal")), Verdict::Returns),
        ("a registry that forgot it", tenancy(Given), spec(6, &[], None), Verdict::Returns),
        ("not clean", back(Returning), spec(7, &[], Some("metal")), Verdict::Stays),
        ("not back", tenancy(Returning), spec(7, &[], None), Verdict::Stays),
        ("clean", back(Returning), spec(7, &[], None), Verdict::Ends),
        ("clean, for the next", back(Returning), spec(7, &[metal("b", &[])], None), Verdict::Ends),
    ] {
        assert_eq!(tenancy.judge(&spec), verdict, "{case}");
    }
}

#[test]
fn a_hand_over_is_what_the_verified_spec_says_and_for_one_lease_alone() {
    let id = lease("metal");
    let (one, other) = (metal("metal", &["once"]), metal("other", &[]));
    let spec_of = |leases: &[WantedLease], returning| spec(5, leases, returning);
    let good = spec_of(std::slice::from_ref(&one), None);
    assert_eq!(wanted(&good, &id).unwrap(), ("oci://bulkhead.site/os:1", MetalBoot::Once));
    let mut container = one.clone();
    container.spec.instance = InstanceKind::Container;
    let mut elsewhere = one.clone();
    elsewhere.spec.workload.image = "oci://example.org/os:1".to_owned();
    let words = metal("metal", &["disk"]);
    for (spec, reason) in [
        (spec_of(&[], None), "NotWanted"),
        (spec_of(&[container], None), "NotBareMetal"),
        (spec_of(&[one.clone(), other], None), "NotAlone"),
        (spec_of(&[one], Some("before")), "Returning"),
        (spec_of(&[elsewhere], None), "BadWorkload"),
        (spec_of(&[words], None), "BadWorkload"),
    ] {
        assert_eq!(wanted(&spec, &id).unwrap_err().reason, reason);
    }
}

#[test]
fn an_installer_is_offered_until_it_went_out_whole_and_the_key_is_void_once_the_host_left() {
    let mut tenancies = Tenancies::default();
    tenancies.begin(mac(1), Tenancy { boot: MetalBoot::Once, ..tenancy(TenancyStage::Leaving) });
    assert!(!tenancies.is_void(key(1)), "the host may still ask for its answer");
    assert!(tenancies.left(mac(1), at(1)) && !tenancies.left(mac(1), at(2)));
    assert!(tenancies.is_void(key(1)) && !tenancies.is_void(key(2)));
    assert!(tenancies.get(mac(1)).unwrap().offers_uki());
    assert!(tenancies.fetched(mac(1)));
    assert!(!tenancies.get(mac(1)).unwrap().offers_uki());
    assert!(tenancies.judge(&spec(6, &[], Some("metal")), at(3)));
    assert!(!tenancies.left(mac(1), at(4)), "it is ours again");
    assert!(tenancies.back(mac(1)) && tenancies.judge(&spec(7, &[], None), at(5)));
    assert!(tenancies.get(mac(1)).is_none() && tenancies.is_void(key(1)));
}

proptest! {
    /// Whatever happens in whatever order: the tenant's time begins by a hand-over and ends by a newer spec that is
    /// without the lease, and by nothing else.
    #[test]
    fn the_tenants_time_ends_by_a_spec_alone(events in proptest::collection::vec((0..5_u8, 4..9_u64, any::<bool>()), 0..40)) {
        let mut tenancies = Tenancies::default();
        tenancies.begin(mac(1), tenancy(TenancyStage::Leaving));
        let mut taken_back = false;
        for (at_second, (event, generation, with)) in (0..).zip(events) {
            let now = at(at_second);
            match event {
                0 => drop(tenancies.left(mac(1), now)),
                1 => drop(tenancies.fetched(mac(1))),
                2 => drop(tenancies.back(mac(1))),
                _ => {
                    let leases = if with { vec![metal("metal", &[])] } else { Vec::new() };
                    let returning = (event == 3 && !with).then_some("metal");
                    tenancies.judge(&spec(generation, &leases, returning), now);
                    taken_back |= generation > 5 && !with;
                }
            }
            let held = tenancies.get(mac(1)).is_some_and(Tenancy::is_held);
            prop_assert_eq!(held, !taken_back);
        }
    }
}
