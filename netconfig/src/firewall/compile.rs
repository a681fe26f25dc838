//! The ruleset of a desired state.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bulkhead_api::id::{MacAddr, TenantName};
use bulkhead_api::network::{IpPrefix, NetworkId};

use super::access::Access;
use super::check::{Checked, Refusal, check};
use super::ruleset::{
    Atom, Chain, DataKind, Datum, Family, Field, Hook, HookPoint, Kind, Ranges, Rule, Ruleset, Set,
    Shape, Statement, Table, Values, Verdict,
};
use super::{bridge, inet};
use crate::model::{Desired, GROUP_LAST, LinkName, Network, Role, Segment, UNDERLAY_GROUP};

/// The firewall of a desired state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// Our tables.
    pub ruleset: Ruleset,
    /// What they leave out, because it cannot be.
    pub refused: Vec<Refusal>,
}

/// Our tables for a desired state. The same state gives the same ruleset.
#[must_use]
pub fn compile(desired: &Desired, access: &Access) -> Compiled {
    let Checked { desired, access, refused } = check(desired, access);
    let mut ruleset = Ruleset::default();
    ruleset.tables.insert(Family::Bridge, bridge::table(&desired));
    ruleset.tables.insert(Family::Inet, inet::table(&desired, &access));
    Compiled { ruleset, refused }
}

/// The link by which a network leaves the host.
pub(super) fn fabric(id: &NetworkId, network: &Network) -> LinkName {
    let role = match network.segment {
        Segment::Vlan(_) => Role::Vlan,
        Segment::Vni(_) => Role::Vxlan,
    };
    LinkName::of_network(role, id)
}

/// Names of a tenant's chains and counters: `what/tenant`.
pub(super) fn of_tenant(what: &str, tenant: &TenantName) -> String {
    format!("{what}/{tenant}")
}

/// Matches links of any tenant, known or not.
pub(super) fn of_any_tenant(field: Field) -> Statement {
    let groups = Ranges::span(u128::from(UNDERLAY_GROUP) + 1, u128::from(GROUP_LAST));
    Statement::Match { fields: vec![field], negated: false, values: Values::Numbers(groups) }
}

pub(super) fn among(fields: &[Field], set: &str) -> Statement {
    Statement::Match {
        fields: fields.to_vec(),
        negated: false,
        values: Values::Set(set.to_owned()),
    }
}

pub(super) fn not_among(fields: &[Field], set: &str) -> Statement {
    Statement::Match { fields: fields.to_vec(), negated: true, values: Values::Set(set.to_owned()) }
}

pub(super) fn is(field: Field, numbers: impl IntoIterator<Item = u128>) -> Statement {
    let numbers = numbers.into_iter().map(|number| (number, number)).collect();
    is_in(field, numbers)
}

pub(super) fn is_in(field: Field, numbers: Ranges) -> Statement {
    Statement::Match { fields: vec![field], negated: false, values: Values::Numbers(numbers) }
}

pub(super) fn count_by(field: Field, map: &str) -> Statement {
    Statement::CountBy { fields: vec![field], map: map.to_owned() }
}

pub(super) fn look_up(fields: &[Field], map: &str) -> Rule {
    Rule(vec![Statement::VerdictMap { fields: fields.to_vec(), map: map.to_owned() }])
}

pub(super) fn then<const N: usize>(statements: [Statement; N], verdict: Verdict) -> Rule {
    let mut rule = Vec::from(statements);
    rule.push(Statement::Verdict(verdict));
    Rule(rule)
}

/// A chain with a hook. What comes to its end passes if it `accepts`.
pub(super) fn base(point: HookPoint, priority: i32, accepts: bool, rules: Vec<Rule>) -> Chain {
    Chain { hook: Some(Hook { point, priority, accepts }), rules }
}

pub(super) fn branch(rules: Vec<Rule>) -> Chain {
    Chain { hook: None, rules }
}

pub(super) fn link(name: &LinkName) -> Atom {
    Atom::Name(name.as_str().to_owned())
}

pub(super) fn mac(mac: MacAddr) -> Atom {
    let number = mac_number(mac);
    Atom::Span(number, number)
}

pub(super) fn mac_number(mac: MacAddr) -> u128 {
    mac.octets().iter().fold(0, |number, octet| number << 8 | u128::from(*octet))
}

pub(super) fn ip_number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

/// The addresses of one family in some prefixes.
pub(super) fn addresses(prefixes: impl IntoIterator<Item = IpPrefix>, v4: bool) -> Ranges {
    let own = prefixes.into_iter().filter(|prefix| prefix.address().is_ipv4() == v4);
    own.map(|prefix| (ip_number(prefix.address()), ip_number(prefix.last()))).collect()
}

/// The link-local address that is made of a hardware address (RFC 4291, appendix A).
pub(super) fn link_local(mac: MacAddr) -> u128 {
    let [a, b, c, d, e, f] = mac.octets();
    let id = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    0xfe80_u128 << 112 | u128::from(id)
}

/// Sets of a table while it is being made.
#[derive(Debug, Default)]
pub(super) struct Builder {
    pub(super) table: Table,
}

impl Builder {
    pub(super) fn set(&mut self, name: &str, key: &[Kind], data: DataKind) {
        self.declare(name, key, data, Shape::Exact);
    }

    pub(super) fn interval_set(&mut self, name: &str, key: &[Kind], data: DataKind) {
        self.declare(name, key, data, Shape::Interval);
    }

    pub(super) fn rates(&mut self, name: &str, key: &[Kind]) {
        self.declare(name, key, DataKind::Member, Shape::Rates);
    }

    fn declare(&mut self, name: &str, key: &[Kind], data: DataKind, shape: Shape) {
        let set = Set { key: key.to_vec(), data, shape, elements: BTreeMap::new() };
        self.table.sets.insert(name.to_owned(), set);
    }

    pub(super) fn member<const N: usize>(&mut self, set: &str, key: [Atom; N]) {
        self.element(set, key, Datum::Member);
    }

    pub(super) fn element<const N: usize>(&mut self, set: &str, key: [Atom; N], datum: Datum) {
        if let Some(set) = self.table.sets.get_mut(set) {
            set.elements.insert(Vec::from(key), datum);
        }
    }

    pub(super) fn chain(&mut self, name: &str, chain: Chain) {
        self.table.chains.insert(name.to_owned(), chain);
    }

    /// A counter of each tenant of `tenants`.
    pub(super) fn counters<'a>(
        &mut self,
        what: &str,
        tenants: impl IntoIterator<Item = &'a TenantName>,
    ) {
        self.table.counters.extend(tenants.into_iter().map(|tenant| of_tenant(what, tenant)));
    }
}

/// Tenants that have a network here.
pub(super) fn tenants(desired: &Desired) -> BTreeSet<&TenantName> {
    desired.networks.keys().map(|id| &id.tenant).collect()
}
