//! What comes to the host itself: policy drop, and these exceptions.

use super::access::{Access, Traffic};
use super::compile::{
    Builder, addresses, among, branch, count_by, ip_number, is, is_in, look_up, then,
};
use super::inet::{FAMILIES, destination, source};
use super::ruleset::{Field, Kind, Limit, Ranges, Rule, Statement, Values, Verdict, number};
use crate::model::Desired;

/// How often neighbours may be asked for: by one tenant, and by the site.
const NEIGHBOUR_LIMIT: Limit = Limit { packets_a_second: 200, burst: 400 };

/// First of the ICMPv6 types of neighbour discovery but redirect: router solicitation (RFC 4861, 4.1).
const ROUTER_SOLICITATION: u128 = 133;

/// Port of DHCPv6 clients.
const DHCP6_CLIENT: u128 = 546;

/// The chain of the hook.
pub(super) fn to_host(build: &Builder, desired: &Desired, access: &Access) -> Vec<Rule> {
    let has_ends = |suffix: &str| {
        let ends = build.table.sets.get(&format!("tunnel_ends{suffix}"));
        ends.is_some_and(|ends| !ends.elements.is_empty())
    };
    let accept = Verdict::Accept;
    let from_site = || among(&[Field::InLink], "uplinks");
    let udp = || is(Field::Protocol, [number::UDP]);
    let itself = Statement::Match {
        fields: vec![Field::InLink],
        negated: false,
        values: Values::Names(["lo".to_owned()].into()),
    };
    let answers = is(Field::CtState, [number::ESTABLISHED, number::RELATED]);
    let mut rules = vec![
        then([itself], accept.clone()),
        look_up(&[Field::InLink], "tenant_links"),
        then([from_site(), answers], accept.clone()),
    ];
    if let Some(vxlan) = &desired.underlay.vxlan {
        for (v4, suffix) in FAMILIES {
            if !has_ends(suffix) {
                continue;
            }
            let ends = among(&[source(v4)], &format!("tunnel_ends{suffix}"));
            let port = is(Field::DestinationPort, [vxlan.port.into()]);
            rules.push(then([from_site(), ends, udp(), port], accept.clone()));
        }
    }
    // Answers of DHCP come to an address that the host does not have yet: conntrack knows no flow of theirs.
    for (v4, server, client) in [
        (true, number::DHCP_SERVER, number::DHCP_CLIENT),
        (false, number::DHCP6_SERVER, DHCP6_CLIENT),
    ] {
        let from_server = is(Field::SourcePort, [server]);
        let to_client = is(Field::DestinationPort, [client]);
        let any = Ranges::span(0, source(v4).kind().largest());
        let family = is_in(source(v4), any);
        rules.push(then([from_site(), family, udp(), from_server, to_client], accept.clone()));
    }
    let kinds = Ranges::span(ROUTER_SOLICITATION, number::NEIGHBOUR_ADVERTISEMENT);
    let neighbours = is_in(Field::Icmp6Type, kinds);
    rules.push(then([from_site(), neighbours, Statement::Limit(NEIGHBOUR_LIMIT)], accept.clone()));
    for service in &access.uplink_services {
        for (v4, _) in FAMILIES {
            let from = addresses(service.from.iter().copied(), v4);
            if !from.is_empty() {
                let mut rule = vec![from_site(), is_in(source(v4), from)];
                rule.extend(asked(service.traffic, v4));
                rule.push(Statement::Verdict(accept.clone()));
                rules.push(Rule(rule));
            }
        }
    }
    rules
}

/// Chain `asking`: what a tenant may ask of the host. Each thing has two rules: what is over its rate goes, the rest is
/// let in. The rate is that of the link that the tenant's packets come in by.
pub(super) fn asking(build: &mut Builder, access: &Access) {
    let kinds = [number::NEIGHBOUR_SOLICITATION, number::NEIGHBOUR_ADVERTISEMENT];
    let mut rules = Vec::new();
    let mut ask = |rate: String, limit: Limit, of: Vec<Statement>| {
        let above = Statement::Above { fields: vec![Field::InLink], set: rate.clone(), limit };
        let over = [of.clone(), vec![above, Statement::Verdict(Verdict::Drop)]].concat();
        rules.push(Rule(over));
        rules.push(Rule([of, vec![Statement::Verdict(Verdict::Accept)]].concat()));
        build.rates(&rate, &[Kind::Link]);
    };
    ask("rates_neighbours".to_owned(), NEIGHBOUR_LIMIT, vec![is(Field::Icmp6Type, kinds)]);
    for (at, service) in access.services.iter().enumerate() {
        for (v4, suffix) in FAMILIES {
            let asked = || asked(service.traffic, v4);
            let at_gateway = among(&[Field::InLink, destination(v4)], &format!("gateways{suffix}"));
            let rate = format!("rates_{at}_{suffix}");
            ask(rate, service.limit, [vec![at_gateway], asked()].concat());
            let own = service.addresses.iter().filter(|ip| ip.is_ipv4() == v4);
            let own: Vec<u128> = own.map(|ip| ip_number(*ip)).collect();
            if !own.is_empty() {
                let rate = format!("rates_{at}_{suffix}_own");
                ask(rate, service.limit, [vec![is(destination(v4), own)], asked()].concat());
            }
        }
    }
    rules.push(Rule(vec![count_by(Field::InLink, "refused")]));
    build.chain("asking", branch(rules));
}

/// The packets by which something is asked.
fn asked(traffic: Traffic, v4: bool) -> Vec<Statement> {
    let to = |protocol, port: u16| {
        vec![is(Field::Protocol, [protocol]), is(Field::DestinationPort, [port.into()])]
    };
    match traffic {
        Traffic::Udp(port) => to(number::UDP, port),
        Traffic::Tcp(port) => to(number::TCP, port),
        Traffic::Echo if v4 => vec![is(Field::Icmp4Type, [number::ECHO_REQUEST])],
        Traffic::Echo => vec![is(Field::Icmp6Type, [number::ECHO_REQUEST6])],
    }
}
