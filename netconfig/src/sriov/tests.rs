//! A card in memory that refuses what cards refuse, and tenants who see what a VF still has of its holder before.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_api::id::{LeaseId, MacAddr};
use bulkhead_api::network::VlanId;
use proptest::prelude::*;

use super::converge::{Outcome, VfHost, converge};
use super::model::*;
use super::plan::{Refusal, plan};
use crate::model::{ObservedVf, VfLinkState, VfVlan};

const PARKING: u16 = 4094;

/// A card in memory.
#[derive(Debug, Clone)]
struct Nic {
    pf: Pf,
    /// VFs whose settings do not stick.
    broken: BTreeSet<u32>,
    cut: Option<usize>,
    /// Whose each VF is now, by what it was set to.
    leases: BTreeMap<MacAddr, LeaseId>,
    steps: usize,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct No(&'static str);

fn vlan(number: u16) -> VlanId {
    number.try_into().unwrap()
}

fn fresh(number: u32) -> Vf {
    Vf {
        bdf: format!("0000:03:10.{number}"),
        driver: Some("igbvf".to_owned()),
        settings: ObservedVf {
            number,
            mac: Some(MacAddr::new([0; 6])),
            vlan: None,
            min_mbps: Some(0),
            max_mbps: Some(0),
            spoof_check: Some(true),
            trust: Some(false),
            link_state: Some(VfLinkState::Auto),
            rss_query: None,
        },
    }
}

impl Nic {
    fn new(driver: Driver, vfs: u32) -> Self {
        let pf = Pf {
            bdf: "0000:03:00.0".to_owned(),
            driver,
            link: Some("enp3s0".parse().unwrap()),
            most: 7,
            mode: Some(SwitchMode::Legacy),
            vfs: (0..vfs).map(|number| (number, fresh(number))).collect(),
        };
        let (broken, leases) = (BTreeSet::new(), BTreeMap::new());
        Self { pf, broken, cut: None, leases, steps: 0 }
    }

    fn step(&mut self) -> Result<(), No> {
        self.steps += 1;
        match &mut self.cut {
            Some(0) => Err(No("power lost")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn vf(&mut self, vf: u32) -> Result<&mut Vf, No> {
        self.pf.vfs.get_mut(&vf).ok_or(No("no such VF"))
    }
}

impl VfHost for Nic {
    type Error = No;

    fn observe(&mut self) -> Result<Pf, No> {
        Ok(self.pf.clone())
    }

    fn observe_vf(&mut self, vf: u32) -> Result<Vf, No> {
        self.vf(vf).cloned()
    }

    fn set_count(&mut self, count: u32) -> Result<(), No> {
        self.step()?;
        if count != 0 && !self.pf.vfs.is_empty() {
            return Err(No("EBUSY: 0 must be between"));
        }
        self.pf.vfs = (0..count).map(|number| (number, fresh(number))).collect();
        Ok(())
    }

    fn set_mode(&mut self, mode: SwitchMode) -> Result<(), No> {
        self.step()?;
        match self.pf.driver {
            Driver::Igb => return Err(No("EOPNOTSUPP")),
            Driver::Ice if !self.pf.vfs.is_empty() => return Err(No("EOPNOTSUPP: VFs")),
            _ if self.pf.vfs.values().any(|vf| vf.driver.is_some()) => {
                return Err(No("EBUSY: VFs have drivers"));
            }
            Driver::Mlx5 | Driver::Ice | Driver::Other(_) => {}
        }
        self.pf.mode = Some(mode);
        Ok(())
    }

    fn unbind(&mut self, vf: u32) -> Result<(), No> {
        self.step()?;
        self.vf(vf)?.driver = None;
        Ok(())
    }

    fn bind(&mut self, vf: u32, to: Binding) -> Result<(), No> {
        self.step()?;
        let vf = self.vf(vf)?;
        let tag = vf.settings.vlan.expect("a VF in use has a VLAN");
        assert_ne!(tag.vlan, PARKING, "a parked VF was given out");
        vf.driver = Some(if to == Binding::Vfio { "vfio-pci" } else { "igbvf" }.to_owned());
        Ok(())
    }

    fn set(&mut self, vf: u32, settings: &Settings) -> Result<(), No> {
        self.step()?;
        let (igb, broken) = (self.pf.driver == Driver::Igb, self.broken.contains(&vf));
        let holder = self.leases.get(&settings.mac).cloned();
        let now = &mut self.vf(vf)?;
        if igb && settings.link.is_some() {
            return Err(No("IFLA_VF_LINK_STATE: EOPNOTSUPP"));
        }
        if igb && settings.min_mbps > 0 {
            return Err(No("IFLA_VF_RATE: EINVAL"));
        }
        let was = now.settings.mac;
        let tenant_before = now.settings.vlan.is_some_and(|tag| tag.vlan != PARKING);
        let tenant_after = settings.vlan != vlan(PARKING);
        // From one tenant to another the way leads over the baseline.
        if tenant_before && tenant_after && was != Some(settings.mac) {
            panic!("VF {vf} went from a tenant straight to {holder:?}");
        }
        let seen = &mut now.settings;
        seen.mac = Some(settings.mac);
        seen.vlan = Some(VfVlan { vlan: settings.vlan.get(), qos: settings.qos, protocol: 0x8100 });
        (seen.min_mbps, seen.max_mbps) = (Some(settings.min_mbps), Some(settings.max_mbps));
        seen.spoof_check = Some(settings.spoof_check != broken);
        seen.trust = Some(settings.trust);
        seen.link_state = settings.link.or(seen.link_state);
        Ok(())
    }
}

fn lease(name: &str) -> LeaseId {
    LeaseId { tenant: name.parse().unwrap(), name: "l".parse().unwrap() }
}

fn grant(name: &str, generation: u64, number: u16) -> Grant {
    Grant {
        lease: lease(name),
        generation,
        mac: MacAddr::new([
            2,
            0,
            0,
            u8::try_from(generation % 256).unwrap(),
            0,
            u8::try_from(number).unwrap(),
        ]),
        vlan: vlan(100 + number),
        qos: 0,
        min_mbps: 0,
        max_mbps: 1000,
        trust: false,
        binding: if number.is_multiple_of(2) { Binding::Link } else { Binding::Vfio },
    }
}

/// A ledger that does what its doc says: a grant stands in it before the first step.
#[derive(Debug, Clone, Default)]
struct Ledger {
    held: BTreeMap<u32, Held>,
    given: BTreeMap<u32, u64>,
    quarantined: BTreeSet<u32>,
}

impl Ledger {
    fn enter(&mut self, desired: &DesiredPf) {
        for (vf, grant) in &desired.grants {
            let held = Held { lease: grant.lease.clone(), generation: grant.generation };
            self.held.entry(*vf).or_insert(held);
        }
    }

    fn note(&mut self, outcome: &Outcome) {
        for (vf, lease) in &outcome.released {
            if self.held.get(vf).is_some_and(|held| held.lease == *lease) {
                self.held.remove(vf);
                self.given.remove(vf);
            }
        }
        for (vf, _) in &outcome.acquired {
            self.given.insert(*vf, self.held[vf].generation);
        }
        self.quarantined.extend(outcome.quarantined.keys());
    }
}

fn pass(nic: &mut Nic, desired: &DesiredPf, ledger: &mut Ledger) -> (Outcome, Vec<Refusal>) {
    ledger.enter(desired);
    let mac = |vf: u32| MacAddr::new([2, 0xba, 0x5e, 0, 0, u8::try_from(vf).unwrap()]);
    let now = nic.observe().unwrap();
    let plan = plan(desired, &now, &ledger.held, &ledger.given, &ledger.quarantined, &mac);
    let held = ledger.held.clone();
    let outcome = converge(nic, &plan, |vf| held.get(&vf).map(|held| held.generation));
    ledger.note(&outcome);
    (outcome, plan.refused)
}

fn wanted(count: u32, grants: impl IntoIterator<Item = (u32, Grant)>) -> DesiredPf {
    DesiredPf {
        count,
        mode: SwitchMode::Legacy,
        parking: vlan(PARKING),
        grants: grants.into_iter().collect(),
    }
}

fn settle(nic: &mut Nic, desired: &DesiredPf, ledger: &mut Ledger) -> Vec<Refusal> {
    for _ in 0..4 {
        let steps = nic.steps;
        let (_, refused) = pass(nic, desired, ledger);
        if nic.steps == steps {
            return refused;
        }
    }
    panic!("no end: {desired:?}");
}

/// Without `plan`: who is wanted has it, and what is nobody's reaches nothing.
fn judge(nic: &Nic, desired: &DesiredPf, ledger: &Ledger) {
    for (number, vf) in &nic.pf.vfs {
        let seen = &vf.settings;
        match desired.grants.get(number) {
            Some(grant) if !ledger.quarantined.contains(number) => {
                assert_eq!(seen.mac, Some(grant.mac), "VF {number}");
                assert_eq!(seen.vlan.map(|tag| tag.vlan), Some(grant.vlan.get()));
                assert_eq!((seen.trust, seen.spoof_check), (Some(grant.trust), Some(!grant.trust)));
                assert!(vf.driver.is_some(), "VF {number} has no driver");
                assert_ne!(seen.link_state, Some(VfLinkState::Disable));
            }
            _ if seen.vlan.is_some() => {
                assert_eq!(seen.vlan.map(|tag| tag.vlan), Some(PARKING), "VF {number}");
                assert_eq!((vf.driver.clone(), seen.trust), (None, Some(false)), "VF {number}");
            }
            _ => {}
        }
    }
}

fn driver() -> impl Strategy<Value = Driver> {
    prop_oneof![
        Just(Driver::Igb),
        Just(Driver::Ice),
        Just(Driver::Mlx5),
        Just(Driver::Other("bnxt_en".to_owned())),
    ]
}

type Grants = BTreeMap<u32, u8>;

fn grants() -> impl Strategy<Value = Grants> {
    prop::collection::btree_map(0_u32..4, 0_u8..3, 0..4)
}

fn granted(grants: &Grants, round: u64) -> DesiredPf {
    let names = ["acme", "beta", "core"];
    wanted(
        4,
        grants.iter().map(|(vf, who)| {
            let number = u16::try_from(*vf).unwrap();
            // A lease that stays keeps its generation.
            let generation = if *who == 0 { 1 } else { round * 10 + u64::from(*who) };
            (*vf, grant(names[usize::from(*who)], generation, number))
        }),
    )
}

proptest! {
    #[test]
    fn a_card_cut_anywhere_converges_and_no_tenant_follows_another_directly(
        driver in driver(), first in grants(), second in grants(), cut in 0_usize..60,
    ) {
        let mut nic = Nic::new(driver, 0);
        let mut ledger = Ledger::default();
        let (first, second) = (granted(&first, 1), granted(&second, 2));
        prop_assert_eq!(settle(&mut nic, &first, &mut ledger), []);
        judge(&nic, &first, &ledger);
        nic.cut = Some(cut);
        // The process dies with the card: what it would have noted is lost.
        let lost = ledger.clone();
        let mut dying = ledger.clone();
        let _ = pass(&mut nic, &second, &mut dying);
        ledger = lost;
        nic.cut = None;
        prop_assert_eq!(settle(&mut nic, &second, &mut ledger), []);
        judge(&nic, &second, &ledger);
    }
}

#[test]
fn a_vf_that_does_not_read_back_is_kept_back_and_the_others_are_given() {
    let mut nic = Nic::new(Driver::Ice, 4);
    nic.broken.insert(1);
    let mut ledger = Ledger::default();
    let desired =
        wanted(4, [(0, grant("acme", 1, 0)), (1, grant("beta", 1, 1)), (2, grant("core", 1, 2))]);
    let (outcome, _) = pass(&mut nic, &desired, &mut ledger);
    assert_eq!(outcome.acquired, [(0, lease("acme")), (2, lease("core"))]);
    let reason = &outcome.quarantined[&1];
    assert_eq!(reason, "set VF 1 to VLAN 4094: the spoof check is false, not true");
    let (_, refused) = pass(&mut nic, &desired, &mut ledger);
    assert_eq!(refused, [Refusal::Quarantined(1)]);
    assert_eq!(nic.pf.vfs[&1].driver, None, "nobody has it");
}

#[test]
fn the_number_of_vfs_stays_while_a_lease_has_one() {
    let mut nic = Nic::new(Driver::Igb, 4);
    let mut ledger = Ledger::default();
    settle(&mut nic, &wanted(4, [(2, grant("acme", 1, 2))]), &mut ledger);
    let refused = settle(&mut nic, &wanted(3, [(2, grant("acme", 1, 2))]), &mut ledger);
    assert_eq!(refused.len(), 1);
    assert_eq!(
        refused[0].to_string(),
        "4 VFs in mode legacy to be 3 in mode legacy: held are VF 2 by acme/l"
    );
    assert_eq!(nic.pf.vfs.len(), 4);
    let refused = settle(&mut nic, &wanted(3, []), &mut ledger);
    assert_eq!((refused, nic.pf.vfs.len()), (vec![], 3));
    let refused = settle(&mut nic, &wanted(9, []), &mut ledger);
    assert_eq!(refused, [Refusal::TooMany { count: 9, most: 7 }]);
}

#[test]
fn a_step_of_an_earlier_generation_is_not_done() {
    let mut nic = Nic::new(Driver::Ice, 2);
    let mut ledger = Ledger::default();
    let desired = wanted(2, [(0, grant("acme", 1, 0)), (1, grant("beta", 1, 1))]);
    ledger.enter(&desired);
    let now = nic.observe().unwrap();
    let mac = |_| MacAddr::new([2, 0, 0, 0, 0, 0xff]);
    let plan = plan(&desired, &now, &ledger.held, &ledger.given, &ledger.quarantined, &mac);
    // VF 0 went to somebody else meanwhile.
    let outcome = converge(&mut nic, &plan, |vf| Some(if vf == 0 { 2 } else { 1 }));
    assert_eq!((outcome.stale, outcome.acquired), (1, vec![(1, lease("beta"))]));
    assert_eq!(nic.pf.vfs[&0], fresh(0), "no write of the stale plan landed");
}

#[test]
fn what_somebody_changed_of_a_vf_in_use_is_set_right_without_taking_it_away() {
    let mut nic = Nic::new(Driver::Mlx5, 4);
    let mut ledger = Ledger::default();
    let desired = wanted(4, [(1, grant("acme", 1, 1))]);
    settle(&mut nic, &desired, &mut ledger);
    nic.vf(1).unwrap().settings.trust = Some(true);
    // Its holder took it out of the driver that it came with.
    nic.vf(1).unwrap().driver = None;
    let steps = nic.steps;
    pass(&mut nic, &desired, &mut ledger);
    assert_eq!(nic.steps, steps + 1);
    assert_eq!(nic.pf.vfs[&1].settings.trust, Some(false));
    assert_eq!(nic.pf.vfs[&1].driver, None);
}

#[test]
fn each_driver_changes_its_switch_in_its_own_order() {
    for driver in [Driver::Mlx5, Driver::Ice, Driver::Other("bnxt_en".to_owned())] {
        let mut nic = Nic::new(driver.clone(), 2);
        let mut ledger = Ledger::default();
        for mode in [SwitchMode::Switchdev, SwitchMode::Legacy] {
            let desired = DesiredPf { mode, ..wanted(4, []) };
            assert_eq!(settle(&mut nic, &desired, &mut ledger), [], "{driver} to {mode}");
            assert_eq!((nic.pf.mode, nic.pf.vfs.len()), (Some(mode), 4), "{driver}");
        }
    }
    let mut nic = Nic::new(Driver::Igb, 2);
    let desired = DesiredPf { mode: SwitchMode::Switchdev, ..wanted(2, []) };
    let refused = settle(&mut nic, &desired, &mut Ledger::default());
    assert_eq!(refused[0].to_string(), "switch mode switchdev: not supported by igb");
}
