use proptest::prelude::*;

use super::*;
use crate::testing::{Kit, desired, recipe};

proptest! {
    /// Links of two tenants have nothing in common but a table's way to an agreed peer.
    #[test]
    fn nothing_of_one_tenant_is_part_of_another(recipe in recipe(Kit::All)) {
        let desired = desired(&recipe);
        for routing in [Routing::Vrf, Routing::Rules] {
            let target = merge(&desired, routing);
            for (name, link) in &target.links {
                if let Some(master) = &link.master {
                    prop_assert_eq!(target.links[master].group, link.group, "{} in {}", name, master);
                }
            }
            let allowed = |table: u32, group: u32| {
                table == group || desired.peerings().iter().any(|peering| {
                    let tables = [peering.first, peering.second]
                        .map(|id| desired.tenants[&id.tenant].table());
                    tables == [table, group] || tables == [group, table]
                })
            };
            for route in &target.routes {
                if let RouteKind::Link { link, .. } = &route.kind {
                    prop_assert!(allowed(route.table, target.links[link].group), "{}", route);
                }
            }
            for rule in &target.rules {
                if let Selector::Iif(link) = &rule.selector {
                    prop_assert_eq!(rule.table, target.links[link].group, "{}", rule);
                }
            }
        }
    }

    /// Without it a packet that no route fits would be judged by the host's own table.
    #[test]
    fn every_table_ends_in_a_route_for_all(recipe in recipe(Kit::All)) {
        let desired = desired(&recipe);
        let target = merge(&desired, Routing::Rules);
        for rule in &target.rules {
            let last = target.routes.iter().any(|route| {
                route.table == rule.table
                    && route.prefix.length() == 0
                    && Family::of(route.prefix.address()) == rule.family
                    && route.metric == LAST_METRIC
            });
            prop_assert!(last, "{}", rule);
        }
        for id in desired.networks.keys() {
            let bridge = Selector::Iif(LinkName::of_network(Role::Bridge, id));
            let rules = target.rules.iter().filter(|rule| rule.selector == bridge);
            prop_assert_eq!(rules.count(), 2, "a family of {} finds no table", id);
        }
    }
}

#[test]
fn a_vf_is_no_port_of_a_bridge() {
    let text = r#"{"tenants":{"acme":7},"underlay":{"uplink":{"members":["up0"],"mtu":1500}},
        "networks":[[{"tenant":"acme","name":"a"},{"segment":{"vlan":7},"mtu":1400}]],
        "ports":[[{"lease":{"tenant":"acme","name":"l"},"network":"a"},{"kind":"vf","mac":"02:00:00:00:00:01"}]]}"#;
    let target = merge(&serde_json::from_str(text).unwrap(), Routing::Vrf);
    let kinds: Vec<_> = target.links.values().map(|link| link.kind.name()).collect();
    assert_eq!(kinds, ["bridge", "vlan", "vrf"]);
    assert!(target.neighbours.is_empty());
}
