//! A card with its virtual functions, as wanted, held and observed.

use std::collections::BTreeMap;
use std::fmt;

use bulkhead_api::id::{LeaseId, MacAddr};
use bulkhead_api::network::VlanId;

use crate::model::{LinkName, ObservedVf, VfLinkState, VfVlan};

/// Driver of a card.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Driver {
    /// `mlx5_core`.
    Mlx5,
    /// `ice`.
    Ice,
    /// `igb`.
    Igb,
    /// Another: treated as `mlx5_core`.
    Other(String),
}

impl Driver {
    /// From the kernel's name.
    #[must_use]
    pub fn named(name: &str) -> Self {
        match name {
            "mlx5_core" => Self::Mlx5,
            "ice" => Self::Ice,
            "igb" => Self::Igb,
            other => Self::Other(other.to_owned()),
        }
    }

    /// Whether it sets the link of a VF off. `igb` says EOPNOTSUPP; such a VF is kept without a driver, on the parking
    /// VLAN, instead.
    #[must_use]
    pub const fn disables_links(&self) -> bool {
        !matches!(self, Self::Igb)
    }

    /// Whether it keeps a rate for certain. `igb` says EINVAL.
    #[must_use]
    pub const fn keeps_rates(&self) -> bool {
        !matches!(self, Self::Igb)
    }

    /// Whether its embedded switch has modes (devlink).
    #[must_use]
    pub const fn has_switch_modes(&self) -> bool {
        !matches!(self, Self::Igb)
    }

    /// Whether the mode is set between the VFs' making and their use, or with no VF there is.
    #[must_use]
    pub const fn mode_with_vfs(&self) -> bool {
        matches!(self, Self::Mlx5 | Self::Other(_))
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mlx5 => "mlx5_core",
            Self::Ice => "ice",
            Self::Igb => "igb",
            Self::Other(name) => name,
        })
    }
}

/// Mode of a card's embedded switch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SwitchMode {
    /// The card joins VFs by address and VLAN.
    #[default]
    Legacy,
    /// The host joins their representors.
    Switchdev,
}

impl fmt::Display for SwitchMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Legacy => "legacy",
            Self::Switchdev => "switchdev",
        })
    }
}

/// What a VF is given to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// The kernel's own driver: its link goes into a container.
    Link,
    /// `vfio-pci`: the function goes into a virtual machine.
    Vfio,
}

/// Every setting of a VF that its card has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Hardware address.
    pub mac: MacAddr,
    /// VLAN; there always is one.
    pub vlan: VlanId,
    /// Priority of its frames.
    pub qos: u8,
    /// Mbit/s for certain; 0 = none.
    pub min_mbps: u32,
    /// Mbit/s at most; 0 = no bound.
    pub max_mbps: u32,
    /// Frames from other addresses are dropped.
    pub spoof_check: bool,
    /// May change its address and hear everything.
    pub trust: bool,
    /// Its link; absent where the driver cannot set it.
    pub link: Option<VfLinkState>,
}

impl Settings {
    /// What nobody's VF has: it reaches nothing, and nothing of an earlier holder is left.
    #[must_use]
    pub fn baseline(driver: &Driver, mac: MacAddr, parking: VlanId) -> Self {
        Self {
            mac,
            vlan: parking,
            qos: 0,
            min_mbps: 0,
            max_mbps: 0,
            spoof_check: true,
            trust: false,
            link: driver.disables_links().then_some(VfLinkState::Disable),
        }
    }

    /// The first setting that a look does not show; absent = all are as they should be. What the driver does not tell
    /// counts as a difference, but for a rate of 0, which is none.
    #[must_use]
    pub fn difference(&self, seen: &ObservedVf) -> Option<String> {
        fn told<T: PartialEq + Copy + fmt::Debug>(
            what: &str,
            want: T,
            seen: Option<T>,
        ) -> Option<String> {
            match seen {
                Some(seen) if seen == want => None,
                Some(seen) => Some(format!("{what} is {seen:?}, not {want:?}")),
                None => Some(format!("the driver does not tell {what}")),
            }
        }
        let tag = VfVlan { vlan: self.vlan.get(), qos: self.qos, protocol: 0x8100 };
        told("the address", self.mac, seen.mac)
            .or_else(|| told("the VLAN", tag, seen.vlan))
            .or_else(|| told("the spoof check", self.spoof_check, seen.spoof_check))
            .or_else(|| told("the trust", self.trust, seen.trust))
            .or_else(|| told("the least rate", self.min_mbps, seen.min_mbps.or(Some(0))))
            .or_else(|| told("the rate", self.max_mbps, seen.max_mbps.or(Some(0))))
            .or_else(|| told("the link", self.link?, seen.link_state))
    }
}

/// What a lease is to have of a VF.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Whose.
    pub lease: LeaseId,
    /// Of the grant: an action of an earlier one is stale.
    pub generation: u64,
    /// Its hardware address.
    pub mac: MacAddr,
    /// VLAN of its network.
    pub vlan: VlanId,
    /// Priority.
    pub qos: u8,
    /// Mbit/s for certain; 0 = none.
    pub min_mbps: u32,
    /// Mbit/s at most; 0 = no bound.
    pub max_mbps: u32,
    /// May change its address and hear everything.
    pub trust: bool,
    /// What it is given to.
    pub binding: Binding,
}

impl Grant {
    /// As the card is to have it, with its link on or off.
    #[must_use]
    pub fn settings(&self, driver: &Driver, on: bool) -> Settings {
        let off = driver.disables_links().then_some(VfLinkState::Disable);
        let on_state = driver.disables_links().then_some(VfLinkState::Auto);
        Settings {
            mac: self.mac,
            vlan: self.vlan,
            qos: self.qos,
            min_mbps: self.min_mbps,
            max_mbps: self.max_mbps,
            // A trusted VF chooses its own address.
            spoof_check: !self.trust,
            trust: self.trust,
            link: if on { on_state } else { off },
        }
    }
}

/// What a card is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredPf {
    /// How many VFs.
    pub count: u32,
    /// Mode of its switch.
    pub mode: SwitchMode,
    /// VLAN that leads nowhere.
    pub parking: VlanId,
    /// Grants by number of the VF.
    pub grants: BTreeMap<u32, Grant>,
}

/// Who has a VF, as the ledger says; written before the first step, struck out after the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Whose.
    pub lease: LeaseId,
    /// Of the grant.
    pub generation: u64,
}

/// A card as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pf {
    /// PCI address.
    pub bdf: String,
    /// Its driver.
    pub driver: Driver,
    /// Name of its link; absent while its driver has none.
    pub link: Option<LinkName>,
    /// Most VFs that its firmware has.
    pub most: u32,
    /// Mode of its switch; absent where the driver has none.
    pub mode: Option<SwitchMode>,
    /// Its VFs by number.
    pub vfs: BTreeMap<u32, Vf>,
}

/// A virtual function as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vf {
    /// PCI address.
    pub bdf: String,
    /// Its driver; absent = none.
    pub driver: Option<String>,
    /// Settings as its card has them.
    pub settings: ObservedVf,
}
