//! Changes as messages of rtnetlink.

use std::net::IpAddr;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, BondLacpRate, BondMode as WireBondMode, BondXmitHashPolicy,
    In6AddrGenMode, InfoBond, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind,
    InfoVeth, InfoVlan, InfoVrf, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};

use crate::model::{
    Address, BondMode, BridgePort, Family, LinkKind, Neighbour, PROTOCOL, Route, RouteKind, Rule,
    Selector, TRASH_GROUP,
};
use crate::plan::{LinkChange, LinkRef, NewLink, Operation};

const CREATE: u16 = 0x400;
const EXCLUSIVE: u16 = 0x200;
const REPLACE: u16 = 0x100;
const APPEND: u16 = 0x800;

/// The message of a change, with the flags that it takes besides those of every request.
pub(super) fn operation(operation: &Operation) -> (Message, u16) {
    match operation {
        Operation::DeleteRule(rule) => (Message::DelRule(self::rule(rule)), 0),
        Operation::AddRule(rule) => (Message::NewRule(self::rule(rule)), CREATE | EXCLUSIVE),
        Operation::DeleteRoute(route, link) => {
            (Message::DelRoute(self::route(route, link.as_ref())), 0)
        }
        Operation::AddRoute(route, link) => {
            (Message::NewRoute(self::route(route, link.as_ref())), CREATE | REPLACE)
        }
        Operation::DeleteNeighbour(neighbour, link) => {
            (Message::DelNeighbour(self::neighbour(neighbour, link)), 0)
        }
        Operation::AddNeighbour(neighbour, link) => {
            // A station for all the rest may have many ends: each is added to those before.
            let how = match neighbour {
                Neighbour::Remote { .. } => APPEND,
                Neighbour::Station { .. } | Neighbour::Address { .. } => REPLACE,
            };
            (Message::NewNeighbour(self::neighbour(neighbour, link)), CREATE | how)
        }
        Operation::DeleteAddress(address, link) => {
            (Message::DelAddress(self::address(address, link, true)), 0)
        }
        Operation::AddAddress { address, link, with_route } => {
            let message = self::address(address, link, *with_route);
            (Message::NewAddress(message), CREATE | REPLACE)
        }
        Operation::Discard(link) => (with(link, LinkAttribute::Group(TRASH_GROUP)), 0),
        Operation::DeleteGroup { group, .. } => {
            let mut message = LinkMessage::default();
            message.attributes.push(LinkAttribute::Group(*group));
            (Message::DelLink(message), 0)
        }
        Operation::DeleteLink(link) => (Message::DelLink(named(link)), 0),
        Operation::Release(link) => (with(link, LinkAttribute::Controller(0)), 0),
        Operation::Enslave(link, master) => {
            (with(link, LinkAttribute::Controller(master.index)), 0)
        }
        Operation::SetDown(link) => (up(link, false), 0),
        Operation::SetUp(link) => (up(link, true), 0),
        Operation::Create(new) => (create(new), CREATE | EXCLUSIVE),
        Operation::Change(link, change) => (self::change(link, change), 0),
    }
}

/// What a tap takes besides being made: its group first.
pub(super) fn tap(new: &NewLink) -> Vec<(Message, u16)> {
    let mut messages = vec![(with(&new.link, LinkAttribute::Group(new.group)), 0)];
    let change = LinkChange { mtu: new.mtu, mac: new.mac, ..LinkChange::default() };
    if change != LinkChange::default() {
        messages.push((self::change(&new.link, &change), 0));
    }
    let master = new.master.as_ref();
    messages.extend(master.map(|m| (with(&new.link, LinkAttribute::Controller(m.index)), 0)));
    messages
}

fn named(link: &LinkRef) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = link.index;
    message
}

fn with(link: &LinkRef, attribute: LinkAttribute) -> Message {
    let mut message = named(link);
    message.attributes.push(attribute);
    Message::NewLink(message)
}

fn up(link: &LinkRef, up: bool) -> Message {
    let mut message = named(link);
    message.header.change_mask = LinkFlags::Up;
    message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
    Message::NewLink(message)
}

fn change(link: &LinkRef, change: &LinkChange) -> Message {
    let mut message = named(link);
    let attributes = &mut message.attributes;
    attributes.extend(change.mtu.map(LinkAttribute::Mtu));
    attributes.extend(change.mac.map(|mac| LinkAttribute::Address(mac.octets().to_vec())));
    if let Some(port) = change.port {
        let data = InfoPortData::BridgePort(port_flags(port));
        let kind = LinkInfo::PortKind(InfoPortKind::Bridge);
        attributes.push(LinkAttribute::LinkInfo(vec![kind, LinkInfo::PortData(data)]));
    }
    if change.quiet {
        let none = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![none])]));
    }
    Message::NewLink(message)
}

fn port_flags(port: BridgePort) -> Vec<InfoBridgePort> {
    vec![
        InfoBridgePort::Learning(port.learning),
        InfoBridgePort::UnicastFlood(port.flood),
        InfoBridgePort::NeighSupress(port.neigh_suppress),
        InfoBridgePort::Isolated(port.isolated),
        InfoBridgePort::Locked(port.locked),
    ]
}

fn create(new: &NewLink) -> Message {
    let mut message = named(&new.link);
    let attributes = &mut message.attributes;
    attributes.push(LinkAttribute::IfName(new.link.name.to_string()));
    attributes.push(LinkAttribute::Group(new.group));
    attributes.extend(new.mtu.map(LinkAttribute::Mtu));
    attributes.extend(new.mac.map(|mac| LinkAttribute::Address(mac.octets().to_vec())));
    attributes.extend(new.master.as_ref().map(|link| LinkAttribute::Controller(link.index)));
    attributes.extend(new.parent.as_ref().map(|link| LinkAttribute::Link(link.index)));
    let (kind, data) = info(new);
    let mut info = vec![LinkInfo::Kind(kind)];
    info.extend(data.map(LinkInfo::Data));
    attributes.push(LinkAttribute::LinkInfo(info));
    Message::NewLink(message)
}

fn info(new: &NewLink) -> (InfoKind, Option<InfoData>) {
    match &new.kind {
        LinkKind::Bridge => (InfoKind::Bridge, None),
        LinkKind::Tap => (InfoKind::Tun, None),
        LinkKind::Vrf { table } => {
            (InfoKind::Vrf, Some(InfoData::Vrf(vec![InfoVrf::TableId(*table)])))
        }
        LinkKind::Vlan { vlan, .. } => {
            (InfoKind::Vlan, Some(InfoData::Vlan(vec![InfoVlan::Id(vlan.get())])))
        }
        LinkKind::Vxlan { vni, local, port } => {
            let local = match local {
                IpAddr::V4(v4) => InfoVxlan::Local(*v4),
                IpAddr::V6(v6) => InfoVxlan::Local6(*v6),
            };
            let data = vec![
                InfoVxlan::Id(vni.get()),
                local,
                InfoVxlan::Port(*port),
                InfoVxlan::Learning(false),
            ];
            (InfoKind::Vxlan, Some(InfoData::Vxlan(data)))
        }
        LinkKind::Veth { peer, peer_mac } => {
            let mut end = LinkMessage::default();
            end.header.index = new.peer_index.unwrap_or_default();
            end.attributes.push(LinkAttribute::IfName(peer.to_string()));
            end.attributes.push(LinkAttribute::Group(new.group));
            end.attributes.extend(new.mtu.map(LinkAttribute::Mtu));
            let mac = peer_mac.map(|mac| LinkAttribute::Address(mac.octets().to_vec()));
            end.attributes.extend(mac);
            (InfoKind::Veth, Some(InfoData::Veth(InfoVeth::Peer(end))))
        }
        LinkKind::Bond { mode, miimon_ms } => {
            let mut data = vec![InfoBond::Mode(match mode {
                BondMode::ActiveBackup => WireBondMode::ActiveBackup,
                BondMode::Lacp => WireBondMode::Ieee8023Ad,
            })];
            data.push(InfoBond::MiiMon(*miimon_ms));
            if *mode == BondMode::Lacp {
                data.push(InfoBond::XmitHashPolicy(BondXmitHashPolicy::Layer34));
                data.push(InfoBond::AdLacpRate(BondLacpRate::Fast));
            }
            (InfoKind::Bond, Some(InfoData::Bond(data)))
        }
    }
}

fn family(of: Family) -> AddressFamily {
    match of {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

fn address(address: &Address, link: &LinkRef, with_route: bool) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(Family::of(address.ip));
    message.header.prefix_len = address.length;
    message.header.index = link.index;
    let mut flags = AddressFlags::empty();
    if !with_route {
        flags |= AddressFlags::Noprefixroute;
    }
    // The gateway's address is on every host of the network: the others are no duplicates.
    if address.ip.is_ipv6() {
        flags |= AddressFlags::Nodad;
    }
    message.attributes.push(AddressAttribute::Local(address.ip));
    message.attributes.push(AddressAttribute::Address(address.ip));
    message.attributes.push(AddressAttribute::Flags(flags));
    message
}

fn route(route: &Route, link: Option<&LinkRef>) -> RouteMessage {
    let mut message = RouteMessage::default();
    let destination = route.prefix.address();
    message.header.address_family = family(Family::of(destination));
    message.header.destination_prefix_length = route.prefix.length();
    message.header.protocol = RouteProtocol::from(PROTOCOL);
    message.header.scope = RouteScope::Universe;
    message.header.kind = match &route.kind {
        RouteKind::Link { via, .. } => {
            if via.is_none() && destination.is_ipv4() {
                message.header.scope = RouteScope::Link;
            }
            RouteType::Unicast
        }
        RouteKind::Unreachable => RouteType::Unreachable,
        RouteKind::Throw => RouteType::Throw,
    };
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Table(route.table));
    attributes.push(RouteAttribute::Priority(route.metric));
    if route.prefix.length() > 0 {
        attributes.push(RouteAttribute::Destination(RouteAddress::from(destination)));
    }
    attributes.extend(link.map(|link| RouteAttribute::Oif(link.index)));
    if let RouteKind::Link { via: Some(via), .. } = &route.kind {
        attributes.push(RouteAttribute::Gateway(RouteAddress::from(*via)));
    }
    message
}

fn rule(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family(rule.family);
    message.header.action = RuleAction::ToTable;
    let attributes = &mut message.attributes;
    attributes.push(RuleAttribute::Priority(rule.priority));
    attributes.push(RuleAttribute::Table(rule.table));
    attributes.push(RuleAttribute::Protocol(RouteProtocol::from(PROTOCOL)));
    match &rule.selector {
        Selector::Iif(link) => attributes.push(RuleAttribute::Iifname(link.to_string())),
        Selector::Mark(mark) => {
            attributes.push(RuleAttribute::FwMark(*mark));
            attributes.push(RuleAttribute::FwMask(u32::MAX));
        }
        Selector::Other => {}
    }
    message
}

fn neighbour(neighbour: &Neighbour, link: &LinkRef) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = link.index;
    let attributes = &mut message.attributes;
    let wire = |ip: IpAddr| {
        NeighbourAttribute::Destination(match ip {
            IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
            IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
        })
    };
    match neighbour {
        Neighbour::Station { mac, .. } => {
            message.header.family = AddressFamily::Bridge;
            message.header.state = NeighbourState::Noarp;
            message.header.flags = NeighbourFlags::Controller;
            attributes.push(NeighbourAttribute::LinkLayerAddress(mac.octets().to_vec()));
        }
        Neighbour::Remote { remote, .. } => {
            message.header.family = AddressFamily::Bridge;
            // NUD_NOARP and NUD_PERMANENT, as a VXLAN keeps its own.
            message.header.state = NeighbourState::Other(0xc0);
            message.header.flags = NeighbourFlags::Own;
            attributes.push(NeighbourAttribute::LinkLayerAddress(vec![0; 6]));
            attributes.push(wire(*remote));
        }
        Neighbour::Address { ip, mac, .. } => {
            message.header.family = family(Family::of(*ip));
            message.header.state = NeighbourState::Permanent;
            attributes.push(wire(*ip));
            attributes.push(NeighbourAttribute::LinkLayerAddress(mac.octets().to_vec()));
        }
    }
    message
}
