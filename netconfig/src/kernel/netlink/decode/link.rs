//! Links (`struct ifinfomsg` and `IFLA_*`, rtnetlink(7), linux/if_link.h).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bulkhead_api::id::MacAddr;
use bulkhead_api::network::{VlanId, Vni};

use super::super::attribute::{byte, each, short, short_be, text, word};
use super::{Names, unreadable};
use crate::model::{
    BondMode, BridgePort, LinkKind, Master, Neighbour, Observed, ObservedKind, ObservedLink,
    ObservedVf, Unreadable, VfLinkState, VfVlan,
};

/// Length of `struct ifinfomsg`.
const HEADER: usize = 16;
const IFF_UP: u32 = 1;
const IFF_LOWER_UP: u32 = 1 << 16;
const ETH_P_8021Q: u16 = 0x8100;

/// Links as they come, before those are known that they refer to.
#[derive(Debug, Default)]
pub(super) struct RawLinks {
    links: BTreeMap<u32, RawLink>,
    unreadable: Vec<Unreadable>,
}

/// A link, with the numbers of others that are known only when all are read.
#[derive(Debug)]
struct RawLink {
    link: ObservedLink,
    master: Option<u32>,
    /// The other end of a veth in this namespace.
    peer: Option<u32>,
    /// Number of what a VLAN is made on.
    on: Option<(u32, VlanId)>,
}

impl RawLinks {
    pub(super) fn clear(&mut self) {
        self.links.clear();
        self.unreadable.clear();
    }

    pub(super) fn take(&mut self, payload: &[u8]) {
        match link(payload) {
            Ok(link) => drop(self.links.insert(link.link.index, link)),
            Err(unreadable) => self.unreadable.push(unreadable),
        }
    }

    pub(super) fn names(&self) -> Names {
        self.links.iter().map(|(index, raw)| (*index, raw.link.name.clone())).collect()
    }

    pub(super) fn is_ours(&self, index: u32) -> bool {
        self.links.get(&index).is_some_and(|raw| raw.link.is_ours())
    }

    /// Puts the links into `observed`, which has the entries already: a station behind a port of ours tells the
    /// address of its other end.
    pub(super) fn finish(self, observed: &mut Observed) {
        let names = self.names();
        let mut stations = BTreeMap::new();
        for neighbour in &observed.neighbours {
            if let Neighbour::Station { link, mac } = neighbour {
                stations.insert(link.clone(), *mac);
            }
        }
        let macs: BTreeMap<u32, MacAddr> =
            self.links.iter().filter_map(|(index, raw)| Some((*index, raw.link.mac?))).collect();
        for (index, raw) in self.links {
            let RawLink { mut link, master, peer, on } = raw;
            link.master = master.map(|index| Master { index, name: names.get(&index).cloned() });
            if let Some((parent, vlan)) = on {
                link.kind = match names.get(&parent) {
                    Some(parent) => {
                        ObservedKind::Known(LinkKind::Vlan { parent: parent.clone(), vlan })
                    }
                    None => ObservedKind::Other("vlan of another namespace".to_owned()),
                };
            }
            if matches!(&link.kind, ObservedKind::Other(kind) if kind == "veth") {
                let here = peer.and_then(|peer| names.get(&peer).cloned());
                let elsewhere = || link.name.peer();
                if let Some(name) = here.or_else(elsewhere) {
                    let at_peer = peer.and_then(|peer| macs.get(&peer).copied());
                    let peer_mac = at_peer.or_else(|| stations.get(&link.name).copied());
                    link.kind = ObservedKind::Known(LinkKind::Veth { peer: name, peer_mac });
                }
            }
            observed.links.insert(index, link);
        }
        observed.unreadable.extend(self.unreadable);
    }
}

fn link(payload: &[u8]) -> Result<RawLink, Unreadable> {
    let number = |at: usize| payload.get(at..).and_then(word);
    let (Some(index), Some(flags), Some(attributes)) =
        (number(4), number(8), payload.get(HEADER..))
    else {
        let reason = format!("{} bytes, its header has {HEADER}", payload.len());
        return Err(Unreadable { object: "link".to_owned(), reason });
    };
    let refuse = |reason: String| Unreadable { object: format!("link {index}"), reason };
    let mut name = None;
    let mut found = Found::default();
    for (kind, value) in each(attributes) {
        match kind {
            1 => found.mac = value.try_into().ok().map(MacAddr::new),
            3 => name = text(value),
            4 => found.mtu = word(value),
            5 => found.lower = word(value).filter(|index| *index != 0),
            10 => found.master = word(value).filter(|index| *index != 0),
            18 => found.info(value),
            22 => {
                found.vfs =
                    each(value).filter(|(kind, _)| *kind == 1).map(|(_, vf)| self::vf(vf)).collect()
            }
            26 => found.makes_addresses = makes_addresses(value),
            27 => found.group = word(value),
            37 => found.elsewhere = true,
            _ => {}
        }
    }
    let name = name.ok_or_else(|| refuse("it has no name".to_owned()))?;
    let name = name.parse().map_err(|error| refuse(format!("{error}")))?;
    let mtu = found.mtu.ok_or_else(|| refuse("it has no MTU".to_owned()))?;
    let veth = found.kind.as_deref() == Some("veth");
    let here = found.lower.filter(|_| !found.elsewhere);
    let on = found.vlan.filter(|_| found.kind.as_deref() == Some("vlan")).zip(here);
    let port = (found.port_kind.as_deref() == Some("bridge")).then_some(found.port).flatten();
    let link = ObservedLink {
        index,
        name,
        kind: found.settle(),
        group: found.group.unwrap_or_default(),
        mtu,
        mac: found.mac,
        master: None,
        parent: here.filter(|_| !veth),
        port,
        up: flags & IFF_UP != 0,
        carrier: flags & IFF_LOWER_UP != 0,
        makes_addresses: found.makes_addresses,
        vfs: std::mem::take(&mut found.vfs),
    };
    let peer = here.filter(|_| veth);
    Ok(RawLink { link, master: found.master, peer, on: on.map(|(vlan, on)| (on, vlan)) })
}

/// Attributes of a link as they come.
#[derive(Default)]
struct Found {
    mac: Option<MacAddr>,
    mtu: Option<u32>,
    lower: Option<u32>,
    elsewhere: bool,
    master: Option<u32>,
    group: Option<u32>,
    makes_addresses: bool,
    vfs: Vec<ObservedVf>,
    kind: Option<String>,
    port_kind: Option<String>,
    port: Option<BridgePort>,
    vlan: Option<VlanId>,
    known: Option<LinkKind>,
    /// A property that we never give.
    strange: Option<&'static str>,
}

impl Found {
    /// `IFLA_LINKINFO`: the kind comes before what depends on it.
    fn info(&mut self, value: &[u8]) {
        for (attribute, value) in each(value) {
            match attribute {
                1 => self.kind = text(value).map(str::to_owned),
                2 => self.data(value),
                4 => self.port_kind = text(value).map(str::to_owned),
                5 => self.port = Some(bridge_port(value)),
                _ => {}
            }
        }
    }

    fn data(&mut self, value: &[u8]) {
        match self.kind.as_deref() {
            Some("bridge") => {
                // IFLA_BR_VLAN_FILTERING
                let filters = each(value).any(|(kind, value)| kind == 7 && byte(value) == Some(1));
                self.strange = filters.then_some("with VLANs");
            }
            Some("vxlan") => self.vxlan(value),
            Some("vlan") => {
                for (kind, value) in each(value) {
                    match kind {
                        1 => self.vlan = short(value).and_then(|id| VlanId::try_from(id).ok()),
                        5 if short_be(value) != Some(ETH_P_8021Q) => {
                            self.strange = Some("of another protocol than 802.1Q");
                        }
                        _ => {}
                    }
                }
            }
            Some("vrf") => {
                let table = each(value).find(|(kind, _)| *kind == 1).and_then(|(_, v)| word(v));
                self.known = table.map(|table| LinkKind::Vrf { table });
            }
            Some("bond") => self.bond(value),
            Some("tun") => {
                // IFLA_TUN_TYPE: IFF_TAP is 2
                let tap = each(value).any(|(kind, value)| kind == 3 && byte(value) == Some(2));
                self.known = tap.then_some(LinkKind::Tap);
            }
            _ => {}
        }
    }

    fn vxlan(&mut self, value: &[u8]) {
        let (mut vni, mut local, mut port) = (None, None, None);
        for (kind, value) in each(value) {
            match kind {
                1 => vni = word(value).and_then(|number| Vni::try_from(number).ok()),
                2 | 16 => self.strange = Some("with a group"),
                4 => local = value.first_chunk::<4>().map(|ip| IpAddr::V4(Ipv4Addr::from(*ip))),
                17 => local = value.first_chunk::<16>().map(|ip| IpAddr::V6(Ipv6Addr::from(*ip))),
                7 if byte(value) != Some(0) => self.strange = Some("that learns"),
                15 => port = short_be(value),
                25 if byte(value) == Some(1) => self.strange = Some("for many networks"),
                _ => {}
            }
        }
        if let (Some(vni), Some(local), Some(port)) = (vni, local, port) {
            self.known = Some(LinkKind::Vxlan { vni, local, port });
        }
    }

    fn bond(&mut self, value: &[u8]) {
        let (mut mode, mut miimon_ms) = (None, None);
        for (kind, value) in each(value) {
            match kind {
                1 => {
                    mode = match byte(value) {
                        Some(1) => Some(BondMode::ActiveBackup),
                        Some(4) => Some(BondMode::Lacp),
                        _ => None,
                    };
                }
                3 => miimon_ms = word(value),
                _ => {}
            }
        }
        if let (Some(mode), Some(miimon_ms)) = (mode, miimon_ms) {
            self.known = Some(LinkKind::Bond { mode, miimon_ms });
        }
    }

    fn settle(&mut self) -> ObservedKind {
        let Some(kind) = self.kind.take() else { return ObservedKind::Device };
        if let Some(strange) = self.strange {
            return ObservedKind::Other(format!("{kind} {strange}"));
        }
        if kind == "bridge" {
            return ObservedKind::Known(LinkKind::Bridge);
        }
        match self.known.take() {
            Some(known) => ObservedKind::Known(known),
            None => ObservedKind::Other(kind),
        }
    }
}

/// `IFLA_BRPORT_*`.
fn bridge_port(value: &[u8]) -> BridgePort {
    let mut port = BridgePort::NEW;
    for (kind, value) in each(value) {
        let Some(set) = byte(value).map(|byte| byte != 0) else { continue };
        match kind {
            8 => port.learning = set,
            9 => port.flood = set,
            32 => port.neigh_suppress = set,
            33 => port.isolated = set,
            39 => port.locked = set,
            _ => {}
        }
    }
    port
}

/// `IFLA_AF_SPEC` > `AF_INET6` > `IFLA_INET6_ADDR_GEN_MODE`: 1 is "none". Without IPv6 there is nothing to make.
fn makes_addresses(value: &[u8]) -> bool {
    let inet6 = each(value).find(|(family, _)| *family == 10);
    let mode = inet6.and_then(|(_, value)| each(value).find(|(kind, _)| *kind == 8));
    mode.is_some_and(|(_, value)| byte(value) != Some(1))
}

/// `IFLA_VF_INFO`: each attribute begins with the number of the VF.
fn vf(value: &[u8]) -> ObservedVf {
    let mut vf = ObservedVf::default();
    for (kind, value) in each(value) {
        let Some(number) = word(value) else { continue };
        let rest = value.get(4..).unwrap_or_default();
        let setting = || word(rest).map(|setting| setting != 0);
        match kind {
            1 => {
                vf.number = number;
                vf.mac = rest.first_chunk::<6>().map(|mac| MacAddr::new(*mac));
            }
            // Of 802.1Q; the list, where there is one, says the protocol too.
            2 if vf.vlan.is_none() => vf.vlan = vlan(rest, Some(ETH_P_8021Q)),
            4 => vf.spoof_check = setting(),
            5 => {
                vf.link_state = match word(rest) {
                    Some(0) => Some(VfLinkState::Auto),
                    Some(1) => Some(VfLinkState::Enable),
                    Some(2) => Some(VfLinkState::Disable),
                    _ => None,
                };
            }
            6 => {
                vf.min_mbps = word(rest);
                vf.max_mbps = rest.get(4..).and_then(word);
            }
            7 => vf.rss_query = setting(),
            9 => vf.trust = setting(),
            12 => {
                let first = each(value).find(|(kind, _)| *kind == 1);
                let tag = first.and_then(|(_, value)| {
                    let rest = value.get(4..)?;
                    vlan(rest, rest.get(8..).and_then(short_be))
                });
                vf.vlan = tag.or(vf.vlan);
            }
            _ => {}
        }
    }
    vf
}

fn vlan(value: &[u8], protocol: Option<u16>) -> Option<VfVlan> {
    let vlan = u16::try_from(word(value)?).ok().filter(|vlan| *vlan != 0)?;
    let qos = u8::try_from(value.get(4..).and_then(word)?).ok()?;
    Some(VfVlan { vlan, qos, protocol: protocol? })
}

/// For links that other lists name and this one does not have.
pub(super) fn missing(to: &mut Observed, object: &str, index: u32) {
    unreadable(to, object, &format!("on link {index}, which could not be read"));
}
