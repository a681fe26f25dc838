//! A network card by sysfs and netlink together.

use std::sync::Arc;

use bulkhead_api::chain::Chain;

use super::netlink::Netlink;
use super::sysfs::{BIND_PATIENCE, COUNT_PATIENCE, Sysfs, SysfsError};
use super::{Kernel as _, KernelError};
use crate::model::ObservedLink;
use crate::sriov::converge::VfHost;
use crate::sriov::model::{Binding, Pf, Settings, SwitchMode, Vf};

/// Why a card could not be read or changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CardError {
    /// sysfs.
    #[error("{}", Chain(.0.as_ref()))]
    Sysfs(Arc<SysfsError>),
    /// netlink.
    #[error("{what}: {}", Chain(.source.as_ref()))]
    Netlink {
        /// What was asked.
        what: String,
        /// Its answer.
        source: Arc<KernelError>,
    },
    /// Its driver shows no link.
    #[error("card {0}: its driver shows no link")]
    NoLink(String),
    /// The card does not tell of a VF.
    #[error("card {bdf}: it does not tell of VF {number}")]
    NotTold {
        /// The card.
        bdf: String,
        /// The VF.
        number: u32,
    },
    /// The mode of its switch cannot be set.
    #[error("card {0}: this version sets no mode of a switch")]
    Mode(String),
}

impl From<SysfsError> for CardError {
    fn from(error: SysfsError) -> Self {
        Self::Sysfs(Arc::new(error))
    }
}

/// One card. It is known by its PCI address: names and numbers of links change.
#[derive(Debug)]
pub struct Card {
    bdf: String,
    sysfs: Sysfs,
    netlink: Netlink,
}

impl Card {
    /// A card of this PCI address, in the namespace of `netlink`.
    #[must_use]
    pub const fn new(bdf: String, sysfs: Sysfs, netlink: Netlink) -> Self {
        Self { bdf, sysfs, netlink }
    }

    fn link(&mut self) -> Result<ObservedLink, CardError> {
        let none = || CardError::NoLink(self.bdf.clone());
        let name = self.sysfs.link(&self.bdf).ok_or_else(none)?;
        let observed = self.netlink.observe().map_err(|source| CardError::Netlink {
            what: format!("read the links for card {}", self.bdf),
            source: Arc::new(source),
        })?;
        observed.link(&name).cloned().ok_or_else(none)
    }

    fn bdf_of(&self, vf: u32) -> Result<String, CardError> {
        Ok(self.sysfs.vf(&self.bdf, vf)?.bdf)
    }
}

impl VfHost for Card {
    type Error = CardError;

    fn observe(&mut self) -> Result<Pf, CardError> {
        let mut pf = self.sysfs.card(&self.bdf)?;
        for seen in self.link()?.vfs {
            if let Some(vf) = pf.vfs.get_mut(&seen.number) {
                vf.settings = seen;
            }
        }
        Ok(pf)
    }

    fn observe_vf(&mut self, vf: u32) -> Result<Vf, CardError> {
        let mut found = self.sysfs.vf(&self.bdf, vf)?;
        let seen = self.link()?.vfs.into_iter().find(|seen| seen.number == vf);
        found.settings =
            seen.ok_or_else(|| CardError::NotTold { bdf: self.bdf.clone(), number: vf })?;
        Ok(found)
    }

    fn set_count(&mut self, count: u32) -> Result<(), CardError> {
        Ok(self.sysfs.set_count(&self.bdf, count, COUNT_PATIENCE)?)
    }

    fn set_mode(&mut self, _: SwitchMode) -> Result<(), CardError> {
        Err(CardError::Mode(self.bdf.clone()))
    }

    fn unbind(&mut self, vf: u32) -> Result<(), CardError> {
        let bdf = self.bdf_of(vf)?;
        Ok(self.sysfs.unbind(&bdf)?)
    }

    fn bind(&mut self, vf: u32, to: Binding) -> Result<(), CardError> {
        let bdf = self.bdf_of(vf)?;
        let driver = match to {
            Binding::Link => None,
            Binding::Vfio => Some("vfio-pci"),
        };
        Ok(self.sysfs.bind(&bdf, driver, BIND_PATIENCE)?)
    }

    fn set(&mut self, vf: u32, settings: &Settings) -> Result<(), CardError> {
        let link = self.link()?;
        self.netlink.set_vf(link.index, vf, settings).map_err(|source| CardError::Netlink {
            what: format!("set VF {vf} of {}", link.name),
            source: Arc::new(source),
        })
    }
}
