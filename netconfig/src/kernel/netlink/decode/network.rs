//! Addresses, routes, rules and neighbours (rtnetlink(7); linux/{if_addr,rtnetlink,fib_rules,neighbour}.h).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bulkhead_api::id::MacAddr;
use bulkhead_api::network::IpPrefix;

use super::super::attribute::{byte, each, short, text, word};
use super::link::{RawLinks, missing};
use super::{Names, unreadable};
use crate::model::{
    Address, Family, Neighbour, Observed, PROTOCOL, Route, RouteKind, Rule, Selector, is_ours,
};

const AF_INET: u8 = 2;
const AF_BRIDGE: u8 = 7;
const AF_INET6: u8 = 10;

const RT_TABLE_MAIN: u32 = 254;
const RTM_F_CLONED: u32 = 0x200;

fn ip(family: u8, value: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => Some(IpAddr::V4(Ipv4Addr::from(*value.first_chunk::<4>()?))),
        AF_INET6 => Some(IpAddr::V6(Ipv6Addr::from(*value.first_chunk::<16>()?))),
        _ => None,
    }
}

/// `struct ifaddrmsg`: family, length, flags, scope, index.
pub(super) fn address(payload: &[u8], names: &Names, _: &RawLinks, to: &mut Observed) {
    let header = payload.first_chunk::<8>();
    let Some([family, length, _, _, index @ ..]) = header else {
        return unreadable(to, "address", "its header is cut short");
    };
    let index = u32::from_ne_bytes(*index);
    let (mut local, mut other) = (None, None);
    for (kind, value) in each(payload.get(8..).unwrap_or_default()) {
        match kind {
            1 => other = ip(*family, value),
            2 => local = ip(*family, value),
            _ => {}
        }
    }
    let Some(ip) = local.or(other) else {
        return unreadable(to, format!("address of link {index}"), "there is no address in it");
    };
    if matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local()) {
        return;
    }
    match names.get(&index) {
        Some(link) => {
            to.addresses.insert(Address { link: link.clone(), ip, length: *length });
        }
        None => missing(to, &format!("address {ip}"), index),
    }
}

/// `struct rtmsg`: family, length of destination and source, tos, table, protocol, scope, type, flags.
pub(super) fn route(payload: &[u8], names: &Names, _: &RawLinks, to: &mut Observed) {
    let Some([family, length, _, _, table, protocol, _, kind, flags @ ..]) =
        payload.first_chunk::<12>()
    else {
        return unreadable(to, "route", "its header is cut short");
    };
    if u32::from_ne_bytes(*flags) & RTM_F_CLONED != 0 {
        return;
    }
    let mut found = FoundRoute { table: u32::from(*table), ..FoundRoute::default() };
    for (number, value) in each(payload.get(12..).unwrap_or_default()) {
        match number {
            1 => found.destination = ip(*family, value),
            4 => found.link = word(value),
            5 => found.via = ip(*family, value),
            6 => {
                let Some(metric) = word(value) else {
                    return unreadable(to, "route", "its metric is cut short");
                };
                found.metric = metric;
            }
            9 => found.hops = hops(*family, value),
            15 => {
                let Some(table) = word(value) else {
                    return unreadable(to, "route", "its table is cut short");
                };
                found.table = table;
            }
            18 => {
                found.via =
                    value.get(2..).and_then(|rest| ip(u8::try_from(short(value)?).ok()?, rest))
            }
            _ => {}
        }
    }
    let ours = is_ours(found.table);
    if !ours && found.table != RT_TABLE_MAIN {
        return;
    }
    let any = if *family == AF_INET { IpPrefix::ALL_V4 } else { IpPrefix::ALL_V6 };
    let prefix = match found.destination {
        Some(destination) => IpPrefix::around(destination, *length),
        None if *length == 0 => any,
        None => {
            let object = format!("route in table {}", found.table);
            return unreadable(to, object, "there is no destination in it");
        }
    };
    let made_by_us = ours && *protocol == PROTOCOL;
    for kind in found.kinds(*kind, names) {
        let Some(kind) = kind else {
            let object = format!("route to {prefix} in table {}", found.table);
            unreadable(to, object, "it leads to a link that could not be read");
            continue;
        };
        let route = Route { table: found.table, prefix, metric: found.metric, kind };
        let set = if made_by_us { &mut to.routes } else { &mut to.foreign_routes };
        set.insert(route);
    }
}

#[derive(Default)]
struct FoundRoute {
    table: u32,
    destination: Option<IpAddr>,
    link: Option<u32>,
    via: Option<IpAddr>,
    metric: u32,
    hops: Vec<(u32, Option<IpAddr>)>,
}

impl FoundRoute {
    /// One for each next hop; none for kinds of routes that carry nothing onward (local, broadcast, multicast).
    fn kinds(&self, kind: u8, names: &Names) -> Vec<Option<RouteKind>> {
        let link = |index: u32, via: Option<IpAddr>| {
            names.get(&index).map(|link| RouteKind::Link { link: link.clone(), via })
        };
        match kind {
            // RTN_UNICAST
            1 if self.hops.is_empty() => vec![self.link.and_then(|index| link(index, self.via))],
            1 => self.hops.iter().map(|(index, via)| link(*index, *via)).collect(),
            // RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT
            6..=8 => vec![Some(RouteKind::Unreachable)],
            // RTN_THROW
            9 => vec![Some(RouteKind::Throw)],
            _ => Vec::new(),
        }
    }
}

/// `RTA_MULTIPATH`: each `struct rtnexthop` has its length, flags, hops and link, and attributes.
fn hops(family: u8, mut value: &[u8]) -> Vec<(u32, Option<IpAddr>)> {
    let mut hops = Vec::new();
    while let Some([length0, length1, _, _, index @ ..]) = value.first_chunk::<8>() {
        let length = usize::from(u16::from_ne_bytes([*length0, *length1]));
        let Some(attributes) = value.get(8..length) else { break };
        let gateway = each(attributes).find(|(kind, _)| *kind == 5);
        let via = gateway.and_then(|(_, value)| ip(family, value));
        hops.push((u32::from_ne_bytes(*index), via));
        value = value.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    hops
}

/// `struct fib_rule_hdr`: family, lengths, tos, table, two bytes unused, action, flags.
pub(super) fn rule(payload: &[u8], _: &Names, _: &RawLinks, to: &mut Observed) {
    let header = payload.first_chunk::<12>();
    let Some([family, to_length, from_length, tos, table, _, _, action, ..]) = header else {
        return unreadable(to, "rule", "its header is cut short");
    };
    let family = match *family {
        AF_INET => Family::V4,
        AF_INET6 => Family::V6,
        _ => return,
    };
    // FR_ACT_TO_TBL is 1
    let mut plain = *to_length == 0 && *from_length == 0 && *tos == 0 && *action == 1;
    let (mut iif, mut mark, mut mask) = (None, None, None);
    let (mut table, mut priority, mut protocol) = (u32::from(*table), 0, 0);
    for (kind, value) in each(payload.get(12..).unwrap_or_default()) {
        match kind {
            3 => iif = text(value).and_then(|name| name.parse().ok()),
            6 => {
                let Some(read) = word(value) else {
                    return unreadable(to, "rule", "its priority is cut short");
                };
                priority = read;
            }
            10 => mark = word(value).filter(|mark| *mark != 0),
            14 if word(value) == Some(u32::MAX) => {}
            15 => {
                let Some(read) = word(value) else {
                    return unreadable(to, "rule", "its table is cut short");
                };
                table = read;
            }
            16 => mask = word(value),
            21 => {
                let Some(read) = byte(value) else {
                    return unreadable(to, "rule", "its protocol is cut short");
                };
                protocol = read;
            }
            _ => plain = false,
        }
    }
    let selector = match (iif, mark) {
        (Some(link), None) if plain => Selector::Iif(link),
        (None, Some(mark)) if plain && mask.is_none_or(|mask| mask == u32::MAX) => {
            Selector::Mark(mark)
        }
        _ => Selector::Other,
    };
    let set = if protocol == PROTOCOL { &mut to.rules } else { &mut to.foreign_rules };
    set.insert(Rule { priority, family, selector, table });
}

const NUD_NOARP: u16 = 0x40;
const NUD_PERMANENT: u16 = 0x80;
const NTF_SELF: u8 = 0x02;
const NTF_EXT_LEARNED: u8 = 0x10;

/// `struct ndmsg`: family, three bytes unused, link, state, flags, type. Only static entries of links of ours: those of
/// a bridge are "no ARP" (its own addresses are "permanent"), others "permanent".
pub(super) fn neighbour(payload: &[u8], names: &Names, links: &RawLinks, to: &mut Observed) {
    let header = payload.first_chunk::<12>();
    let Some([family, _, _, _, i0, i1, i2, i3, s0, s1, flags, _]) = header else {
        return unreadable(to, "neighbour", "its header is cut short");
    };
    let index = u32::from_ne_bytes([*i0, *i1, *i2, *i3]);
    let state = u16::from_ne_bytes([*s0, *s1]);
    if !links.is_ours(index) || flags & NTF_EXT_LEARNED != 0 {
        return;
    }
    let Some(link) = names.get(&index).cloned() else { return };
    let (mut destination, mut mac, mut of_bridge) = (None, None, false);
    for (kind, value) in each(payload.get(12..).unwrap_or_default()) {
        match kind {
            1 => {
                destination = match (*family, value.len()) {
                    (AF_BRIDGE, 4) => ip(AF_INET, value),
                    (AF_BRIDGE, _) => ip(AF_INET6, value),
                    (family, _) => ip(family, value),
                };
            }
            2 => mac = value.try_into().ok().map(MacAddr::new),
            9 => of_bridge = true,
            _ => {}
        }
    }
    let Some(mac) = mac else { return };
    let entry = match (*family, destination) {
        (AF_BRIDGE, Some(remote)) if flags & NTF_SELF != 0 && mac.octets() == [0; 6] => {
            Neighbour::Remote { link, remote }
        }
        (AF_BRIDGE, None) if of_bridge && state == NUD_NOARP => Neighbour::Station { link, mac },
        (AF_INET | AF_INET6, Some(ip)) if state & NUD_PERMANENT != 0 => {
            Neighbour::Address { link, ip, mac }
        }
        _ => return,
    };
    to.neighbours.insert(entry);
}
