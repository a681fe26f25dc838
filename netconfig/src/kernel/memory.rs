//! A kernel in memory that refuses what the real one refuses, and does what that does besides what it is asked.
//!
//! It knows nothing of `plan`. Refusals and side effects were seen on Linux 6.18 or read in its source: a group with a
//! member that has no link operations is not deleted; group 0 is nobody's to delete; a deleted link takes what is made on
//! it, its pair's other end, its addresses, routes and entries along; a port that changes its bridge loses its stations; a
//! bridge that changes its VRF is set down and up, which costs routes, entries and addresses of IPv6; a bond takes members
//! that are down.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_api::id::MacAddr;
use nix::errno::Errno;

use super::{ApplyError, Kernel, KernelError};
use crate::model::{
    BridgePort, LinkKind, LinkName, Master, Neighbour, Observed, ObservedKind, ObservedLink,
    RouteKind, TRASH_GROUP,
};
use crate::plan::{LinkChange, LinkRef, NewLink, Operation};

/// A kernel in memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory {
    pub(crate) state: Observed,
    /// Fails at this operation, counted from now; absent = never.
    pub(crate) cut: Option<usize>,
    /// Operations that were asked for.
    pub(crate) asked: usize,
    /// Both ends of pairs, by number.
    pairs: BTreeMap<u32, u32>,
}

type Outcome = Result<(), Errno>;

impl Kernel for Memory {
    fn observe(&mut self) -> Result<Observed, KernelError> {
        Ok(self.state.clone())
    }

    fn apply(&mut self, operations: &[Operation]) -> Result<(), ApplyError> {
        for operation in operations {
            self.asked += 1;
            let outcome = match &mut self.cut {
                Some(0) => {
                    self.cut = None;
                    Err(Errno::EIO)
                }
                Some(left) => {
                    *left -= 1;
                    self.operation(operation)
                }
                None => self.operation(operation),
            };
            outcome.map_err(|errno| ApplyError {
                change: operation.to_string(),
                source: KernelError::refused(errno),
            })?;
        }
        Ok(())
    }
}

impl Memory {
    /// A card with this name and number.
    pub(crate) fn card(&mut self, index: u32, name: &str) {
        self.put(ObservedLink {
            index,
            name: name.parse().unwrap(),
            kind: ObservedKind::Device,
            group: 0,
            mtu: 1500,
            mac: Some(MacAddr::new([0x52, 0x54, 0, 0, 0, u8::try_from(index).unwrap()])),
            master: None,
            parent: None,
            port: None,
            up: true,
            carrier: true,
            makes_addresses: true,
            vfs: vec![],
        });
    }

    pub(crate) fn put(&mut self, link: ObservedLink) {
        self.state.links.insert(link.index, link);
    }

    fn link(&mut self, link: &LinkRef) -> Result<&mut ObservedLink, Errno> {
        let found = self.state.links.get_mut(&link.index).ok_or(Errno::ENODEV)?;
        assert_eq!(found.name, link.name, "the number is another link's");
        Ok(found)
    }

    fn name_of(&self, index: u32) -> Result<LinkName, Errno> {
        self.state.links.get(&index).map(|link| link.name.clone()).ok_or(Errno::ENODEV)
    }

    fn operation(&mut self, operation: &Operation) -> Outcome {
        let missing = |was_there: bool, errno| if was_there { Ok(()) } else { Err(errno) };
        match operation {
            Operation::DeleteRule(rule) => missing(self.state.rules.remove(rule), Errno::ENOENT),
            Operation::AddRule(rule) => {
                missing(self.state.rules.insert(rule.clone()), Errno::EEXIST)
            }
            Operation::DeleteRoute(route, _) => {
                missing(self.state.routes.remove(route), Errno::ESRCH)
            }
            Operation::AddRoute(route, link) => {
                match (&route.kind, link) {
                    (RouteKind::Link { link: name, .. }, Some(link)) => {
                        let there = self.link(link)?;
                        assert_eq!(there.name, *name);
                        if !there.up {
                            return Err(Errno::ENETDOWN);
                        }
                    }
                    (RouteKind::Link { .. }, None) => return Err(Errno::ENODEV),
                    (RouteKind::Unreachable | RouteKind::Throw, _) => {}
                }
                let same = |other: &&crate::model::Route| {
                    (other.table, other.prefix, other.metric)
                        == (route.table, route.prefix, route.metric)
                };
                if let Some(other) = self.state.routes.iter().find(same).cloned() {
                    self.state.routes.remove(&other);
                }
                self.state.routes.insert(route.clone());
                Ok(())
            }
            Operation::DeleteNeighbour(neighbour, link) => {
                self.link(link)?;
                missing(self.state.neighbours.remove(neighbour), Errno::ENOENT)
            }
            Operation::AddNeighbour(neighbour, link) => self.add_neighbour(neighbour, link),
            Operation::DeleteAddress(address, link) => {
                self.link(link)?;
                let was_there = self.state.addresses.remove(address);
                let v4 = |a: &&crate::model::Address| a.ip.is_ipv4() && a.link == address.link;
                // With the last address of IPv4 its routes go.
                if address.ip.is_ipv4() && !self.state.addresses.iter().any(|a| v4(&a)) {
                    self.state.routes.retain(|route| {
                        let on = matches!(&route.kind, RouteKind::Link { link, .. } if *link == address.link);
                        !(on && route.prefix.address().is_ipv4())
                    });
                }
                missing(was_there, Errno::EADDRNOTAVAIL)
            }
            Operation::AddAddress { address, link, .. } => {
                assert_eq!(self.link(link)?.name, address.link);
                self.state.addresses.insert(address.clone());
                Ok(())
            }
            Operation::Discard(link) => {
                self.link(link)?.group = TRASH_GROUP;
                Ok(())
            }
            Operation::DeleteGroup { group, .. } => self.delete_group(*group),
            Operation::DeleteLink(link) => {
                if self.link(link)?.kind == ObservedKind::Device {
                    return Err(Errno::EOPNOTSUPP);
                }
                self.delete(link.index);
                Ok(())
            }
            Operation::Release(link) => self.set_master(link, None),
            Operation::Enslave(link, master) => self.set_master(link, Some(master)),
            Operation::SetDown(link) => {
                self.link(link)?.up = false;
                self.went_down(&link.name);
                Ok(())
            }
            Operation::SetUp(link) => {
                self.link(link)?.up = true;
                Ok(())
            }
            Operation::Create(new) => self.create(new),
            Operation::Change(link, change) => self.change(link, change),
        }
    }

    fn add_neighbour(&mut self, neighbour: &Neighbour, link: &LinkRef) -> Outcome {
        let there = self.link(link)?;
        assert_eq!(there.name, *neighbour.link());
        match neighbour {
            Neighbour::Station { .. } if there.port.is_none() => return Err(Errno::EINVAL),
            Neighbour::Remote { .. } if !matches!(there.known(), Some(LinkKind::Vxlan { .. })) => {
                return Err(Errno::EOPNOTSUPP);
            }
            Neighbour::Address { .. } if !there.up => return Err(Errno::ENETDOWN),
            Neighbour::Station { .. } | Neighbour::Remote { .. } | Neighbour::Address { .. } => {}
        }
        self.state.neighbours.insert(neighbour.clone());
        Ok(())
    }

    fn delete_group(&mut self, group: u32) -> Outcome {
        if group == 0 {
            return Err(Errno::EPERM);
        }
        let in_group = |link: &&ObservedLink| link.group == group;
        let members: Vec<_> = self.state.links.values().filter(in_group).cloned().collect();
        if members.is_empty() {
            return Err(Errno::ENODEV);
        }
        if members.iter().any(|link| link.kind == ObservedKind::Device) {
            return Err(Errno::EOPNOTSUPP);
        }
        for member in members {
            self.delete(member.index);
        }
        Ok(())
    }

    /// With everything that goes along.
    fn delete(&mut self, index: u32) {
        let Some(link) = self.state.links.remove(&index) else { return };
        self.state.addresses.retain(|address| address.link != link.name);
        self.went_down(&link.name);
        self.state.neighbours.retain(|neighbour| *neighbour.link() != link.name);
        let on_it = |other: &ObservedLink| other.parent == Some(index);
        let gone: Vec<u32> =
            self.state.links.values().filter(|l| on_it(l)).map(|link| link.index).collect();
        for other in gone.into_iter().chain(self.pairs.remove(&index)) {
            self.delete(other);
        }
        for other in self.state.links.values_mut() {
            if other.master.as_ref().is_some_and(|master| master.index == index) {
                other.master = None;
                other.port = None;
                let name = other.name.clone();
                self.state
                    .neighbours
                    .retain(|n| *n.link() != name || !matches!(n, Neighbour::Station { .. }));
            }
        }
    }

    /// Routes, entries of neighbours and addresses of IPv6 do not outlive it.
    fn went_down(&mut self, name: &LinkName) {
        self.state
            .routes
            .retain(|route| !matches!(&route.kind, RouteKind::Link { link, .. } if link == name));
        self.state.neighbours.retain(
            |neighbour| !matches!(neighbour, Neighbour::Address { link, .. } if link == name),
        );
        self.state.addresses.retain(|a| a.link != *name || a.ip.is_ipv4());
    }

    fn set_master(&mut self, link: &LinkRef, master: Option<&LinkRef>) -> Outcome {
        let name = self.link(link)?.name.clone();
        let cycles = |memory: &Self, index: u32| {
            let kind = memory.state.links.get(&index).and_then(|link| link.known());
            matches!(kind, Some(LinkKind::Vrf { .. }))
        };
        if let Some(old) = self.link(link)?.master.take() {
            self.link(link)?.port = None;
            self.state
                .neighbours
                .retain(|n| *n.link() != name || !matches!(n, Neighbour::Station { .. }));
            if cycles(self, old.index) {
                self.went_down(&name);
            }
        }
        let Some(master) = master else { return Ok(()) };
        self.enslave(link.index, master.index)?;
        if cycles(self, master.index) {
            self.went_down(&name);
        }
        Ok(())
    }

    fn enslave(&mut self, index: u32, master: u32) -> Outcome {
        let over = self.state.links.get(&master).ok_or(Errno::EINVAL)?;
        let (name, kind, mtu) = (over.name.clone(), over.known().cloned(), over.mtu);
        let under = self.state.links.get_mut(&index).ok_or(Errno::ENODEV)?;
        match kind {
            Some(LinkKind::Bridge) => under.port = Some(BridgePort::NEW),
            Some(LinkKind::Vrf { .. }) => {
                if under.master.is_some() {
                    return Err(Errno::EEXIST);
                }
            }
            Some(LinkKind::Bond { .. }) => {
                if under.up {
                    return Err(Errno::EPERM);
                }
                // The bond sets its members up, and gives them its MTU.
                under.up = true;
                under.mtu = mtu;
            }
            _ => return Err(Errno::EOPNOTSUPP),
        }
        under.master = Some(Master { index: master, name: Some(name) });
        Ok(())
    }

    #[expect(
        clippy::too_many_lines,
        reason = "one refusal after the other, as the kernel has them"
    )]
    fn create(&mut self, new: &NewLink) -> Outcome {
        let LinkRef { index, name } = &new.link;
        let mut numbers: BTreeSet<u32> = self.state.links.keys().copied().collect();
        let mut names: BTreeSet<LinkName> =
            self.state.links.values().map(|link| link.name.clone()).collect();
        if !names.insert(name.clone()) {
            return Err(Errno::EEXIST);
        }
        if !numbers.insert(*index) {
            return Err(Errno::EBUSY);
        }
        let same = |wanted: &LinkKind| {
            self.state.links.values().any(|link| link.known().is_some_and(|kind| kind == wanted))
        };
        let mut parent = None;
        match &new.kind {
            LinkKind::Vlan { parent: name, .. } => {
                let on = new.parent.as_ref().ok_or(Errno::ENODEV)?;
                let below = self.state.links.get(&on.index).ok_or(Errno::ENODEV)?;
                assert_eq!(below.name, *name);
                if same(&new.kind) {
                    return Err(Errno::EEXIST);
                }
                if new.mtu.is_some_and(|mtu| mtu > below.mtu) {
                    return Err(Errno::EINVAL);
                }
                parent = Some(on.index);
            }
            LinkKind::Vxlan { vni, port, .. } => {
                let taken = self.state.links.values().any(|link| match link.known() {
                    Some(LinkKind::Vxlan { vni: other, port: at, .. }) => {
                        other == vni && at == port
                    }
                    _ => false,
                });
                if taken {
                    return Err(Errno::EEXIST);
                }
            }
            LinkKind::Vrf { table } if same(&LinkKind::Vrf { table: *table }) => {
                return Err(Errno::EEXIST);
            }
            LinkKind::Veth { peer, .. } => {
                let peer_index = new.peer_index.ok_or(Errno::EINVAL)?;
                if !names.insert(peer.clone()) || !numbers.insert(peer_index) {
                    return Err(Errno::EEXIST);
                }
            }
            LinkKind::Bridge | LinkKind::Vrf { .. } | LinkKind::Tap | LinkKind::Bond { .. } => {}
        }
        let plain = ObservedLink {
            index: *index,
            name: name.clone(),
            kind: ObservedKind::Known(new.kind.clone()),
            group: new.group,
            mtu: new.mtu.unwrap_or(1500),
            mac: new.mac.or(Some(MacAddr::new([2, 0xff, 0, 0, 0, 1]))),
            master: None,
            parent,
            port: None,
            up: false,
            carrier: false,
            makes_addresses: true,
            vfs: vec![],
        };
        if let (LinkKind::Veth { peer, peer_mac }, Some(other)) = (&new.kind, new.peer_index) {
            let kind = LinkKind::Veth { peer: name.clone(), peer_mac: plain.mac };
            let end = ObservedLink {
                index: other,
                name: peer.clone(),
                kind: ObservedKind::Known(kind),
                mac: *peer_mac,
                ..plain.clone()
            };
            self.put(end);
            self.pairs.extend([(*index, other), (other, *index)]);
        }
        self.put(plain);
        match &new.master {
            Some(master) => {
                assert_eq!(self.name_of(master.index)?, master.name);
                self.enslave(*index, master.index)
            }
            None => Ok(()),
        }
    }

    fn change(&mut self, link: &LinkRef, change: &LinkChange) -> Outcome {
        let there = self.link(link)?.clone();
        if let Some(mtu) = change.mtu {
            let below = there.parent.and_then(|parent| self.state.links.get(&parent));
            let vlan = matches!(there.known(), Some(LinkKind::Vlan { .. }));
            if vlan && below.is_some_and(|below| mtu > below.mtu) {
                return Err(Errno::ERANGE);
            }
            for other in self.state.links.values_mut() {
                let on_it = other.parent == Some(link.index);
                let member = other.master.as_ref().is_some_and(|m| m.index == link.index)
                    && matches!(there.known(), Some(LinkKind::Bond { .. }));
                if member || on_it && other.mtu > mtu {
                    other.mtu = mtu;
                }
            }
            self.link(link)?.mtu = mtu;
        }
        let there = self.link(link)?;
        if let Some(port) = change.port {
            there.port.replace(port).ok_or(Errno::EOPNOTSUPP)?;
        }
        there.mac = change.mac.or(there.mac);
        there.makes_addresses &= !change.quiet;
        Ok(())
    }

    /// The other end of a pair goes to a tenant's namespace.
    pub(crate) fn give_away(&mut self, name: &LinkName) {
        let index = self.state.link(name).unwrap().index;
        self.state.links.remove(&index);
    }
}
