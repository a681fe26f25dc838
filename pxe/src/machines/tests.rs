use super::*;
use crate::samples::{at, mac};

const LIMITS: LoopLimits = LoopLimits { attempts: 3, window_seconds: 600, hold_seconds: 300 };

#[test]
fn the_fourth_boot_without_progress_is_held_and_may_try_again_later() {
    let mut known = Known::new(at(0));
    for boot in 0..3 {
        assert!(known.begin(ClientKind::HttpBoot, boot, &LIMITS, at(boot.into())));
        assert_eq!(known.barred(at(boot.into())), None);
    }
    assert!(known.begin(ClientKind::HttpBoot, 3, &LIMITS, at(10)));
    let barred = known.barred(at(10)).unwrap();
    assert!(barred.reason.contains("UEFI HTTP boot was reached 3 times within 600 s"));
    assert_eq!((barred.until, barred.by_registry), (at(310), false));
    assert!(!known.begin(ClientKind::HttpBoot, 4, &LIMITS, at(309)), "nothing counts while held");
    assert_eq!(known.barred(at(310)), None, "the hold has an end");
    assert!(known.begin(ClientKind::HttpBoot, 5, &LIMITS, at(310)));
    assert_eq!(known.barred(at(310)), None, "counting starts anew");
}

#[test]
fn repetitions_of_a_transaction_are_one_boot_and_old_boots_are_forgotten() {
    let mut known = Known::new(at(0));
    for _ in 0..20 {
        known.begin(ClientKind::Pxe, 7, &LIMITS, at(0));
    }
    assert_eq!(known.barred(at(0)), None);
    let mut known = Known::new(at(0));
    for boot in 0..20_u32 {
        let now = at(i64::from(boot) * 250);
        known.begin(ClientKind::Pxe, 100 + boot, &LIMITS, now);
        assert_eq!(known.barred(now), None, "boot {boot}: three in 600 s are allowed");
    }
}

#[test]
fn progress_ends_the_counting_of_what_came_before() {
    let mut known = Known::new(at(0));
    for boot in 0..20 {
        known.begin(ClientKind::HttpBoot, boot, &LIMITS, at(boot.into()));
        known.reached(BootStage::Kernel);
        known.begin(ClientKind::Stage1, 1000 + boot, &LIMITS, at(boot.into()));
        known.reached(BootStage::Stage1);
        known.reached(BootStage::Image);
        known.reached(BootStage::Enrolled);
        assert_eq!(known.barred(at(boot.into())), None, "power cycle {boot}");
        assert_eq!(known.stage, BootStage::Enrolled);
    }
}

#[test]
fn a_kernel_that_dies_before_its_enrolment_is_held_by_its_stage_1() {
    let mut known = Known::new(at(0));
    for boot in 0..4 {
        known.begin(ClientKind::HttpBoot, boot, &LIMITS, at(boot.into()));
        known.begin(ClientKind::Stage1, 1000 + boot, &LIMITS, at(boot.into()));
        known.reached(BootStage::Stage1);
    }
    assert!(known.barred(at(4)).unwrap().reason.contains("stage 1 was reached 3 times"));
}

#[test]
fn a_new_boot_begins_at_its_own_stage() {
    let mut known = Known::new(at(0));
    known.begin(ClientKind::HttpBoot, 1, &LIMITS, at(0));
    known.reached(BootStage::Enrolled);
    known.begin(ClientKind::HttpBoot, 2, &LIMITS, at(1));
    assert_eq!(known.stage, BootStage::Firmware);
    known.reached(BootStage::Kernel);
    known.reached(BootStage::Firmware);
    assert_eq!(known.stage, BootStage::Kernel, "never backwards within a boot");
}

#[test]
fn the_report_says_who_may_boot_and_why_not() {
    let mut known = Known::new(at(0));
    let report = |known: &Known| {
        let machine = known.report(mac(1), None);
        (machine.admission, machine.reason)
    };
    assert_eq!(report(&known), (MachineAdmission::Admitted, String::new()));
    known.refused = Some("ticket was used".to_owned());
    assert_eq!(report(&known), (MachineAdmission::Refused, "ticket was used".to_owned()));
    known.quarantine = Some("not listed".to_owned());
    assert_eq!(report(&known), (MachineAdmission::Quarantined, "not listed".to_owned()));
    let barred = |by_registry| Some(Barred { reason: "no".to_owned(), until: at(9), by_registry });
    known.barred = barred(false);
    assert_eq!(report(&known).0, MachineAdmission::Quarantined);
    known.barred = barred(true);
    assert_eq!(report(&known).0, MachineAdmission::Refused);
}

#[test]
fn forged_addresses_push_out_strangers_only() {
    let mut machines = Machines::default();
    machines.see(mac(1), at(0)).host = Some("lab-000001".parse().unwrap());
    machines.see(mac(2), at(0)).boots = 1;
    machines.see(mac(3), at(0));
    for number in 0..2000_u32 {
        let [_, _, high, low] = number.to_be_bytes();
        machines.see(MacAddr::new([2, 0, 0, 1, high, low]), at(1 + i64::from(number)));
    }
    assert_eq!(machines.0.len(), STRANGERS);
    assert!(machines.get(mac(1)).is_some() && machines.get(mac(2)).is_some());
    assert_eq!(machines.get(mac(3)), None, "the oldest stranger went first");
    assert_eq!(machines.of_host(&"lab-000001".parse().unwrap()), Some(mac(1)));
}
