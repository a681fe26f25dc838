//! Every guard of an observed state, found in the state itself, is taken away once: the prover must notice each.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::prove;
use super::world::{World, Worlds, good, host_of, one_host, site, two_hosts};
use crate::firewall::ruleset::{
    Atom, Chain, DataKind, Datum, Family, Kind, Rule, Statement, Table, Verdict,
};
use crate::firewall::sample;
use crate::model::{LinkKind, LinkName, Neighbour, ObservedKind, Role, RouteKind, Selector};

/// One change of one host.
struct Mutant {
    name: String,
    change: Box<dyn Fn(&mut World)>,
}

fn mutant(name: String, change: impl Fn(&mut World) + 'static) -> Mutant {
    Mutant { name, change: Box::new(change) }
}

fn table(world: &mut World, family: Family) -> &mut Table {
    world.rules.tables.get_mut(&family).unwrap()
}

/// Changes the rules of a chain.
fn edit_rule(
    family: Family,
    chain: &str,
    change: impl Fn(&mut Vec<Rule>) + 'static,
) -> impl Fn(&mut World) + 'static {
    let chain = chain.to_owned();
    move |world| change(&mut table(world, family).chains.get_mut(&chain).unwrap().rules)
}

/// Whether what comes to this chain is dropped at its end.
fn refuses(table: &Table, rule: &Rule) -> bool {
    match rule.0.last() {
        Some(Statement::Verdict(Verdict::Drop)) => true,
        Some(Statement::Verdict(Verdict::Goto(chain))) => {
            table.chains[chain].rules.last().is_some_and(|last| refuses(table, last))
        }
        _ => false,
    }
}

fn accepts(rule: &Rule) -> bool {
    matches!(rule.0.last(), Some(Statement::Verdict(Verdict::Accept)))
}

fn zones(rule: &Rule) -> bool {
    rule.0.iter().any(|statement| matches!(statement, Statement::ZoneBy { .. }))
}

/// Chains that packets come to: from hooks by rules, and by the elements of maps.
fn reached(table: &Table) -> BTreeSet<String> {
    let based = table.chains.iter().filter(|(_, chain)| chain.hook.is_some());
    let mut found: BTreeSet<String> = based.map(|(name, _)| name.clone()).collect();
    loop {
        let rules = found.iter().flat_map(|name| &table.chains[name].rules);
        let mut next = found.clone();
        for statement in rules.flat_map(|rule| &rule.0) {
            let mut verdicts: Vec<&Verdict> = Vec::new();
            if let Statement::Verdict(verdict) = statement {
                verdicts.push(verdict);
            }
            if let Statement::VerdictMap { map, .. } = statement {
                let data = table.sets[map].elements.values();
                verdicts.extend(data.filter_map(|datum| {
                    if let Datum::Verdict(verdict) = datum { Some(verdict) } else { None }
                }));
            }
            next.extend(verdicts.into_iter().filter_map(|verdict| match verdict {
                Verdict::Goto(chain) | Verdict::Jump(chain) => Some(chain.clone()),
                Verdict::Accept | Verdict::Drop | Verdict::Return => None,
            }));
        }
        if next == found {
            return found;
        }
        found = next;
    }
}

/// Rules that refuse or assign, taken away; conditions of rules that let in, taken away.
fn of_rules(world: &World) -> Vec<Mutant> {
    let mut all = Vec::new();
    for (&family, table_now) in &world.rules.tables {
        let reached = reached(table_now);
        let empty = |rule: &Rule| {
            rule.0.iter().any(|statement| {
                let Statement::ZoneBy { map, .. } = statement else { return false };
                table_now.sets[map].elements.is_empty()
            })
        };
        for (name, chain) in table_now.chains.iter().filter(|(name, _)| reached.contains(*name)) {
            for (at, rule) in chain.rules.iter().enumerate().filter(|(_, rule)| !empty(rule)) {
                let said = format!("{} {name} {at} `{rule}`", family.word());
                if refuses(table_now, rule) || zones(rule) {
                    let change = edit_rule(family, name, move |rules| drop(rules.remove(at)));
                    all.push(mutant(format!("rule removed: {said}"), change));
                }
                if accepts(rule) || zones(rule) {
                    for (part, statement) in rule.0.iter().enumerate() {
                        let widens =
                            matches!(statement, Statement::Match { .. } | Statement::Limit(_));
                        if widens {
                            let change = edit_rule(family, name, move |rules| {
                                rules[at].0.remove(part);
                            });
                            all.push(mutant(format!("condition {part} removed: {said}"), change));
                        }
                    }
                }
            }
            all.extend(of_chain(family, name, chain));
        }
        let change = move |world: &mut World| drop(world.rules.tables.remove(&family));
        all.push(mutant(format!("table removed: {}", family.word()), change));
    }
    all
}

fn of_chain(family: Family, name: &str, chain: &Chain) -> Vec<Mutant> {
    let Some(hook) = chain.hook else { return Vec::new() };
    let mut all = Vec::new();
    let judges = |rule: &Rule| {
        rule.0.iter().any(|statement| {
            matches!(
                statement,
                Statement::Verdict(_) | Statement::VerdictMap { .. } | Statement::ZoneBy { .. }
            )
        })
    };
    let chain_name = name.to_owned();
    if chain.rules.iter().any(judges) {
        let name = chain_name.clone();
        let change = move |world: &mut World| drop(table(world, family).chains.remove(&name));
        all.push(mutant(format!("chain removed: {} {chain_name}", family.word()), change));
    }
    if !hook.accepts {
        let name = chain_name.clone();
        let change = move |world: &mut World| {
            let chain = table(world, family).chains.get_mut(&name).unwrap();
            chain.hook.as_mut().unwrap().accepts = true;
        };
        all.push(mutant(format!("policy accept: {} {chain_name}", family.word()), change));
    }
    all
}

/// The tenant that a link's name in an element is of.
fn owners(world: &World) -> BTreeMap<String, String> {
    let desired = &world.desired;
    let mut owners = BTreeMap::new();
    for id in desired.networks.keys() {
        for role in [Role::Bridge, Role::Vxlan, Role::Vlan] {
            owners.insert(LinkName::of_network(role, id).to_string(), id.tenant.to_string());
        }
        owners.insert(LinkName::of_vrf(&id.tenant).to_string(), id.tenant.to_string());
    }
    for id in desired.ports.keys() {
        let name = LinkName::of_port(Role::Port, id).to_string();
        owners.insert(name, id.lease.tenant.to_string());
    }
    owners
}

/// Sets whose members are let in: another tenant's member for each. Maps: other data.
fn of_elements(world: &World) -> Vec<Mutant> {
    let owners = owners(world);
    let mut all = Vec::new();
    for (&family, table_now) in &world.rules.tables {
        for (name, set) in &table_now.sets {
            for (key, datum) in &set.elements {
                let said = format!("{} {name} {key:?}", family.word());
                let put = |key: Vec<Atom>, datum: Datum| {
                    let name = name.clone();
                    move |world: &mut World| {
                        let set = table(world, family).sets.get_mut(&name).unwrap();
                        set.elements.insert(key.clone(), datum.clone());
                    }
                };
                let take = || {
                    let (name, key) = (name.clone(), key.clone());
                    move |world: &mut World| {
                        let set = table(world, family).sets.get_mut(&name).unwrap();
                        set.elements.remove(&key).unwrap();
                    }
                };
                match datum {
                    Datum::Zone(_) => {
                        all.push(mutant(format!("zone removed: {said}"), take()));
                        all.push(mutant(
                            format!("zone 9: {said}"),
                            put(key.clone(), Datum::Zone(9)),
                        ));
                    }
                    Datum::Verdict(Verdict::Goto(_)) => {
                        let accept = Datum::Verdict(Verdict::Accept);
                        all.push(mutant(format!("accepted: {said}"), put(key.clone(), accept)));
                    }
                    Datum::Member if name.starts_with("closed") => {
                        all.push(mutant(format!("opened: {said}"), take()));
                    }
                    Datum::Member if name.starts_with("tunnel_ends") => {
                        let kind = set.key[0];
                        let key = vec![Atom::Span(0, kind.largest())];
                        all.push(mutant(format!("widened: {said}"), put(key, Datum::Member)));
                    }
                    Datum::Member | Datum::Verdict(_) | Datum::Counter(_) | Datum::Mark(_) => {}
                }
                if set.data == DataKind::Member && set.key.len() > 1 {
                    if let Some(wide) = widened(key, &set.key) {
                        let name = format!("widened: {} {name} {key:?}", family.word());
                        all.push(mutant(name, put(wide, Datum::Member)));
                    }
                    if let Some(other) = crossed(key, set.elements.keys(), &owners) {
                        let name = format!("another's: {} {name} {other:?}", family.word());
                        all.push(mutant(name, put(other, Datum::Member)));
                    }
                }
            }
            if name == "paths" {
                all.extend(crossed_paths(family, world, &owners));
            }
        }
    }
    all
}

/// The key with everything in its last place.
fn widened(key: &[Atom], kinds: &[Kind]) -> Option<Vec<Atom>> {
    let mut wide = key.to_vec();
    *wide.last_mut()? = Atom::Span(0, kinds.last()?.largest());
    (wide != key).then_some(wide)
}

/// The key with the link of one other tenant in its first place.
fn crossed<'a>(
    key: &[Atom],
    all: impl Iterator<Item = &'a Vec<Atom>>,
    owners: &BTreeMap<String, String>,
) -> Option<Vec<Atom>> {
    let owner = |key: &[Atom]| match &key[0] {
        Atom::Name(name) => owners.get(name),
        Atom::Span(..) => None,
    };
    let present: BTreeSet<&Vec<Atom>> = all.collect();
    let other = present.iter().find(|other| owner(other) != owner(key))?;
    let mut crossed = key.to_vec();
    crossed[0] = other[0].clone();
    // From a link to itself nothing goes.
    (!present.contains(&crossed) && crossed[0] != crossed[1]).then_some(crossed)
}

/// A way between each two links of two tenants that have none.
fn crossed_paths(family: Family, world: &World, owners: &BTreeMap<String, String>) -> Vec<Mutant> {
    let first = if family == Family::Bridge { ["bp", "bx"] } else { ["bb", "bv"] };
    let names: Vec<&String> =
        owners.keys().filter(|name| first.iter().any(|first| name.starts_with(first))).collect();
    let names =
        names.into_iter().filter(|name| world.observed.link(&name.parse().unwrap()).is_some());
    let names: Vec<String> = names.cloned().collect();
    let mut all = Vec::new();
    for from in &names {
        for to in names.iter().filter(|to| owners[*to] != owners[from]) {
            if to.starts_with("bv") {
                continue;
            }
            let key = vec![Atom::Name(from.clone()), Atom::Name(to.clone())];
            let change = move |world: &mut World| {
                let paths = table(world, family).sets.get_mut("paths").unwrap();
                paths.elements.insert(key.clone(), Datum::Verdict(Verdict::Accept));
            };
            all.push(mutant(format!("path: {} {from} to {to}", family.word()), change));
        }
    }
    all
}

fn link_change(
    said: &str,
    name: &LinkName,
    change: impl Fn(&mut crate::model::ObservedLink, &World) + 'static,
) -> Mutant {
    let link_name = name.clone();
    mutant(format!("{said}: {name}"), move |world| {
        let before = world.clone();
        change(super::world::link_mut(&mut world.observed, &link_name), &before);
    })
}

/// Switches of ports, groups, masters, VNIs.
fn of_links(world: &World) -> Vec<Mutant> {
    let owners = owners(world);
    let mut all = Vec::new();
    let bridges: Vec<_> =
        world.observed.links.values().filter(|l| l.name.as_str().starts_with("bb")).collect();
    for link in world.observed.links.values() {
        let Some(owner) = owners.get(link.name.as_str()) else { continue };
        all.push(link_change("group 0", &link.name, |link, _| link.group = 0));
        all.push(link_change("group of another", &link.name, |link, world| {
            let other = world
                .observed
                .links
                .values()
                .find(|other| other.group != link.group && other.group > 0);
            link.group = other.unwrap().group;
        }));
        if let Some(switches) = link.port {
            if switches.isolated {
                all.push(link_change("isolation off", &link.name, |link, _| {
                    link.port.as_mut().unwrap().isolated = false;
                }));
            }
            if switches.locked {
                all.push(link_change("lock off", &link.name, |link, _| {
                    link.port.as_mut().unwrap().locked = false;
                }));
            }
            if !switches.learning {
                all.push(link_change("learning on", &link.name, |link, _| {
                    link.port.as_mut().unwrap().learning = true;
                }));
            }
            if !switches.flood {
                all.push(link_change("flood on", &link.name, |link, _| {
                    link.port.as_mut().unwrap().flood = true;
                }));
            }
            for bridge in bridges.iter().filter(|bridge| owners[bridge.name.as_str()] != *owner) {
                let index = bridge.index;
                let said = format!("moved to {}", bridge.name);
                all.push(link_change(&said, &link.name, move |link, _| {
                    link.master.as_mut().unwrap().index = index;
                }));
            }
        } else if link.master.is_some() {
            all.push(link_change("VRF left", &link.name, |link, _| link.master = None));
        }
        if let ObservedKind::Known(LinkKind::Vxlan { vni, .. }) = &link.kind {
            let vni = *vni;
            for other in world.observed.links.values() {
                let ObservedKind::Known(kind @ LinkKind::Vxlan { vni: theirs, .. }) = &other.kind
                else {
                    continue;
                };
                if *theirs != vni && owners[other.name.as_str()] != *owner {
                    let kind = kind.clone();
                    all.push(link_change(&format!("VNI {theirs}"), &link.name, move |link, _| {
                        link.kind = ObservedKind::Known(kind.clone());
                    }));
                }
            }
        }
        if let ObservedKind::Known(LinkKind::Vrf { table }) = link.kind {
            for other in world.observed.links.values() {
                let ObservedKind::Known(LinkKind::Vrf { table: theirs }) = other.kind else {
                    continue;
                };
                if theirs != table {
                    let change = format!("table {theirs} of another tenant");
                    all.push(link_change(&change, &link.name, move |link, _| {
                        link.kind = ObservedKind::Known(LinkKind::Vrf { table: theirs });
                    }));
                }
            }
        }
    }
    all
}

/// Routes, rules and entries.
fn of_routes(world: &World) -> Vec<Mutant> {
    let mut all = Vec::new();
    let observed = &world.observed;
    for rule in &observed.rules {
        if let Selector::Iif(_) = rule.selector {
            let gone = rule.clone();
            all.push(mutant(format!("removed: {rule}"), move |world| {
                world.observed.rules.remove(&gone);
            }));
            // In a table that nobody has, it would only be cut off.
            let by_link = |rule: &&crate::model::Rule| matches!(rule.selector, Selector::Iif(_));
            let tables = observed.rules.iter().filter(by_link).map(|rule| rule.table);
            let tables: BTreeSet<u32> = tables.filter(|table| *table != rule.table).collect();
            for table in tables {
                let gone = rule.clone();
                all.push(mutant(format!("to another's table, {table}: {rule}"), move |world| {
                    let mut moved = world.observed.rules.take(&gone).unwrap();
                    moved.table = table;
                    world.observed.rules.insert(moved);
                }));
            }
        }
    }
    let tables: BTreeSet<u32> = observed.routes.iter().map(|route| route.table).collect();
    for route in &observed.routes {
        match &route.kind {
            RouteKind::Unreachable => {
                let gone = route.clone();
                all.push(mutant(format!("removed: {route}"), move |world| {
                    world.observed.routes.remove(&gone);
                }));
            }
            RouteKind::Link { .. } => {
                for &table in &tables {
                    let mut leak = route.clone();
                    leak.table = table;
                    if !observed.routes.contains(&leak) {
                        all.push(mutant(format!("leak: {leak}"), move |world| {
                            world.observed.routes.insert(leak.clone());
                        }));
                    }
                }
            }
            RouteKind::Throw => {}
        }
    }
    for entry in &observed.neighbours {
        let mut wrong = entry.clone();
        match &mut wrong {
            Neighbour::Station { mac, .. } | Neighbour::Address { mac, .. } => {
                *mac = sample::mac(77, 7, 7);
            }
            Neighbour::Remote { remote, .. } => *remote = [198, 51, 100, 7].into(),
        }
        all.push(mutant(format!("entry: {wrong}"), move |world| {
            world.observed.neighbours.insert(wrong.clone());
        }));
    }
    all
}

fn survivors(worlds: &Worlds, mutants: &[Mutant]) -> Vec<String> {
    let survives = |mutant: &&Mutant| {
        let mut changed = worlds.clone();
        (mutant.change)(changed.get_mut("h1").unwrap());
        prove(&site(&changed)).is_empty()
    };
    mutants.iter().filter(survives).map(|mutant| mutant.name.clone()).collect()
}

fn every_one_is_found(of: fn(&World) -> Vec<Mutant>, networks: u16, at_least: usize) {
    for vrfs in [true, false] {
        let worlds = host_of(vrfs, networks);
        assert!(prove(&site(&worlds)).is_empty());
        let mutants = of(&worlds["h1"]);
        let left = survivors(&worlds, &mutants);
        assert!(
            left.is_empty(),
            "{} of {} survive:\n{}",
            left.len(),
            mutants.len(),
            left.join("\n")
        );
        assert!(mutants.len() >= at_least, "only {} mutants", mutants.len());
        println!("{} mutants found", mutants.len());
    }
}

#[test]
fn every_rule_that_guards_is_missed_when_it_is_gone() {
    every_one_is_found(of_rules, 2, 60);
}

#[test]
fn every_element_that_lets_another_in_is_noticed() {
    every_one_is_found(of_elements, 1, 100);
}

#[test]
fn every_switch_and_place_of_a_link_is_missed_when_it_changes() {
    every_one_is_found(of_links, 1, 50);
}

#[test]
fn every_route_rule_and_entry_that_leads_astray_is_noticed() {
    every_one_is_found(of_routes, 2, 40);
}

#[test]
fn what_cannot_be_read_is_no_isolation() {
    let mut worlds = one_host(false);
    let world = worlds.get_mut("h1").unwrap();
    world.observed.unreadable.push(crate::model::Unreadable {
        object: "link 7".to_owned(),
        reason: "truncated".to_owned(),
    });
    assert!(!prove(&site(&worlds)).is_empty());
}

#[test]
fn one_vni_for_two_tenants_on_two_hosts_is_named_hop_by_hop() {
    let mut worlds = two_hosts(false);
    for (host, tenant) in [("h1", 1), ("h2", 3)] {
        let name = LinkName::of_network(Role::Vxlan, &sample::id(tenant, 1));
        let observed = &mut worlds.get_mut(host).unwrap().observed;
        let link = super::world::link_mut(observed, &name);
        let ObservedKind::Known(LinkKind::Vxlan { vni, .. }) = &mut link.kind else { panic!() };
        *vni = 999.try_into().unwrap();
    }
    let found = prove(&site(&worlds));
    let said: Vec<String> = found.iter().map(ToString::to_string).collect();
    let hops = said.iter().find(|said| said.contains("VNI 999") && said.contains("h2:"));
    assert!(hops.is_some(), "{}", said.join("\n"));
}

prop_compose! {
    fn random_world()(
        tenants in 2_u16..4,
        networks in 1_u16..3,
        ports in 1_u16..3,
        vrfs in any::<bool>(),
        talk in any::<bool>(),
        peers in any::<bool>(),
        deny in any::<bool>(),
    ) -> World {
        let mut desired = sample::desired(tenants, networks, ports);
        for network in desired.networks.values_mut() {
            network.ports_talk = talk;
            if deny {
                network.egress = bulkhead_api::network::Egress::Deny;
            }
        }
        if peers {
            let (one, two) = (sample::id(1, 1), sample::id(2, 1));
            desired.networks.get_mut(&one).unwrap().peers.insert(two.clone());
            desired.networks.get_mut(&two).unwrap().peers.insert(one);
        }
        let access = crate::firewall::Access { vrfs, ..sample::access() };
        good(desired, access)
    }
}

/// Where nobody has egress, nothing is closed or opened by these sets.
fn means_something(world: &World, mutant: &Mutant) -> bool {
    let all =
        world.desired.networks.values().any(|net| net.egress == bulkhead_api::network::Egress::All);
    all || !mutant.name.contains("closed")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn random_sites_are_apart_until_a_guard_is_gone(
        world in random_world(),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 6),
    ) {
        let worlds = Worlds::from([("h1".to_owned(), world)]);
        let found = prove(&site(&worlds));
        prop_assert!(found.is_empty(), "{}", found[0]);
        let world = &worlds["h1"];
        let mut mutants = [of_rules, of_elements, of_links, of_routes].iter().flat_map(|of| of(world)).collect::<Vec<_>>();
        mutants.retain(|mutant| means_something(world, mutant));
        for pick in picks {
            let mutant = pick.get(&mutants);
            let left = survivors(&worlds, std::slice::from_ref(mutant));
            prop_assert!(left.is_empty(), "survives: {}", mutant.name);
        }
    }
}

/// A rule that names no link by a set is a rule for all: the walk must not take one for nothing.
#[test]
fn a_rule_that_asks_for_nothing_lets_everything_in() {
    let mut worlds = one_host(false);
    let world = worlds.get_mut("h1").unwrap();
    let rules = &mut table(world, Family::Inet).chains.get_mut("between").unwrap().rules;
    rules.insert(0, Rule(vec![Statement::Verdict(Verdict::Accept)]));
    let found = prove(&site(&worlds));
    assert!(found.iter().any(|violation| violation.class == super::Class::Forward));
}
