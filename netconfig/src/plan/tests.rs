use proptest::prelude::*;
use proptest::test_runner::Config;

use super::*;
use crate::kernel::Kernel as _;
use crate::kernel::memory::Memory;
use crate::merge::{Routing, merge};
use crate::model::{
    BridgePort, GROUP_BASE, LinkKind, Master, ObservedKind, Role, TRASH_GROUP, TenantNumber,
};
use crate::testing::{Kit, Recipe, desired, foreign, judge, recipe};
use crate::transaction::{Cause, NoContact, TransactionError, commit};

fn name(text: &str) -> LinkName {
    text.parse().unwrap()
}

/// A host with two cards and a bridge that somebody else made.
fn host() -> Memory {
    let mut memory = Memory::default();
    memory.card(1, "lo");
    memory.card(2, "up0");
    memory.card(3, "up1");
    memory.card(4, "docker0");
    memory.state.links.get_mut(&4).unwrap().kind = ObservedKind::Known(LinkKind::Bridge);
    let address = Address { link: name("docker0"), ip: "172.17.0.1".parse().unwrap(), length: 16 };
    memory.state.addresses.insert(address);
    memory
}

fn apply(memory: &mut Memory, target: &Target) -> Result<usize, TransactionError> {
    let committed = commit(memory, target, None, &mut NoContact, std::time::Duration::ZERO)?;
    assert_eq!(committed.refused, []);
    Ok(committed.operations)
}

fn becomes(memory: &mut Memory, recipe: &Recipe, routing: Routing) {
    let before = foreign(&memory.state);
    let desired = desired(recipe);
    let target = merge(&desired, routing);
    apply(memory, &target).unwrap();
    judge(&desired, routing, &memory.state);
    let asked = memory.asked;
    assert_eq!(apply(memory, &target).unwrap(), 0);
    assert_eq!(memory.asked, asked, "a settled state is left alone");
    assert!(foreign(&memory.state) == before, "what is foreign was touched");
}

fn routing() -> impl Strategy<Value = Routing> {
    prop_oneof![Just(Routing::Vrf), Just(Routing::Rules)]
}

proptest! {
    #![proptest_config(Config::with_cases(1000))]

    #[test]
    fn any_state_follows_any_other_and_then_nothing_is_left(
        first in recipe(Kit::All), second in recipe(Kit::All), routing in routing(), given: bool,
    ) {
        let mut memory = host();
        becomes(&mut memory, &first, routing);
        if given {
            let ends: Vec<_> = memory.state.ours().map(|l| l.name.clone()).collect();
            for end in ends.iter().filter(|name| name.as_str().starts_with("bq")) {
                memory.give_away(end);
            }
        }
        becomes(&mut memory, &second, routing);
        apply(&mut memory, &Target::default()).unwrap();
        prop_assert_eq!(memory.state.ours().count(), 0);
        prop_assert!(memory.state.routes.is_empty() && memory.state.rules.is_empty());
        prop_assert!(memory.state.neighbours.is_empty());
    }
}

proptest! {
    #![proptest_config(Config::with_cases(48))]

    #[test]
    fn a_change_that_is_cut_anywhere_is_taken_back_and_succeeds_when_repeated(
        first in recipe(Kit::All), second in recipe(Kit::All), routing in routing(),
    ) {
        let mut start = host();
        becomes(&mut start, &first, routing);
        let (before, after) = (desired(&first), desired(&second));
        let target = merge(&after, routing);
        let steps = plan(&target, &start.state).operations.len();
        for cut in 0..steps {
            let mut memory = start.clone();
            memory.cut = Some(cut);
            match apply(&mut memory, &target) {
                Err(TransactionError::RolledBack { cause: Cause::Apply(_), .. }) => {}
                other => panic!("cut at {cut} of {steps}: {other:?}"),
            }
            judge(&before, routing, &memory.state);
            becomes(&mut memory, &second, routing);
        }
    }

    #[test]
    fn a_host_that_dies_anywhere_converges_on_the_next_start(
        first in recipe(Kit::All), second in recipe(Kit::All), routing in routing(),
    ) {
        let mut start = host();
        becomes(&mut start, &first, routing);
        let target = merge(&desired(&second), routing);
        let operations = plan(&target, &start.state).operations;
        for done in 0..operations.len() {
            let mut memory = start.clone();
            memory.apply(&operations[..done]).unwrap();
            becomes(&mut memory, &second, routing);
        }
    }
}

/// One network of one tenant, with one port.
fn small() -> (Target, LinkName, LinkName) {
    let text = r#"{"tenants":{"acme":7},"underlay":{},"networks":[[{"tenant":"acme","name":"a"},
        {"segment":{"vni":7},"mtu":1400,"subnets":[{"prefix":"10.0.0.0/24","gateway":"10.0.0.1"}]}]],
        "ports":[[{"lease":{"tenant":"acme","name":"l"},"network":"a"},{"kind":"veth","mac":"02:00:00:00:00:01"}]]}"#;
    let desired: crate::model::Desired = serde_json::from_str(text).unwrap();
    let bridge = LinkName::of_network(Role::Bridge, desired.networks.keys().next().unwrap());
    let port = LinkName::of_port(Role::Port, desired.ports.keys().next().unwrap());
    (merge(&desired, Routing::Rules), bridge, port)
}

#[test]
fn the_plan_of_a_small_network_reads_like_its_making() {
    let (target, ..) = small();
    let memory = host();
    let plan = plan(&target, &memory.state);
    let told: Vec<String> = plan.operations.iter().map(ToString::to_string).collect();
    expect_test::expect_file!["tests/small.txt"].assert_eq(&format!("{}\n", told.join("\n")));
}

#[test]
fn a_foreign_link_with_our_name_is_refused_and_left_alone() {
    let (target, bridge, _) = small();
    let mut memory = host();
    memory.card(9, bridge.as_str());
    let plan = plan(&target, &memory.state);
    assert!(plan.refused.contains(&Refusal::NameTaken { name: bridge.clone() }));
    let touches = |operation: &&Operation| operation.to_string().contains(bridge.as_str());
    assert_eq!(plan.operations.iter().find(touches), None);
}

#[test]
fn a_card_that_is_part_of_something_foreign_is_refused() {
    let mut memory = host();
    memory.state.links.get_mut(&2).unwrap().master =
        Some(Master { index: 4, name: Some(name("docker0")) });
    let mut target = Target::default();
    let bond = crate::model::TargetLink {
        kind: LinkKind::Bond { mode: crate::model::BondMode::Lacp, miimon_ms: 100 },
        group: UNDERLAY_GROUP,
        mtu: None,
        mac: None,
        master: None,
        port: None,
    };
    target.links.insert(name("bo0"), bond);
    let used = crate::model::UsedLink { min_mtu: None, master: Some(name("bo0")) };
    target.used.insert(name("up0"), used.clone());
    target.used.insert(name("up9"), used);
    let refused = plan(&target, &memory.state).refused;
    let taken = Refusal::CardTaken { name: name("up0"), master: name("docker0") };
    assert_eq!(refused, [Refusal::NoSuchCard { name: name("up9") }, taken]);
}

#[test]
fn a_link_of_ours_that_a_foreign_one_stands_on_stays() {
    let (target, bridge, _) = small();
    let mut memory = host();
    apply(&mut memory, &target).unwrap();
    let below = memory.state.link(&bridge).unwrap().index;
    memory.card(99, "eth0.5");
    let foreign = memory.state.links.get_mut(&99).unwrap();
    foreign.kind = ObservedKind::Other("macvlan".to_owned());
    foreign.parent = Some(below);
    let plan = plan(&Target::default(), &memory.state);
    let stands = Refusal::StoodOn { name: bridge.clone(), by: name("eth0.5") };
    assert_eq!(plan.refused, [stands]);
    memory.apply(&plan.operations).unwrap();
    assert!(memory.state.link(&bridge).is_some() && memory.state.link(&name("eth0.5")).is_some());
    assert_eq!(memory.state.ours().count(), 1);
}

#[test]
fn a_foreign_link_on_a_tenants_bridge_is_released() {
    let (target, bridge, _) = small();
    let mut memory = host();
    apply(&mut memory, &target).unwrap();
    let index = memory.state.link(&bridge).unwrap().index;
    let card = memory.state.links.get_mut(&3).unwrap();
    card.master = Some(Master { index, name: Some(bridge) });
    card.port = Some(BridgePort::NEW);
    assert_eq!(apply(&mut memory, &target).unwrap(), 1);
    assert_eq!(memory.state.links[&3].master, None);
}

#[test]
fn links_of_many_tenants_go_in_one_deletion() {
    let (first, ..) = small();
    let mut memory = host();
    let mut target = first.clone();
    for (name, link) in &first.links {
        let other = crate::model::TargetLink {
            group: TenantNumber::try_from(8).unwrap().group(),
            master: None,
            port: None,
            ..link.clone()
        };
        if link.kind == LinkKind::Bridge {
            target.links.insert(format!("{}x", &name.as_str()[..12]).parse().unwrap(), other);
        }
    }
    apply(&mut memory, &target).unwrap();
    let plan = plan(&Target::default(), &memory.state);
    let deletions: Vec<_> = plan
        .operations
        .iter()
        .filter(|o| matches!(o, Operation::DeleteGroup { .. } | Operation::DeleteLink(_)))
        .collect();
    assert_eq!(deletions, [&Operation::DeleteGroup { group: TRASH_GROUP, links: 4 }]);
}

#[test]
fn a_card_in_the_group_of_what_goes_does_not_stop_the_deletion() {
    let (target, ..) = small();
    for group in [GROUP_BASE + 7, TRASH_GROUP] {
        let mut memory = host();
        apply(&mut memory, &target).unwrap();
        // Somebody put a card there: the kernel refuses to delete such a group.
        memory.state.links.get_mut(&3).unwrap().group = group;
        apply(&mut memory, &Target::default()).unwrap();
        assert_eq!(memory.state.ours().count(), 0, "group {group}");
        assert!(memory.state.links.contains_key(&3));
    }
}

#[test]
fn a_tenants_new_hardware_address_makes_a_new_pair() {
    let (mut target, _, port) = small();
    let mut memory = host();
    apply(&mut memory, &target).unwrap();
    let old = memory.state.link(&port).unwrap().index;
    let new = bulkhead_api::id::MacAddr::new([2, 0, 0, 0, 0, 9]);
    for link in target.links.values_mut() {
        if let LinkKind::Veth { peer_mac, .. } = &mut link.kind {
            *peer_mac = Some(new);
        }
    }
    apply(&mut memory, &target).unwrap();
    assert_ne!(memory.state.link(&port).unwrap().index, old);
    assert_eq!(memory.state.link(&port.peer().unwrap()).unwrap().mac, Some(new));
}
