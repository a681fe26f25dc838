//! Settings of virtual functions, one message each: where the driver refuses one, it is known which.

use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::link::{
    LinkAttribute, LinkMessage, LinkVfInfo, VfInfo, VfInfoLinkState, VfInfoMac, VfInfoRate,
    VfInfoSpoofCheck, VfInfoTrust, VfLinkState as WireState, VfVlan, VfVlanInfo, VlanProtocol,
};

use super::Netlink;
use crate::kernel::error::{KernelError, Refused};
use crate::model::VfLinkState;
use crate::sriov::model::Settings;

/// Every setting in the order in which it is safe: link off and trust away first, link on last.
pub(super) fn settings(vf: u32, settings: &Settings) -> Vec<(&'static str, VfInfo)> {
    let mut all = Vec::new();
    let link = settings.link.map(|state| {
        let state = match state {
            VfLinkState::Auto => WireState::Auto,
            VfLinkState::Enable => WireState::Enable,
            VfLinkState::Disable => WireState::Disable,
        };
        ("IFLA_VF_LINK_STATE", VfInfo::LinkState(VfInfoLinkState::new(vf, state)))
    });
    let off = settings.link == Some(VfLinkState::Disable);
    all.extend(link.clone().filter(|_| off));
    if !settings.trust {
        all.push(("IFLA_VF_TRUST", VfInfo::Trust(VfInfoTrust::new(vf, false))));
    }
    all.push((
        "IFLA_VF_SPOOFCHK",
        VfInfo::SpoofCheck(VfInfoSpoofCheck::new(vf, settings.spoof_check)),
    ));
    let (vlan, qos) = (u32::from(settings.vlan.get()), u32::from(settings.qos));
    let tag = VfVlan::Info(VfVlanInfo::new(vf, vlan, qos, VlanProtocol::Ieee8021Q));
    all.push(("IFLA_VF_VLAN_LIST", VfInfo::VlanList(vec![tag])));
    let rate = VfInfoRate::new(vf, settings.min_mbps, settings.max_mbps);
    all.push(("IFLA_VF_RATE", VfInfo::Rate(rate)));
    all.push(("IFLA_VF_MAC", VfInfo::Mac(VfInfoMac::new(vf, &settings.mac.octets()))));
    if settings.trust {
        all.push(("IFLA_VF_TRUST", VfInfo::Trust(VfInfoTrust::new(vf, true))));
    }
    all.extend(link.filter(|_| !off));
    all
}

impl Netlink {
    /// Sets everything of a VF of the card whose link has this number; stops at the first that is refused.
    ///
    /// # Errors
    /// The driver refuses: the attribute is that of the setting.
    pub fn set_vf(&mut self, pf: u32, vf: u32, wanted: &Settings) -> Result<(), KernelError> {
        for (name, info) in settings(vf, wanted) {
            let mut message = LinkMessage::default();
            message.header.index = pf;
            message.attributes.push(LinkAttribute::VfInfoList(vec![LinkVfInfo(vec![info])]));
            match self.socket.all(vec![(Message::SetLink(message), 0)]) {
                Err(KernelError::Refused(refused)) => {
                    let attribute = Some(name.to_owned());
                    return Err(KernelError::Refused(Refused { attribute, ..refused }));
                }
                other => other?,
            }
        }
        Ok(())
    }
}
