//! What the kernel lists, as values. Attributes that are unknown are passed over, those that are cut short end their
//! message, and an object without what makes it one is named in [`Observed::unreadable`]: no reply of the kernel, and
//! nothing that poses as one, stops the rest from being read.

mod link;
mod network;

use std::collections::BTreeMap;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::rule::RuleMessage;

use super::socket::Socket;
use crate::kernel::KernelError;
use crate::model::{LinkName, Observed, Unreadable};

/// Names of links by their number, for objects that have the number only.
type Names = BTreeMap<u32, LinkName>;

/// Reads everything.
pub(super) fn observe(socket: &mut Socket) -> Result<Observed, KernelError> {
    let mut observed = Observed::default();
    let mut raw = link::RawLinks::default();
    socket.dump(&links(), |message| match message {
        None => raw.clear(),
        Some(payload) => raw.take(payload),
    })?;
    let names = raw.names();
    // Each list is taken into a part of its own, so that beginning it anew forgets that part only.
    let mut parts = Vec::new();
    for (question, take) in questions() {
        let mut part = Observed::default();
        socket.dump(&question, |message| match message {
            None => part = Observed::default(),
            Some(payload) => take(payload, &names, &raw, &mut part),
        })?;
        parts.push(part);
    }
    for part in parts {
        observed.addresses.extend(part.addresses);
        observed.routes.extend(part.routes);
        observed.foreign_routes.extend(part.foreign_routes);
        observed.rules.extend(part.rules);
        observed.foreign_rules.extend(part.foreign_rules);
        observed.neighbours.extend(part.neighbours);
        observed.unreadable.extend(part.unreadable);
    }
    raw.finish(&mut observed);
    Ok(observed)
}

type Take = fn(&[u8], &Names, &link::RawLinks, &mut Observed);

fn questions() -> Vec<(Message, Take)> {
    let mut all: Vec<(Message, Take)> = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut addresses = AddressMessage::default();
        addresses.header.family = family;
        all.push((Message::GetAddress(addresses), network::address));
        let mut routes = RouteMessage::default();
        routes.header.address_family = family;
        all.push((Message::GetRoute(routes), network::route));
        let mut rules = RuleMessage::default();
        rules.header.family = family;
        all.push((Message::GetRule(rules), network::rule));
    }
    for family in [AddressFamily::Inet, AddressFamily::Inet6, AddressFamily::Bridge] {
        let mut neighbours = NeighbourMessage::default();
        neighbours.header.family = family;
        all.push((Message::GetNeighbour(neighbours), network::neighbour));
    }
    all
}

fn links() -> Message {
    let mut question = LinkMessage::default();
    let mask = vec![LinkExtentMask::Vf, LinkExtentMask::SkipStats];
    question.attributes.push(LinkAttribute::ExtMask(mask));
    Message::GetLink(question)
}

fn unreadable(to: &mut Observed, object: impl Into<String>, reason: &str) {
    to.unreadable.push(Unreadable { object: object.into(), reason: reason.to_owned() });
}

#[cfg(test)]
mod tests;
