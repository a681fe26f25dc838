use std::net::IpAddr;

use netlink_packet_core::NetlinkMessage;
use netlink_packet_route::link::{
    InfoKind, LinkInfo, LinkVfInfo, VfInfo, VfInfoLinkState, VfInfoMac, VfInfoRate,
    VfInfoSpoofCheck, VfInfoTrust, VfLinkState as WireState, VfVlan as WireVlan, VfVlanInfo,
    VlanProtocol,
};
use proptest::prelude::*;

use super::link::RawLinks;
use super::*;
use crate::model::{ObservedKind, VfLinkState, VfVlan};

fn bytes(message: Message) -> Vec<u8> {
    let mut message = NetlinkMessage::from(message);
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes.split_off(16)
}

fn read(payload: &[u8]) -> Observed {
    let mut raw = RawLinks::default();
    raw.take(payload);
    let mut observed = Observed::default();
    raw.finish(&mut observed);
    observed
}

fn card(attributes: Vec<LinkAttribute>) -> Vec<u8> {
    let mut message = LinkMessage::default();
    message.header.index = 7;
    message.attributes.push(LinkAttribute::IfName("enp3s0".to_owned()));
    message.attributes.push(LinkAttribute::Mtu(9000));
    message.attributes.extend(attributes);
    bytes(Message::NewLink(message))
}

#[test]
fn virtual_functions_are_read_as_the_card_tells() {
    let tag = WireVlan::Info(VfVlanInfo::new(3, 4094, 5, VlanProtocol::Ieee8021Q));
    let info = LinkVfInfo(vec![
        VfInfo::Mac(VfInfoMac::new(3, &[2, 0, 0, 0, 0, 3])),
        VfInfo::VlanList(vec![tag]),
        VfInfo::Rate(VfInfoRate::new(3, 10, 2000)),
        VfInfo::SpoofCheck(VfInfoSpoofCheck::new(3, true)),
        VfInfo::LinkState(VfInfoLinkState::new(3, WireState::Disable)),
        VfInfo::Trust(VfInfoTrust::new(3, false)),
    ]);
    let seen = read(&card(vec![LinkAttribute::VfInfoList(vec![info, LinkVfInfo(vec![])])]));
    let link = &seen.links[&7];
    assert_eq!((link.kind.clone(), link.mtu), (ObservedKind::Device, 9000));
    let vf = &link.vfs[0];
    assert_eq!((vf.number, vf.mac.unwrap().octets()), (3, [2, 0, 0, 0, 0, 3]));
    assert_eq!(vf.vlan, Some(VfVlan { vlan: 4094, qos: 5, protocol: 0x8100 }));
    assert_eq!((vf.min_mbps, vf.max_mbps), (Some(10), Some(2000)));
    assert_eq!((vf.spoof_check, vf.trust), (Some(true), Some(false)));
    assert_eq!(vf.link_state, Some(VfLinkState::Disable));
    assert_eq!(link.vfs[1], crate::model::ObservedVf::default(), "what is not told is absent");
}

#[test]
fn a_link_without_what_makes_it_one_is_named_and_others_are_read() {
    let mut raw = RawLinks::default();
    let mut nameless = LinkMessage::default();
    nameless.header.index = 9;
    raw.take(&bytes(Message::NewLink(nameless)));
    raw.take(&card(vec![])[..10]);
    raw.take(&card(vec![]));
    let mut strange = LinkMessage::default();
    strange.header.index = 10;
    strange.attributes.push(LinkAttribute::IfName("a b".to_owned()));
    raw.take(&bytes(Message::NewLink(strange)));
    let mut observed = Observed::default();
    raw.finish(&mut observed);
    assert_eq!(observed.links.keys().copied().collect::<Vec<_>>(), [7]);
    let told: Vec<String> =
        observed.unreadable.iter().map(|u| format!("{}: {}", u.object, u.reason)).collect();
    assert_eq!(told[0], "link 9: it has no name");
    assert_eq!(told[1], "link: 10 bytes, its header has 16");
    assert!(told[2].starts_with("link 10: link name \"a b\""), "{}", told[2]);
}

#[test]
fn unknown_attributes_are_passed_over_and_short_ones_end_the_message() {
    let mut payload = card(vec![LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)])]);
    payload.extend([8, 0, 0xff, 0x3f, 1, 2, 3, 4]);
    let whole = read(&payload);
    assert!(whole.links.contains_key(&7) && whole.unreadable.is_empty());
    payload.extend([200, 0, 27, 0, 1]);
    assert_eq!(read(&payload), whole);
}

#[test]
fn what_we_never_make_is_not_taken_for_ours() {
    // A VXLAN that learns: data with id, local, port and no "learning 0".
    let data = |learning: u8| {
        let attribute = |kind: u16, value: &[u8]| {
            let length = u16::try_from(4 + value.len()).unwrap();
            let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
            bytes.extend(value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        let inner = [
            attribute(1, &7_u32.to_ne_bytes()),
            attribute(4, &[198, 51, 100, 1]),
            attribute(7, &[learning]),
            attribute(15, &4789_u16.to_be_bytes()),
        ]
        .concat();
        let info = [attribute(1, b"vxlan\0"), attribute(2, &inner)].concat();
        [card(vec![]), attribute(18, &info)].concat()
    };
    let learns = read(&data(1));
    assert_eq!(learns.links[&7].kind, ObservedKind::Other("vxlan that learns".to_owned()));
    let local: IpAddr = "198.51.100.1".parse().unwrap();
    let quiet = read(&data(0));
    let vni = 7.try_into().unwrap();
    let kind = crate::model::LinkKind::Vxlan { vni, local, port: 4789 };
    assert_eq!(quiet.links[&7].kind, ObservedKind::Known(kind));
}

#[test]
fn every_setting_of_a_function_is_read_back_as_it_was_sent() {
    use crate::sriov::model::{Driver, Settings};
    let mac = bulkhead_api::id::MacAddr::new([2, 1, 2, 3, 4, 5]);
    let mut settings = Settings::baseline(&Driver::Ice, mac, 4094.try_into().unwrap());
    settings.max_mbps = 500;
    settings.qos = 3;
    let infos = super::super::vf::settings(2, &settings);
    let order: Vec<_> = infos.iter().map(|(name, _)| *name).collect();
    assert_eq!(order.first(), Some(&"IFLA_VF_LINK_STATE"), "the link goes off first");
    let mut list = LinkVfInfo(Vec::new());
    // A card tells the address first.
    list.0.push(VfInfo::Mac(VfInfoMac::new(2, &mac.octets())));
    list.0.extend(infos.into_iter().map(|(_, info)| info));
    let seen = read(&card(vec![LinkAttribute::VfInfoList(vec![list])]));
    assert_eq!(settings.difference(&seen.links[&7].vfs[0]), None);
    settings.trust = true;
    let difference = settings.difference(&seen.links[&7].vfs[0]);
    assert_eq!(difference.as_deref(), Some("the trust is false, not true"));
}

fn read_all(payload: &[u8]) -> Observed {
    let mut raw = RawLinks::default();
    raw.take(payload);
    let names = raw.names();
    let mut observed = Observed::default();
    for (_, take) in questions() {
        take(payload, &names, &raw, &mut observed);
    }
    raw.finish(&mut observed);
    observed
}

proptest! {
    #[test]
    fn any_bytes_are_objects_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        read_all(&bytes);
    }

    #[test]
    fn a_message_with_any_byte_changed_or_cut_is_read_or_refused(
        at: prop::sample::Index, byte: u8, end: prop::sample::Index,
    ) {
        let tag = WireVlan::Info(VfVlanInfo::new(3, 9, 5, VlanProtocol::Ieee8021Q));
        let info = LinkVfInfo(vec![
            VfInfo::Mac(VfInfoMac::new(3, &[2, 0, 0, 0, 0, 3])),
            VfInfo::VlanList(vec![tag]),
        ]);
        let mut payload = card(vec![
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vxlan)]),
            LinkAttribute::VfInfoList(vec![info]),
        ]);
        let at = at.index(payload.len());
        payload[at] = byte;
        let end = end.index(payload.len() + 1);
        read_all(&payload[..end]);
    }
}

/// With a table of the header instead, a rule would be proved to lead elsewhere than it does.
#[test]
fn a_table_that_is_cut_short_makes_its_route_or_rule_unreadable() {
    type Read = fn(&[u8], &super::Names, &super::link::RawLinks, &mut Observed);
    for read in [super::network::route as Read, super::network::rule] {
        let mut payload = vec![2, 0, 0, 0, 254, 0, 0, 1, 0, 0, 0, 0];
        payload.extend([6, 0, 15, 0, 1, 2, 0, 0]);
        let mut observed = Observed::default();
        read(&payload, &super::Names::new(), &super::link::RawLinks::default(), &mut observed);
        assert_eq!(observed.unreadable.len(), 1);
        assert_eq!(observed.unreadable[0].reason, "its table is cut short");
        assert!(observed.foreign_rules.is_empty() && observed.foreign_routes.is_empty());
    }
}
