use std::collections::BTreeSet;

use proptest::prelude::*;

use super::world::{Worlds, link_mut, one_host, site, two_hosts};
use super::*;
use crate::firewall::{Access, compile, sample};
use crate::kernel::memory::Memory;
use crate::merge::{Routing, merge};
use crate::model::{LinkName, Observed, ObservedKind, Role};
use crate::testing::{Kit, recipe};
use crate::transaction::{NoContact, commit};

#[test]
fn a_site_as_it_should_be_has_no_violation() {
    for vrfs in [false, true] {
        for worlds in [one_host(vrfs), two_hosts(vrfs)] {
            let found = prove(&site(&worlds));
            let said: Vec<String> = found.iter().map(ToString::to_string).collect();
            assert!(found.is_empty(), "{}", said.join("\n"));
        }
    }
}

fn explained(worlds: &Worlds, from: (u16, u16, u16), to: (u16, u16, u16)) -> Explanation {
    let port = |(tenant, lease, network)| sample::port(tenant, lease, network);
    explain(&site(worlds), &port(from), &port(to))
}

#[test]
fn peers_reach_each_other_by_a_rule_that_is_named() {
    for vrfs in [false, true] {
        let worlds = one_host(vrfs);
        let found = explained(&worlds, (1, 1, 2), (2, 1, 2));
        assert!(found.reaches, "{found}");
        let text = found.to_string();
        assert!(text.contains("no bridge, VNI or VLAN joins them"), "{text}");
        assert!(
            text.contains("vmap @paths (goto peers)") && text.contains("@peers4 accept"),
            "{text}"
        );
    }
}

#[test]
fn strangers_are_stopped_by_a_route_and_with_a_leak_by_a_rule() {
    let mut worlds = one_host(false);
    let found = explained(&worlds, (3, 1, 1), (1, 1, 1));
    assert!(!found.reaches);
    assert!(found.to_string().contains("unreachable"), "{found}");
    // A route that leads there is a violation although the rules still hold, and they are named.
    let observed = &mut worlds.get_mut("h1").unwrap().observed;
    let leak = observed
        .routes
        .iter()
        .find(|route| route.table == 1_000_001 && route.prefix == sample::prefix("10.1.1.0/24"));
    let leak = crate::model::Route { table: 1_000_003, ..leak.unwrap().clone() };
    observed.routes.insert(leak);
    let found = explained(&worlds, (3, 1, 1), (1, 1, 1));
    assert!(!found.reaches);
    assert!(found.to_string().contains("inet between: policy drop"), "{found}");
    let classes: BTreeSet<Class> = prove(&site(&worlds)).iter().map(|found| found.class).collect();
    assert_eq!(classes, [Class::Route].into());
}

#[test]
fn with_every_layer_open_the_whole_way_is_named() {
    let mut worlds = one_host(false);
    let world = worlds.get_mut("h1").unwrap();
    let leak = crate::model::Route {
        table: 1_000_003,
        prefix: sample::prefix("10.1.1.0/24"),
        metric: 1,
        kind: crate::model::RouteKind::Link {
            link: LinkName::of_network(Role::Bridge, &sample::id(1, 1)),
            via: None,
        },
    };
    world.observed.routes.insert(leak);
    let inet = world.rules.tables.get_mut(&crate::firewall::ruleset::Family::Inet).unwrap();
    inet.chains.get_mut("between").unwrap().hook.as_mut().unwrap().accepts = true;
    let found = prove(&site(&worlds));
    let reach = found.iter().find(|found| found.class == Class::Reach).unwrap();
    let path = reach.path.join(" -> ");
    for hop in [
        "bridge of t3/n1",
        "rule 10000",
        "route to 10.1.1.0/24",
        "between: policy accept",
        "bridge of t1/n1",
    ] {
        assert!(path.contains(hop), "{hop} is not in {path}");
    }
    assert!(explained(&worlds, (3, 1, 1), (1, 1, 1)).reaches);
}

#[test]
fn ports_of_one_network_reach_each_other_where_they_may_talk() {
    let mut worlds = two_hosts(false);
    // Over the VXLAN they do, on one host only where the network says so.
    let over = {
        let from = sample::port(1, 1, 1);
        let mut to = sample::port(1, 1, 1);
        to.lease.name = "l1b".parse().unwrap();
        explain(&site(&worlds), &from, &to)
    };
    assert!(over.reaches, "{over}");
    assert!(over.to_string().contains("VNI 101"), "{over}");
    let mut desired = sample::desired(1, 1, 2);
    let alone = super::world::good(desired.clone(), sample::access());
    worlds = Worlds::from([("h1".to_owned(), alone)]);
    let found = explained(&worlds, (1, 1, 1), (1, 2, 1));
    assert!(!found.reaches && found.to_string().contains("isolated"), "{found}");
    desired.networks.get_mut(&sample::id(1, 1)).unwrap().ports_talk = true;
    worlds = Worlds::from([("h1".to_owned(), super::world::good(desired, sample::access()))]);
    assert!(explained(&worlds, (1, 1, 1), (1, 2, 1)).reaches);
}

#[test]
fn a_port_that_is_nowhere_is_said_to_be_missing() {
    let found = explained(&one_host(false), (1, 1, 1), (8, 1, 1));
    assert_eq!(found.to_string(), "does not reach\n  port t8/l1:n1: no host has a link of it\n");
}

#[test]
fn a_tenants_link_on_another_bridge_is_named_with_its_way() {
    let mut worlds = one_host(true);
    let observed: &mut Observed = &mut worlds.get_mut("h1").unwrap().observed;
    let bridge =
        super::world::index_of(observed, &LinkName::of_network(Role::Bridge, &sample::id(2, 1)));
    let port = LinkName::of_port(Role::Port, &sample::port(1, 1, 1));
    link_mut(observed, &port).master.as_mut().unwrap().index = bridge;
    let found = prove(&site(&worlds));
    let segment = found.iter().find(|found| found.class == Class::Segment).unwrap().to_string();
    assert!(segment.contains("port t1/l1:n1") && segment.contains("bridge of t2/n1"), "{segment}");
}

#[test]
fn the_uplink_in_a_tenants_bridge_is_a_violation() {
    let mut worlds = one_host(true);
    let observed = &mut worlds.get_mut("h1").unwrap().observed;
    let bridge =
        super::world::index_of(observed, &LinkName::of_network(Role::Bridge, &sample::id(2, 1)));
    let master = crate::model::Master { index: bridge, name: None };
    link_mut(observed, &"eno1".parse().unwrap()).master = Some(master);
    let found = prove(&site(&worlds));
    assert!(found.iter().any(|found| found.class == Class::Member), "{found:?}");
    let kind =
        &link_mut(&mut worlds.get_mut("h1").unwrap().observed, &"eno1".parse().unwrap()).kind;
    assert_eq!(*kind, ObservedKind::Device);
}

#[test]
fn overlapping_tenants_are_apart() {
    let mut desired = sample::desired(2, 1, 1);
    let first = desired.networks[&sample::id(1, 1)].clone();
    let addresses = desired.ports[&sample::port(1, 1, 1)].addresses.clone();
    desired.networks.get_mut(&sample::id(2, 1)).unwrap().subnets = first.subnets;
    desired.ports.get_mut(&sample::port(2, 1, 1)).unwrap().addresses = addresses;
    for vrfs in [false, true] {
        let access = Access { vrfs, ..sample::access() };
        let worlds =
            Worlds::from([("h1".to_owned(), super::world::good(desired.clone(), access.clone()))]);
        let found = prove(&site(&worlds));
        assert!(found.is_empty(), "{}", found[0]);
        assert_eq!(compile(&desired, &access).refused.len(), 1);
    }
}

/// What a host without faults becomes, by the ways of this crate that the prover knows nothing of.
fn made(recipe: &crate::testing::Recipe, routing: Routing) -> super::world::World {
    let desired = crate::testing::desired(recipe);
    let mut kernel = Memory::default();
    for (index, card) in (1..).zip(["lo", "up0", "up1"]) {
        kernel.card(index, card);
    }
    let target = merge(&desired, routing);
    let none = std::time::Duration::ZERO;
    let made = commit(&mut kernel, &target, None, &mut NoContact, none).unwrap();
    let access = Access { vrfs: routing == Routing::Vrf, ..sample::access() };
    let rules = compile(&desired, &access).ruleset;
    super::world::World { desired, access, observed: made.observed, rules }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_is_made_of_any_spec_keeps_tenants_apart(
        recipe in recipe(Kit::All),
        vrfs in any::<bool>(),
    ) {
        let world = made(&recipe, if vrfs { Routing::Vrf } else { Routing::Rules });
        let worlds = Worlds::from([("h1".to_owned(), world)]);
        let found = prove(&site(&worlds));
        prop_assert!(found.is_empty(), "{}", found[0]);
    }
}

#[test]
fn hundreds_of_tenants_are_apart() {
    let world =
        super::world::good(sample::desired(300, 1, 1), Access { vrfs: false, ..sample::access() });
    let worlds = Worlds::from([("h1".to_owned(), world)]);
    let found = prove(&site(&worlds));
    assert!(found.is_empty(), "{}", found[0]);
}
