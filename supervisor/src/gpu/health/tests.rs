//! The table, the companions, what tenants can cause, the way back.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::cycle::{Act, Cycle, Input, MEMORY, MOST_RESETS, Reason, Stage};
use super::line::{Logged, Slot, parse};
use super::once::{APART, Once, Said, Source};
use super::policy::{BY_TENANTS, Decision, Finding, Incident, Recovery, incidents, judge, weigh};

fn judged(xids: &[u32], recovery: Option<u64>) -> Vec<Decision> {
    let recovery = recovery.map(Recovery::from);
    judge(&Incident { xids: xids.to_vec(), recovery, earlier_109: 0 }).into_iter().collect()
}

#[test]
fn each_xid_has_the_decision_of_the_table() {
    use Decision::{
        AskHuman, CordonFabric, DrainAndReset, DrainAtIdle, NodeLost, Record, RestartTenant,
    };
    for (xids, decisions) in [
        (&[13, 31, 68, 69, 109][..], &[RestartTenant][..]),
        (&[43, 45, 92], &[Record]),
        (&[63], &[Record, DrainAtIdle]),
        (&[94], &[RestartTenant, DrainAtIdle]),
        (&[46, 48, 62, 64, 95, 119, 120, 140], &[DrainAndReset]),
        (&[74, 144, 147, 150], &[CordonFabric]),
        (&[79], &[NodeLost]),
        (&[1, 151, u32::MAX], &[AskHuman]),
    ] {
        for &xid in xids {
            assert_eq!(judged(&[xid], None), decisions, "XID {xid}");
        }
    }
}

#[test]
fn companions_are_one_incident() {
    assert_eq!(judged(&[48, 63], None), [Decision::DrainAndReset]);
    assert_eq!(judged(&[45, 94], None), judged_with_record(&[94]));
    let found = incidents(&[(100, 48), (129, 63), (131, 45), (170, 13)]);
    assert_eq!(found, [vec![48, 63], vec![45], vec![13]]);
}

fn judged_with_record(xids: &[u32]) -> Vec<Decision> {
    let mut all: BTreeSet<Decision> = judged(xids, None).into_iter().collect();
    all.insert(Decision::Record);
    all.into_iter().collect()
}

#[test]
fn a_second_109_has_the_gpu_reset_when_nobody_is_on_it() {
    let again = Incident { xids: vec![109], recovery: None, earlier_109: 1 };
    let decisions: Vec<Decision> = judge(&again).into_iter().collect();
    assert_eq!(decisions, [Decision::RestartTenant, Decision::DrainAtIdle]);
}

#[test]
fn the_recovery_action_overrides_the_table() {
    assert_eq!(judged(&[95, 154], Some(0)), [Decision::Record]);
    assert_eq!(judged(&[154], Some(1)), [Decision::DrainAndReset]);
    assert_eq!(judged(&[92], Some(2)), [Decision::Record, Decision::NodeLost]);
    assert_eq!(judged(&[154], Some(5)), [Decision::CordonFabric]);
    assert_eq!(judged(&[154], Some(9)), [Decision::AskHuman]);
    assert_eq!(judged(&[109, 154], Some(4)), [Decision::RestartTenant, Decision::DrainAtIdle]);
}

#[test]
fn findings_have_decisions_too() {
    assert_eq!(weigh(Finding::RemapPending), Decision::DrainAtIdle);
    assert_eq!(weigh(Finding::EccUncorrected), Decision::DrainAtIdle);
    assert_eq!(weigh(Finding::RemapFailed), Decision::AskHuman);
    assert_eq!(weigh(Finding::Lost), Decision::NodeLost);
    assert_eq!(weigh(Finding::Slowdown), Decision::Record);
}

#[test]
fn a_line_of_the_kernel_log_is_read_or_left() {
    let slot = Slot { domain: 0, bus: 0xc1, device: 0 };
    let line =
        b"[ 12.3] NVRM: Xid (PCI:0000:c1:00): 79, pid='<unknown>', GPU has fallen off the bus.";
    assert_eq!(parse(line), Some(Logged { slot, xid: 79 }));
    assert_eq!(slot.to_string(), "0000:c1:00");
    for bad in [
        &b"NVRM: Xid (PCI:0000:c1:00): 7"[..],
        b"NVRM: Xid (PCI:0000:c1:00) 79, ",
        b"NVRM: Xid (PCI:0000:c1): 79, ",
        b"NVRM: Xid (PCI:0000:c1:20): 79, ",
        b"NVRM: Xid (PCI:0000:c1:00:00): 79, ",
        b"NVRM: Xid (PCI:0000:+1:00): 79, ",
        b"NVRM: Xid (PCI:0000:c1:00): 99999999999, ",
        b"NVRM: Xid (PCI:0000:c1:00): , ",
        b"NVRM: GPU at PCI:0000:c1:00: GPU-1234",
    ] {
        assert_eq!(parse(bad), None, "{}", String::from_utf8_lossy(bad));
    }
}

#[test]
fn an_xid_that_both_sources_say_counts_once() {
    let slot = Slot { domain: 0, bus: 1, device: 0 };
    let said = |source, xid, at| Said { source, slot, xid, at };
    let mut once = Once::default();
    assert!(once.is_news(said(Source::Event, 31, 100)));
    assert!(!once.is_news(said(Source::Log, 31, 103)));
    assert!(once.is_news(said(Source::Log, 31, 104)), "NVML kept one of two");
    assert!(once.is_news(said(Source::Log, 13, 104)));
    assert!(!once.is_news(said(Source::Event, 13, 104)));
    assert!(once.is_news(said(Source::Event, 31, 104 + APART + 1)), "much later is another");
}

fn walk(cycle: &Cycle, inputs: &[Input], now: u64) -> (Cycle, Vec<Act>) {
    let mut cycle = cycle.clone();
    let mut acts = Vec::new();
    for &input in inputs {
        let (next, act) = cycle.next(input, now);
        // What is kept is all that a restart needs.
        let text = serde_json::to_string(&next).unwrap();
        cycle = serde_json::from_str(&text).unwrap();
        assert_eq!(cycle, next);
        acts.push(act);
    }
    (cycle, acts)
}

const ROUND: [Input; 4] = [
    Input::Decided(Decision::DrainAtIdle),
    Input::Idle,
    Input::WasReset(true),
    Input::Verified(true),
];

#[test]
fn a_gpu_returns_after_drain_reset_and_verification() {
    let (cycle, acts) = walk(&Cycle::default(), &ROUND, 100);
    assert_eq!(acts, [Act::Wait, Act::Reset, Act::Verify, Act::Return]);
    assert!(cycle.is_offered());
    assert_eq!(cycle.resets, [100], "it is remembered");
}

#[test]
fn a_repeat_offender_is_held_until_a_person_releases_it() {
    let mut cycle = Cycle::default();
    for _ in 0..MOST_RESETS {
        cycle = walk(&cycle, &ROUND, 100).0;
        assert!(cycle.is_offered());
    }
    let (held, _) = walk(&cycle, &ROUND, 200);
    assert_eq!(held.stage, Stage::Held { why: Reason::TooOften });
    let (back, acts) = walk(&held, &[Input::Released, Input::Verified(true)], 300);
    assert_eq!((back.is_offered(), acts), (true, vec![Act::Verify, Act::Return]));
    let (again, _) = walk(&back, &ROUND, 400);
    assert_eq!(again.stage, Stage::Held { why: Reason::TooOften }, "a release forgets nothing");
    let (later, _) = walk(&back, &ROUND, 101 + MEMORY);
    assert!(later.is_offered());
}

#[test]
fn a_reset_or_look_that_fails_holds_the_gpu() {
    let (cycle, _) = walk(&Cycle::default(), &[ROUND[0], ROUND[1], Input::WasReset(false)], 1);
    assert_eq!(cycle.stage, Stage::Held { why: Reason::ResetFailed });
    let (cycle, _) =
        walk(&Cycle::default(), &[ROUND[0], ROUND[1], ROUND[2], Input::Verified(false)], 1);
    assert_eq!(cycle.stage, Stage::Held { why: Reason::NotVerified });
}

fn any_input() -> impl Strategy<Value = Input> {
    let decision = prop::sample::select(vec![
        Decision::Record,
        Decision::RestartTenant,
        Decision::DrainAtIdle,
        Decision::AskHuman,
        Decision::CordonFabric,
        Decision::DrainAndReset,
        Decision::NodeLost,
    ]);
    prop_oneof![
        decision.prop_map(Input::Decided),
        Just(Input::Idle),
        any::<bool>().prop_map(Input::WasReset),
        any::<bool>().prop_map(Input::Verified),
        Just(Input::Released),
    ]
}

proptest! {
    #[test]
    fn what_tenants_cause_takes_no_host_and_no_other_tenant_down(
        xids in prop::collection::vec(prop::sample::select(BY_TENANTS.to_vec()), 1..6),
        told in any::<bool>(),
        recovery in prop::option::of(0..8_u64),
        earlier_109 in 0..5_u32,
    ) {
        let mut xids = xids;
        if told {
            xids.push(154);
        }
        let recovery = recovery.map(Recovery::from);
        for decision in judge(&Incident { xids, recovery, earlier_109 }) {
            prop_assert!(!decision.hits_others(), "{decision:?}");
        }
    }

    #[test]
    fn every_incident_has_a_decision(
        xids in prop::collection::vec(prop_oneof![0..160_u32, any::<u32>()], 0..6),
        recovery in prop::option::of(any::<u64>()),
    ) {
        let recovery = recovery.map(Recovery::from);
        let incident = Incident { xids, recovery, earlier_109: 0 };
        prop_assert!(!judge(&incident).is_empty());
    }

    #[test]
    fn any_bytes_are_a_line_or_none(line in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = parse(&line);
        let with_lead = [&b"NVRM: Xid (PCI:"[..], &line].concat();
        if let Some(logged) = parse(&with_lead) {
            prop_assert!(logged.slot.device < 32);
        }
    }

    #[test]
    fn no_gpu_comes_into_service_unverified_or_is_reset_without_end(
        inputs in prop::collection::vec(any_input(), 0..60),
    ) {
        let mut cycle = Cycle::default();
        let mut resets = 0;
        for (input, now) in inputs.into_iter().zip(1..) {
            let (next, act) = cycle.next(input, now);
            if next.is_offered() && !cycle.is_offered() {
                prop_assert_eq!((cycle.stage, input), (Stage::Verifying, Input::Verified(true)));
            }
            if act == Act::Reset {
                prop_assert_eq!(input, Input::Idle, "nobody has any of it");
                resets += 1;
            }
            prop_assert!(resets <= MOST_RESETS);
            cycle = next;
        }
    }
}
